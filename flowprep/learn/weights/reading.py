"""What every reader of weights does with a file that may be anybody's.

PyTorch writes checksums and never looks at them, and it believes the sizes that a file claims. So a
file is looked at first, and mapped into memory then: no tensor can reach beyond it.
"""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from flowprep.errors import WeightsError
from flowprep.learn.clip_inputs import ChannelOrder

__all__ = [
    "FormatError",
    "UnsupportedError",
    "WeightsFile",
    "cannot_read",
    "check_zip",
    "load_zip",
    "map_file",
    "odd_tensor",
    "show",
]

_IS_ENCRYPTED = 0x1


class FormatError(Exception):
    """A parser met something that the format does not allow. Its caller knows the file."""


class UnsupportedError(Exception):
    """Something that the format allows but this reader cannot read. Its caller knows the file."""


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
    is_own: bool = False
    """Whether flowprep wrote it. Its names are ours then, whoever else has the same."""
    channel_order: ChannelOrder = "interleaved"
    """The order of a stack's channels in the first convolution, as a checkpoint of ours says. Every
    other project interleaves them."""


def cannot_read(path: Path, error: OSError) -> WeightsError:
    """Returns the error for a file that the system does not let us read."""
    return WeightsError(
        f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
    )


def map_file(path: Path) -> memoryview:
    """Maps a file into memory for reading. The map lasts as long as what is made of it.

    Raises WeightsError where the file cannot be read, and FormatError for an empty file.
    """
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise FormatError("it is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise cannot_read(path, error) from error


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


def show(name: bytes | memoryview) -> str:
    """Returns a name from a file for a message: quoted, and not longer than a line or two."""
    shown = repr(bytes(name[:400]).decode(errors="backslashreplace"))
    return shown if len(shown) <= 200 else f"{shown[:200]}..."
