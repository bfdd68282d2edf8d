"""Export a trained RUN: FP32 and INT8 model files as ONNX and TFLite, each verified and self-describing.

``bundle`` writes all files of a RUN. ``tools`` holds programs for model makers; no other module imports them.
"""
