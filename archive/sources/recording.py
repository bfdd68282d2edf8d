"""A recording as it is listed, before it is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .addresses import public_address

__all__ = ["FaultCause", "Recording", "RecordingState"]

FaultCause = Literal["list", "source", "passed_over"]


@dataclass(frozen=True)
class Recording:
    """A recording of the archive.

    Attributes:
        location: absolute path, or address that fsspec opens. It names the recording, so a token that is given in it,
            such as the signature of a presigned address, goes to ``address``.
        site, capsule_type, patient, date: as a list of recordings has them; None where it says nothing.
        fault: why the row of a list cannot be used, a folder cannot be listed, or pictures are passed over, in a
            sentence; empty for a recording. Such a recording is not read.
        cause: a word for the fault: ``list``: a row of a list is wrong; ``source``: a folder cannot be listed;
            ``passed_over``: pictures lie beside recordings, or a source holds none, which is worth a warning alone.
        source: the folder, list, pattern or address that names the recording. It is no property of the recording.
        sources: all that name the recording, this one among them.
        address: the address with its token; empty if there is none. It is never recorded or shown.
    """

    location: str
    site: str | None = None
    capsule_type: str | None = None
    patient: str | None = None
    date: str | None = None
    fault: str = ""
    cause: FaultCause = "list"
    source: str = field(default="", compare=False)
    sources: tuple[str, ...] = field(default=(), compare=False)
    address: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        name = public_address(self.location)
        if name != self.location:
            object.__setattr__(self, "address", self.location)
            object.__setattr__(self, "location", name)

    @property
    def opened(self) -> str:
        """The path or address that opens the recording."""
        return self.address or self.location


@dataclass(frozen=True)
class RecordingState:
    """The marks of a file by which a change of a recording is noticed.

    Attributes:
        bytes: size; of a folder of pictures, the sum of its files.
        modified_ns: time of the last change, nanoseconds since 1970; None where the store does not say.
        tag: version that a store gives the object (ETag); empty where there is none.
    """

    bytes: int | None
    modified_ns: int | None
    tag: str = ""
