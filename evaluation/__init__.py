"""Evaluate models without TensorFlow: data sets, audits, metrics, parity certificates, scores of whole recordings.

In: model files, labelled frames, and recordings with their truth. Out: figures, certificates and reports.
Must not know: training, export, the command line.
"""
