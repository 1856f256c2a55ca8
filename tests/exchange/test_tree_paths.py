"""Names of videos in trees: as the user gave them, and inside the target folder at any rate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.exchange.tree_paths import PathStyle, safe_component

STYLES = [PathStyle(), PathStyle(keeps_blanks=False), PathStyle(version=1)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "name",
    [
        *("..", ".", "/etc/passwd", "a/b", "a\0b", "a\nb", " ", "-rf", "~root", "a.", "%2e", ""),
        *("\\..\\x", "\udcff", "\ud800", "x" * 300, "é" * 200, "CON:", "\u202etxt", "a b", " a "),
        *("%", "100%", "%2F", "\u3000", "\ufeff"),
    ],
)
def test_a_component_is_one_harmless_name(name: str, style: PathStyle, tmp_path: Path) -> None:
    made = safe_component(name, style)
    assert made not in ("", ".", "..")
    assert made[0] not in ". "
    assert made[-1] not in ". "
    assert not set(made) & set("/\\\0\n")
    assert made.isprintable()
    assert len(made.encode()) <= 200
    if not style.keeps_blanks:
        assert len(made.split()) == 1
    (tmp_path / made).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [made]


@pytest.mark.parametrize(
    "name",
    [
        "#20_Rhythm_clap_u_nm_np1_fr_goo_0",
        "-0Bh7j0eG5E_000010_000020",
        "Faces & Hands (2); it's $5?",
        "~home",
        "50%",
        "v_ApplyEyeMakeup_g01_c01",
        "Привет",
    ],
)
def test_names_are_kept(name: str) -> None:
    assert safe_component(name) == name
    assert safe_component(name, PathStyle(keeps_blanks=False)) == name.replace(" ", "%20")


@pytest.mark.parametrize("style", STYLES)
def test_components_differ_where_names_do(style: PathStyle) -> None:
    names = ["a b", "a%20b", "a_b", "ab", "A b", ".a", "%2Ea", "a.", "a%2E", "x" * 300, "x" * 301]
    assert len({safe_component(name, style) for name in names}) == len(names)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), st.sampled_from(STYLES))
def test_a_component_tells_its_name(name: str, style: PathStyle) -> None:
    made = safe_component(name, style)
    back = re.sub(
        r"(?:%[0-9A-F]{2})+", lambda m: bytes.fromhex(m[0].replace("%", "")).decode(), made
    )
    assert back == name


def test_version_1_escapes_as_flowprep_0_1_0_did() -> None:
    """So an export that it began finds its videos again."""
    style = PathStyle(version=1)
    for name, path in (
        ("Dr. No", "Dr.%20No"),
        ("#20_a", "%2320_a"),
        ("-a", "%2Da"),
        ("~a", "%7Ea"),
        ("it's;$5", "it%27s%3B%245"),
        ("50%", "50%25"),
    ):
        assert safe_component(name, style) == path
