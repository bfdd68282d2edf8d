"""Read the ``ModelSpec`` in a model file and run the model with an inference engine.

In: a model file, and batches of uint8 RGB frames. Out: probabilities, logits and features, all float32.
Must not know: recordings, events, results. Only the chosen engine is imported, never another framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .backend import Answer, Backend
    from .engines import (
        BACKENDS,
        Format,
        find_format,
        installed_backends,
        open_model,
        open_reference,
        readers_of,
    )
    from .installed_models import INSTALLED, default_model, find_model
    from .prediction import most_probable
    from .references import GOLDEN_FILE, GOLDEN_SCHEMA, reference_of, stored_answers
    from .spec import (
        INTENDED_USE,
        METADATA_KEY,
        NOT_STATED,
        EventParameters,
        InputSpec,
        Label,
        ModelSpec,
        OperatingPoint,
        Precision,
        Role,
    )
    from .spec_records import (
        APPEARANCE,
        MEASURES,
        AppearanceParameters,
        FamiliarityRule,
        HeldOutBy,
        PrecisionAtScore,
        ReferenceHistogram,
        SuggestionGrouping,
        SuggestionPrecision,
        SuggestionWeights,
    )
    from .training_marks import SEEN_IN_FITTING, SEEN_IN_TRAINING, seen_before, video_mark
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        backend="Answer Backend",
        engines="BACKENDS Format find_format installed_backends open_model open_reference readers_of",
        installed_models="INSTALLED default_model find_model",
        prediction="most_probable",
        references="GOLDEN_FILE GOLDEN_SCHEMA reference_of stored_answers",
        spec=(
            "EventParameters INTENDED_USE InputSpec Label METADATA_KEY ModelSpec NOT_STATED OperatingPoint "
            "Precision Role"
        ),
        spec_records=(
            "APPEARANCE AppearanceParameters FamiliarityRule HeldOutBy MEASURES PrecisionAtScore ReferenceHistogram "
            "SuggestionGrouping SuggestionPrecision SuggestionWeights"
        ),
        training_marks="SEEN_IN_FITTING SEEN_IN_TRAINING seen_before video_mark",
    )

__all__ = [
    "APPEARANCE",
    "BACKENDS",
    "GOLDEN_FILE",
    "GOLDEN_SCHEMA",
    "INSTALLED",
    "INTENDED_USE",
    "MEASURES",
    "METADATA_KEY",
    "NOT_STATED",
    "SEEN_IN_FITTING",
    "SEEN_IN_TRAINING",
    "Answer",
    "AppearanceParameters",
    "Backend",
    "EventParameters",
    "FamiliarityRule",
    "Format",
    "HeldOutBy",
    "InputSpec",
    "Label",
    "ModelSpec",
    "OperatingPoint",
    "Precision",
    "PrecisionAtScore",
    "ReferenceHistogram",
    "Role",
    "SuggestionGrouping",
    "SuggestionPrecision",
    "SuggestionWeights",
    "default_model",
    "find_format",
    "find_model",
    "installed_backends",
    "most_probable",
    "open_model",
    "open_reference",
    "readers_of",
    "reference_of",
    "seen_before",
    "stored_answers",
    "video_mark",
]
