"""Evaluate models on single frames: predictions, metrics, confidence intervals, reports, model cards.

In: model files and a ``Dataset``. Out: figures with intervals over videos.
Must not know: TensorFlow, recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .bootstrap import (
        LEVEL,
        Resamples,
        interval,
        mean_defined,
        rates,
        resample_videos,
        resampled_figures,
        why_no_intervals,
    )
    from .calibration import (
        READER_SPECIFICITY,
        READER_THRESHOLD,
        ece,
        fit_temperature,
        is_at_bound,
        operating_points,
    )
    from .classification_report import SIGN, write_report
    from .metrics import defined, evaluate, one_vs_rest_auc
    from .paired_test import exact_mcnemar
    from .predictions import (
        Predictions,
        check_labels,
        load_frames,
        load_predictions,
        predict,
        save_predictions,
    )
    from .variants import Score, score_files
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        bootstrap=(
            "LEVEL Resamples interval mean_defined rates resample_videos resampled_figures why_no_intervals"
        ),
        calibration="READER_SPECIFICITY READER_THRESHOLD ece fit_temperature is_at_bound operating_points",
        classification_report="SIGN write_report",
        metrics="defined evaluate one_vs_rest_auc",
        paired_test="exact_mcnemar",
        predictions="Predictions check_labels load_frames load_predictions predict save_predictions",
        variants="Score score_files",
    )

__all__ = [
    "LEVEL",
    "READER_SPECIFICITY",
    "READER_THRESHOLD",
    "SIGN",
    "Predictions",
    "Resamples",
    "Score",
    "check_labels",
    "defined",
    "ece",
    "evaluate",
    "exact_mcnemar",
    "fit_temperature",
    "interval",
    "is_at_bound",
    "load_frames",
    "load_predictions",
    "mean_defined",
    "one_vs_rest_auc",
    "operating_points",
    "predict",
    "rates",
    "resample_videos",
    "resampled_figures",
    "save_predictions",
    "score_files",
    "why_no_intervals",
    "write_report",
]
