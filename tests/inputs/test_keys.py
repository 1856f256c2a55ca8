"""Keys: reversible, without collisions, and safe against hostile data sets."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.errors import DatasetError, InputError
from flowprep.inputs.keys import check_key, escape_key, unescape_key

# Every name that a POSIX file system can hold: any bytes but NUL and the slash.
file_names = (
    st.binary(min_size=1, max_size=12)
    .map(lambda data: os.fsdecode(data.translate(None, b"\0/")))
    .filter(lambda name: name not in ("", ".", ".."))
)
odd_names = st.text("ab-_.%2EeF /é 手\n", min_size=1, max_size=8).filter(
    lambda path: all(part not in ("", ".", "..") for part in path.split("/"))
)
paths = st.one_of(st.lists(file_names, min_size=1, max_size=4).map("/".join), odd_names)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("Archery/v_Archery_g01_c01", "Archery/v_Archery_g01_c01"),
        ("talks/Dr. No (1962)", "talks/Dr%2E%20No%20%281962%29"),
        ("50%", "50%25"),
        ("%20", "%2520"),
        ("-a-/-b-", "%2Da-/%2Db-"),
        ("...", "%2E%2E%2E"),
        ("é/手", "%C3%A9/%E6%89%8B"),
        (os.fsdecode(b"caf\xe9"), "caf%E9"),
        ("two\nlines", "two%0Alines"),
        ("back\\slash", "back%5Cslash"),
    ],
)
def test_escaped_as_documented(path: str, key: str) -> None:
    assert escape_key(path) == key
    assert unescape_key(key) == path


@given(paths)
def test_round_trip_and_alphabet(path: str) -> None:
    key = escape_key(path)
    check_key(key)
    assert unescape_key(key) == path
    assert re.fullmatch(r"[A-Za-z0-9_/%-]+", key)
    assert not any(part.startswith("-") or not part for part in key.split("/"))


@given(paths, paths)
def test_two_paths_never_share_a_key(one: str, other: str) -> None:
    assert (escape_key(one) == escape_key(other)) == (one == other)


@given(st.text(max_size=12))
def test_any_text_is_escaped_reversibly_or_refused(text: str) -> None:
    try:
        key = escape_key(text)
    except InputError:
        return
    assert unescape_key(key) == text


@given(st.one_of(st.text(max_size=12), st.text("aA-_./%2E0f\n", max_size=12)))
def test_a_checked_key_is_one_that_escape_key_returns(text: str) -> None:
    try:
        check_key(text)
    except DatasetError:
        with pytest.raises(DatasetError):
            unescape_key(text)
    else:
        assert escape_key(unescape_key(text)) == text


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/./b", "a\0"]
)
def test_paths_without_a_key(path: str) -> None:
    with pytest.raises(InputError, match="a key needs"):
        escape_key(path)


@pytest.mark.parametrize("path", ["\ud800", "\udcc3\udca9"])
def test_surrogates_that_no_file_name_has(path: str) -> None:
    with pytest.raises(InputError, match="that a file system can hold"):
        escape_key(path)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../a",
        "a/../b",
        "a//b",
        "a/",
        "a.b",
        "a b",
        "a\n",
        "\x1b[2J",
        "-rf",
        "a/-b",
        "é",
        "%2e",
        "%2",
        "%",
        "%41",
        "%2F",
        "a%2Fb",
        "%00",
        "%2E",
        "%2E%2E",
        "a/%2E%2E/b",
        "a\\b",
        "C:",
    ],
)
def test_malformed_keys(key: str) -> None:
    with pytest.raises(DatasetError, match="malformed key"):
        check_key(key)
    with pytest.raises(DatasetError, match="malformed key"):
        unescape_key(key)


def test_the_message_names_key_and_rule() -> None:
    with pytest.raises(DatasetError) as caught:
        check_key("../x")
    assert str(caught.value) == (
        "malformed key '../x': a key has letters, digits, _, -, / and %XX escapes only, and no "
        "component that is empty, '.' or '..'; the data set is damaged or was not written by "
        "flowprep; restore it from a copy"
    )
