"""The small data sets of `tests/dataset`."""

from __future__ import annotations

from tests.dataset.conftest import copied, forward_only, made_once, truth, videos

__all__ = ["copied", "forward_only", "made_once", "truth", "videos"]
