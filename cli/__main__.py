"""Run the command line as ``python -m capsule_edge.cli``, for when ``capsule-edge`` is not on the PATH."""

from __future__ import annotations

from .main import main

if __name__ == "__main__":
    main()
