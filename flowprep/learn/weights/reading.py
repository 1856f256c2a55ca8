"""What every reader of weights does with a file that may be anybody's.

PyTorch writes checksums and never looks at them, and it believes the sizes that a file claims. So a
file is looked at first, and mapped into memory then: no tensor can reach beyond it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from flowprep.errors import WeightsError

__all__ = ["WeightsFile", "cannot_read", "check_zip", "load_zip", "odd_tensor"]

_IS_ENCRYPTED = 0x1


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file, and what its container says besides."""

    path: Path
    container: str
    """What kind of file it is: `safetensors`, `PyTorch`, ..."""
    tensors: Mapping[str, torch.Tensor]
    """On the CPU, by the names of the file. May be read only when asked for."""
    removed: tuple[str, ...] = ()
    """What was around the names: the key of the state dict, and `module.` before each name."""
    details: Mapping[str, str] = field(default_factory=dict)
    """Plain values beside the weights, such as the architecture's name or the epoch."""


def cannot_read(path: Path, error: OSError) -> WeightsError:
    """Returns the error for a file that the system does not let us read."""
    return WeightsError(
        f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
    )


def check_zip(path: Path) -> str | None:
    """Returns the name of a part of a zip that is damaged; None where it is as it was written.

    Raises OSError where the file cannot be read, ValueError for a zip that torch does not write:
    one that is packed may unpack to any size. Of damaged bytes zipfile raises nearly anything.
    """
    with zipfile.ZipFile(path) as file:
        parts = file.infolist()
        for part in parts:
            if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & _IS_ENCRYPTED:
                raise ValueError(f"its part {part.filename} is packed, which PyTorch's never are")
        if len({part.filename for part in parts}) < len(parts):
            raise ValueError("it has two parts of one name")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("its parts are larger than the file")
        return file.testzip()


def load_zip(path: Path) -> Any:
    """Returns what `torch.save` wrote to a zip that `check_zip` has passed; nothing is executed.

    The tensors are on the CPU, and views of the file. Raises whatever torch does.
    """
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def odd_tensor(value: torch.Tensor) -> str | None:
    """Says why a stored tensor is none of plain numbers; None where it is."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return f"layout {value.layout}, type {value.dtype} on {value.device}"
    return None
