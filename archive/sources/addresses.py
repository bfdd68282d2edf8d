"""Addresses of recordings, and what in them must not be recorded: passwords and tokens.

A presigned address gives access for some hours by a signature in its query. It opens the recording and does not name
it: a new token for the same recording is the same recording.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = [
    "file_name",
    "has_password",
    "hide_password",
    "hide_tokens",
    "is_address",
    "is_of_the_web",
    "is_pattern",
    "public_address",
]

_LOGIN = re.compile(r"[^/]*://([^/@:]*:(?!\d+/)[^@]+)@")
# Parameters that give access, lower case: AWS and CloudFront, Google, Azure, and what others call such a thing.
_TOKEN = re.compile(
    r"x-(amz|goog)-(signature|credential|security-token)|signature|sig|awsaccesskeyid|googleaccessid|key-pair-id|"
    r".*token|.*secret|.*password|(.*[_-])?api[_-]?key|jwt|auth|authorization"
)
# Parameters that come with a token and change with it: AWS, Google and CloudFront, Azure's shared access signatures.
_WITH_TOKEN = re.compile(
    r"x-(amz|goog)-.*|expires|policy|hash-algorithm|"
    r"s[vsrpetid]|srt|spr|sip|sdd|ses|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid"
)
_PARAMETER = re.compile(r"(?<=[?&;])([^=&;?\s]+)=([^&;\s'\"<>)\]]*)")
_WILD = frozenset("*?[")


def is_address(location: str) -> bool:
    """Return whether a location is an address and not a path."""
    return "://" in location


def has_password(location: str) -> bool:
    """Return whether an address holds a login with a password, as ``ftp://name:secret@host/exam.mp4`` does."""
    return _login(location) is not None


def hide_password(location: str) -> str:
    """Return an address without its login, for messages."""
    login = _login(location)
    return location if login is None else location[: login.start(1)] + "***" + location[login.end(1) :]


def public_address(location: str) -> str:
    """Return an address without tokens: the name of the recording. A location without tokens is returned as it is.

    The other parameters stay, as they may name the recording: ``https://host/get?id=7&token=x`` becomes
    ``https://host/get?id=7``.
    """
    return _without_tokens(location) if is_address(location) else location


def _without_tokens(location: str) -> str:
    address, mark, query = location.partition("?")
    parameters = query.split("&")
    if not any(_is_token(each) for each in parameters):
        return location
    kept = [each for each in parameters if not (_is_token(each) or _WITH_TOKEN.fullmatch(_name(each)))]
    return address + mark + "&".join(kept) if kept else address


def hide_tokens(text: str) -> str:
    """Return a message in which the tokens of all addresses are ``***``."""

    def hide(found: re.Match[str]) -> str:
        return f"{found[1]}=***" if _TOKEN.fullmatch(unquote(found[1]).lower()) else found[0]

    return _PARAMETER.sub(hide, text)


def file_name(path: str) -> str:
    """Return the name of a file in a store, without the parameters of its address."""
    return _without_parameters(path).rstrip("/").rpartition("/")[2]


def is_pattern(path: str) -> bool:
    """Return whether a path in a store is a pattern of several files. The ``?`` before parameters is none."""
    return bool(_WILD & set(_without_parameters(path)))


def is_of_the_web(path: str) -> bool:
    """Return whether a path in a store is an address of HTTP: fsspec leaves only those as they are."""
    return path.startswith(("http://", "https://"))


def _without_parameters(path: str) -> str:
    """Return a path without parameters: all those of HTTP, else the tokens alone, as a name may hold ``?``."""
    return path.partition("?")[0] if is_of_the_web(path) else _without_tokens(path)


def _login(location: str) -> re.Match[str] | None:
    # Behind a host and its port, '@' belongs to a path. GitHub's addresses are github://organisation:repository@branch.
    found = _LOGIN.match(location)
    return None if found is None or location.startswith(("github://", "git://")) else found


def _is_token(parameter: str) -> bool:
    return _TOKEN.fullmatch(_name(parameter)) is not None


def _name(parameter: str) -> str:
    return unquote(parameter.partition("=")[0]).lower()
