"""UIDs that are derived from what an object holds, so that a second export makes the same objects."""

from __future__ import annotations

import hashlib
import uuid

__all__ = ["derive_uid"]


def derive_uid(*parts: object) -> str:
    """Return a UID of the UUID form (PS3.5, B.2; at most 44 characters) that depends on the parts alone.

    Example:
        ``derive_uid("key image", recording_sha256, 17)``
    """
    text = "\0".join(f"{len(str(part))}:{part}" for part in ("capsule-edge dicom 1", *parts))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    # Version 8 of RFC 9562: a UUID whose content its maker defines.
    value = bytearray(digest[:16])
    value[6] = value[6] & 0x0F | 0x80
    value[8] = value[8] & 0x3F | 0x80
    return f"2.25.{uuid.UUID(bytes=bytes(value)).int}"
