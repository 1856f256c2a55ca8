"""How numbers are written for people."""

from __future__ import annotations

import pytest

from flowprep.words import cut_middle, format_bytes, format_count, format_duration


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_960, "1.0 MB"),
        (1.25e9, "1.2 GB"),
        (5e12, "5.0 TB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_format_bytes(num_bytes: float, text: str) -> None:
    assert format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (8.14, "8.1 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (5 * 3600 + 125, "5 h 2 min"),
        (47 * 3600, "47 h 0 min"),
        (12 * 86400 + 4 * 3600, "12 d 4 h"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("most", [3, 4, 9, 10, 23, 24, 40])
def test_a_long_name_keeps_its_end_and_its_length(most: int) -> None:
    name = "walk/v_walk_g07_c12.mp4x"
    cut = cut_middle(name, most)
    assert len(cut) == min(most, len(name))
    assert (cut == name) == (most >= len(name))
    begin, dots, end = cut.partition("...")
    if dots:
        assert name.startswith(begin)
        assert name.endswith(end)
        assert len(end) in (len(begin), len(begin) + 1)


def test_format_count() -> None:
    counts = [format_count(number, "video") for number in (0, 1, 2)]
    assert counts == ["0 videos", "1 video", "2 videos"]
