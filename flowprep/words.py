"""Writes numbers for people: counts, sizes, durations."""

from __future__ import annotations

__all__ = ["cut_middle", "format_bytes", "format_count", "format_duration"]


def format_count(number: int, noun: str) -> str:
    """Returns `1 video`, `2 videos`, `1,000 videos`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def cut_middle(text: str, most: int) -> str:
    """Returns a text of at most `most` characters, cut in the middle if it is longer.

    The names of videos often differ only at their ends.
    """
    if len(text) <= most:
        return text
    kept = max(0, most - 3)
    begin = kept // 2
    return f"{text[:begin]}...{text[len(text) - (kept - begin) :]}"


def format_bytes(num_bytes: float) -> str:
    """Returns a size such as `1.2 GB`, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        # 999.96 kB would be shown as 1000.0 kB.
        if num_bytes < (999.5 if unit == "B" else 999.95) or unit == "TB":
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError


def format_duration(seconds: float) -> str:
    """Returns a duration such as `8.1 s`, `3 min 20 s`, `5 h 2 min` or `12 d 4 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
