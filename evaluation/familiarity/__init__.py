"""Fit the rule that sets unfamiliar frames aside, and count what the training recordings look like.

In: a data set, disturbances drawn by code, results of readings. Out: the records ``familiarity`` and ``reference``.
Must not know: TensorFlow, findings of recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .appearance_fit import AppearanceFit, choose_threshold, fit_appearance, fit_rule
    from .disturbances import DISTURBANCES, Disturbance
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        appearance_fit="AppearanceFit choose_threshold fit_appearance fit_rule",
        disturbances="DISTURBANCES Disturbance",
    )

__all__ = [
    "DISTURBANCES",
    "AppearanceFit",
    "Disturbance",
    "choose_threshold",
    "fit_appearance",
    "fit_rule",
]
