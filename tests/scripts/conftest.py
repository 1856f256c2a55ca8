"""The data set of clips that only motion tells apart, for what scripts train."""

from __future__ import annotations

from tests.learn.conftest import motion

__all__ = ["motion"]
