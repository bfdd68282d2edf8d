"""Compare the results of two models over the same recordings.

In: two archives, or one that holds the results of both models. Out: a document with every difference, and a page.
Must not know: how recordings are read, how work is spread, the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .comparison import (
        ArchiveComparison,
        ComparisonOptions,
        SuggestionDifference,
        check_comparison_folder,
        compare_archives,
        write_comparison,
    )
    from .comparison_page import render_comparison
    from .difference_pictures import illustrate_differences
    from .model_choice import ModelChoice, choose_models, find_model_files
    from .paired_results import ResultPairs, pair_results
    from .suggestion_matching import SuggestionMatch, match_suggestions
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        comparison=(
            "ArchiveComparison ComparisonOptions SuggestionDifference check_comparison_folder compare_archives "
            "write_comparison"
        ),
        comparison_page="render_comparison",
        difference_pictures="illustrate_differences",
        model_choice="ModelChoice choose_models find_model_files",
        paired_results="ResultPairs pair_results",
        suggestion_matching="SuggestionMatch match_suggestions",
    )

__all__ = [
    "ArchiveComparison",
    "ComparisonOptions",
    "ModelChoice",
    "ResultPairs",
    "SuggestionDifference",
    "SuggestionMatch",
    "check_comparison_folder",
    "choose_models",
    "compare_archives",
    "find_model_files",
    "illustrate_differences",
    "match_suggestions",
    "pair_results",
    "render_comparison",
    "write_comparison",
]
