"""Certify that an INT8 model gives the answers of its FP32 model: the parity certificate.

In: two model files and labelled frames. Out: a certificate with gates and a verdict.
Must not know: TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .certificate import certificate_stem, describe_pair, write_certificate
    from .certification import certify, parity_summary, with_sha256
    from .compare import agree_on_events, compare_models, compare_table, describe_model, describe_table
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        certificate="certificate_stem describe_pair write_certificate",
        certification="certify parity_summary with_sha256",
        compare="agree_on_events compare_models compare_table describe_model describe_table",
    )

__all__ = [
    "agree_on_events",
    "certificate_stem",
    "certify",
    "compare_models",
    "compare_table",
    "describe_model",
    "describe_pair",
    "describe_table",
    "parity_summary",
    "with_sha256",
    "write_certificate",
]
