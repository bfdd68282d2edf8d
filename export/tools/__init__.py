"""Programs for model makers. Run each with ``python -m capsule_edge.export.tools.NAME``; no other module imports them.

In: RUN folders, model files. Out: model files, tables and plots.
"""
