"""Run ``recording_scores`` as ``python -m capsule_edge.evaluation.recordings RESULT TRUTH``."""

from __future__ import annotations

from capsule_edge.evaluation._module import run_module

from .recording_scores import main

run_module(main)
