"""Where the tests of what PyTorch computes run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("FLOWPREP_REQUIRE_GPU") != "1", reason="no GPU"
)
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Lets torch compute in one thread: operations as small as these spend their time on waiting.

    A module that imports this has it for all its tests.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
