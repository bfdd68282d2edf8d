"""Tell whether the recordings of an archive, or a model's answers to them, drift away from a reference.

In: an archive, and a reference: that in the model file, or another archive. Out: figures and alarms by site and month.
Must not know: how recordings are read, the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .drift_check import DriftOptions, check_drift
    from .drift_tests import adjust_holm, bootstrap_test, permutation_test, stability_index
    from .input_samples import InputSample, SampleSetup, SampleTask, sample_archive, sample_inputs
    from .recording_measures import MEASURES, RecordingMeasures, load_measures
    from .reference_measures import ReferenceMeasure, reference_of_archive, reference_of_model
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        drift_check="DriftOptions check_drift",
        drift_tests="adjust_holm bootstrap_test permutation_test stability_index",
        input_samples="InputSample SampleSetup SampleTask sample_archive sample_inputs",
        recording_measures="MEASURES RecordingMeasures load_measures",
        reference_measures="ReferenceMeasure reference_of_archive reference_of_model",
    )

__all__ = [
    "MEASURES",
    "DriftOptions",
    "InputSample",
    "RecordingMeasures",
    "ReferenceMeasure",
    "SampleSetup",
    "SampleTask",
    "adjust_holm",
    "bootstrap_test",
    "check_drift",
    "load_measures",
    "permutation_test",
    "reference_of_archive",
    "reference_of_model",
    "sample_archive",
    "sample_inputs",
    "stability_index",
]
