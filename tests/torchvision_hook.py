"""Lets torchvision be imported beside a PyTorch of another build, for the tests of RAFT.

torchvision registers Python code for two of its compiled operators. Where these cannot be loaded,
its import ends with "operator torchvision::nms does not exist". RAFT uses neither, so it is enough
to declare them. A copy of this file named sitecustomize.py does the same in worker processes.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path


class _Hook:
    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Finds nothing, but declares the operators when torchvision is imported."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            _declare()


def _declare() -> None:
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    try:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            file = Path(spec.origin).with_name(f"_C{suffix}")
            if file.exists():
                torch.ops.load_library(str(file))
                return
    except OSError:
        pass
    # Kept, because an operator ends with its library.
    sys.torchvision_operators = library = torch.library.Library("torchvision", "DEF")  # type: ignore[attr-defined]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


if "torchvision" not in sys.modules:
    sys.meta_path.insert(0, _Hook())  # type: ignore[arg-type]
