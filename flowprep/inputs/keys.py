"""Keys: the names of videos inside a data set, escaped so that any file name survives.

    relative path without extension      key
    Archery/v_Archery_g01_c01            Archery/v_Archery_g01_c01
    talks/Dr. No (1962)                  talks/Dr%2E%20No%20%281962%29
    -abc/50%                             %2Dabc/50%25

Keys contain no dots, no leading dash and no `..`. WebDataset splits member names at the first dot,
tools take a leading dash for an option, and tar members could leave their folder with `..`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flowprep.errors import DatasetError, InputError

__all__ = ["are_plain_keys", "check_key", "escape_key", "unescape_key"]

# ASCII only: \w would let every alphabet through.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:/[A-Za-z0-9_][A-Za-z0-9_-]*)*")
_PLAIN_KEYS = re.compile(rf"(?:{_PLAIN_KEY.pattern}\n)*")
_ESCAPED = r"(?:[A-Za-z0-9_]|%[0-9A-F]{2})(?:[A-Za-z0-9_-]|%[0-9A-F]{2})*"
_KEY = re.compile(rf"{_ESCAPED}(?:/{_ESCAPED})*")
_TO_ESCAPE = re.compile(rb"[^A-Za-z0-9_/-]|(?:(?<=/)|\A)-")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")


def escape_key(relative_path_without_extension: str) -> str:
    """Returns the key of a relative path. Letters, digits, _, - and / stay; the rest becomes %XX.

    The bytes are those of UTF-8. Names that are not UTF-8 (surrogate escapes, as `os.fsdecode`
    gives them) keep their bytes. A dash at the start of a component is encoded. Two different paths
    never have the same key. Raises InputError for a path that is absolute, that has a NUL or an
    empty, `.` or `..` component, or that cannot be a file name.
    """
    path = relative_path_without_extension
    if _PLAIN_KEY.fullmatch(path):
        return path
    for component in path.split("/"):
        if component in ("", ".", ".."):
            raise InputError(
                f"a key needs a relative path without empty, '.' or '..' components, got {path!r}"
            )
    if "\0" in path:
        raise InputError(f"a key needs a path without NUL characters, got {path!r}")
    try:
        data = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = b""
    # Surrogates that together form valid UTF-8 would get the key of the text that they form.
    if data.decode("utf-8", "surrogateescape") != path:
        raise InputError(f"a key needs a path that a file system can hold, got {path!r}")
    return _TO_ESCAPE.sub(lambda match: b"%%%02X" % match[0][0], data).decode("ascii")


def unescape_key(key: str) -> str:
    """Returns the relative path of a key from `escape_key`. Raises the errors of `check_key`."""
    check_key(key)
    return _unescape(key)


def check_key(key: str) -> None:
    """Raises DatasetError unless `key` is one that `escape_key` returns.

    So a key from a hostile data set cannot lead out of a folder, escaped or unescaped. It cannot
    contain a dot or a control character, or be a second spelling of another key.
    """
    if _PLAIN_KEY.fullmatch(key):
        return
    if _KEY.fullmatch(key):
        try:
            if escape_key(_unescape(key)) == key:
                return
        except InputError:
            pass  # A key such as '%2E%2E' is reported below, like every other malformed key.
    raise DatasetError(
        f"malformed key {key!r}: a key has letters, digits, _, -, / and %XX escapes only, and no "
        "component that is empty, '.' or '..'; the data set is damaged or was not written by "
        "flowprep; restore it from a copy"
    )


def are_plain_keys(keys: Sequence[str]) -> bool:
    """Whether all of many keys are well-formed and have no escapes. This check is fast."""
    # A key with a line feed would count as two keys here, so the total would be wrong.
    text = "\n".join([*keys, ""])
    return text.count("\n") == len(keys) and _PLAIN_KEYS.fullmatch(text) is not None


def _unescape(key: str) -> str:
    data = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), key.encode("ascii"))
    return data.decode("utf-8", "surrogateescape")
