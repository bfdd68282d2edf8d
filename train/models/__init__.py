"""Network architectures, pretrained weights and weights files.

In: an architecture's name and size. Out: a Keras model that ends in global average pooling and one dense
layer. Must not know: data, training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .architectures import BRANCHED
    from .own_network import (
        NETWORK_FILE,
        NetworkBuilder,
        build_network,
        describe_network,
        hash_network,
        import_builder,
        qualified_name,
    )
    from .reparameterise import merge
    from .weights import Arrays, collect
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        architectures="BRANCHED",
        own_network="NETWORK_FILE NetworkBuilder build_network describe_network hash_network import_builder "
        "qualified_name",
        reparameterise="merge",
        weights="Arrays collect",
    )

__all__ = [
    "BRANCHED",
    "NETWORK_FILE",
    "Arrays",
    "NetworkBuilder",
    "build_network",
    "collect",
    "describe_network",
    "hash_network",
    "import_builder",
    "merge",
    "qualified_name",
]
