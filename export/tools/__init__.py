"""Programs for model makers, each run by ``python -m capsule_edge.export.tools.NAME``; no module imports them."""
