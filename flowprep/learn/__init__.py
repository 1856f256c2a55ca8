"""Training on a data set: clips, transforms, networks, the training loop, testing and fusion.

Needs the extra `train`. `networks`, `config`, `recipes`, `clips.indices` and `clips.transforms` do
not need PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowprep.lazy import lazy_names

if TYPE_CHECKING:
    from flowprep.learn.create import create_model
else:
    __getattr__, __dir__ = lazy_names(__name__, {"create_model": "flowprep.learn.create"})

__all__ = ["create_model"]
