"""URLs of object stores: tells them from paths, and hides their secrets.

A secret may be before an `@` (`s3://key:secret@bucket`) or in a query (a signed URL). A secret
before an `@` is refused wherever a user names a place (`storage.check_url`). No secret is ever
written to a file or a message.
"""

from __future__ import annotations

import os
import re

__all__ = [
    "absolute",
    "as_path",
    "has_query",
    "holds_credentials",
    "is_url",
    "parent_url",
    "redacted",
    "without_query",
]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s'\"<>]+)")
_LOCAL = re.compile(r"(?:file|local)://")


def is_url(location: str) -> bool:
    """Whether `location` is on an object store, not in a file system of this machine."""
    return "://" in location and _URL.match(location) is not None and not _LOCAL.match(location)


def as_path(location: str) -> str:
    """Returns a local location as a path (`/data` for `file:///data`), and a URL unchanged."""
    return _LOCAL.sub("", location, count=1) if _LOCAL.match(location) else location


def absolute(location: str) -> str:
    """Returns an absolute path, or a URL without slashes at its end."""
    return location.rstrip("/") if is_url(location) else os.path.abspath(location)


def has_query(url: str) -> bool:
    """Whether a URL ends with a query, `?name=value`. A `?` alone is a wildcard of a pattern."""
    return is_url(url) and "=" in url.partition("?")[2]


def without_query(location: str) -> str:
    """Returns a URL without its query, and a path unchanged."""
    return location.partition("?")[0] if has_query(location) else location


def parent_url(url: str) -> tuple[str, str]:
    """Returns the parent folder of a URL, and the name in that folder, with the query if any."""
    folder, _, name = without_query(url).rpartition("/")
    return folder, name + url[len(without_query(url)) :]


def holds_credentials(location: str) -> bool:
    """Whether a URL has credentials before its host: `s3://key:secret@bucket`."""
    match = _URL.match(location)
    return match is not None and _holds_user(match[2])


def redacted(text: str) -> str:
    """Returns `text` with `...` in place of credentials and queries in its URLs."""
    return _URL.sub(_hide, text) if "://" in text else text


def _holds_user(rest: str) -> bool:
    # A secret key may contain a slash: s3://AKIA:ab/cd@bucket. A port has only digits.
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    _, _, port = host.rpartition(":") if ":" in host and not host.endswith("]") else ("", "", "")
    return "@" in host or not (port == "" or port.isdigit())


def _hide(match: re.Match[str]) -> str:
    scheme, rest = match[1], match[2]
    if _holds_user(rest):
        rest = "..." + (rest[rest.rfind("@") :] if "@" in rest else "")
    head, mark, query = rest.partition("?")
    return scheme + (f"{head}?..." if mark and "=" in query else rest)
