"""Pieces of the report's HTML. Everything that comes from a data set is escaped here."""

from __future__ import annotations

import base64
import html
import re
from collections import Counter

__all__ = ["code", "data_url", "escape", "join_counts", "percent"]


def escape(text: str) -> str:
    """Returns text escaped for HTML."""
    return html.escape(text, quote=True)


def code(text: str) -> str:
    """Returns escaped text. Words between backticks become code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def data_url(webp: bytes) -> str:
    """Returns a WebP as a data URL."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def join_counts(counts: Counter[str]) -> str:
    """Returns the six most frequent names with their numbers."""
    return ", ".join(f"{name} {number:,}" for name, number in counts.most_common(6))


def percent(share: float) -> str:
    """Returns a share from 0 to 1 in percent, with enough digits to tell it apart from 0."""
    percent = 100 * share
    if 0 < percent < 0.001:
        return "under 0.001\u00a0%"
    digits = 0 if percent in (0, 1) or percent >= 10 else 3 if percent < 0.1 else 2
    return f"{percent:.{digits}f}\u00a0%"
