"""Files of weights, read and written: names -> tensors.

.safetensors             https://github.com/huggingface/safetensors
.pt .pth .pyth .tar .bin PyTorch's; only tensors and plain containers are accepted
.caffemodel              Caffe's (`flowprep.learn.weights.caffe`)
.pkl                     a pickle of arrays, as Caffe2's (`flowprep.learn.weights.pickled_arrays`)
PREFIX, PREFIX.index     a TensorFlow V2 checkpoint (`flowprep.learn.weights.tensorflow`)
"""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from flowprep.errors import WeightsError
from flowprep.learn.clip_inputs import ChannelOrder
from flowprep.learn.weights.caffe import CAFFE_SUFFIXES, blob_name, read_caffemodel
from flowprep.learn.weights.offers import listed
from flowprep.learn.weights.pickled_arrays import PICKLE_SUFFIX, read_pickled_arrays
from flowprep.learn.weights.reading import (
    WeightsFile,
    cannot_read,
    check_zip,
    load_zip,
    odd_tensor,
)
from flowprep.learn.weights.tensorflow import TensorBundle
from flowprep.storage import Storage

__all__ = [
    "CHECKPOINT_FORMAT",
    "TENSORFLOW_SUFFIX",
    "read_file",
    "read_weights",
    "save_weights",
    "tensorflow_prefix",
]

TORCH_SUFFIXES = (".pt", ".pth", ".pyth", ".tar", ".bin")

SAFETENSORS_SUFFIX = ".safetensors"

TENSORFLOW_SUFFIX = ".index"

CHECKPOINT_FORMAT = "flowprep-checkpoint"

_WRITER = "flowprep"
"""How a .safetensors of ours is known."""

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model_state", "model")
"""Keys under which training scripts store the state dict in their files."""

_PARALLEL = "module."
"""What DataParallel puts before each name."""


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Reads all tensors of a file onto the CPU, with the names and shapes that they have there.

    Removes what training scripts wrap around a state dict: the rest of their checkpoint, and
    DataParallel's `module.` before each name. Raises WeightsError if the file is missing, damaged
    or of another format, and if it is a pickle that holds more than tensors: nothing in a file is
    ever executed.
    """
    return dict(read_file(path).tensors)


def read_file(path: str | os.PathLike[str]) -> WeightsFile:
    """Reads a file of weights as `read_weights` does, with what its container says besides.

    The tensors of a TensorFlow checkpoint are read when they are asked for.
    """
    path = Path(path)
    prefix = tensorflow_prefix(path)
    if prefix is not None:
        index = Path(f"{prefix}{TENSORFLOW_SUFFIX}")
        return WeightsFile(index, "TensorFlow", _BundleTensors(TensorBundle(prefix)))
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise WeightsError(f"{path} {problem}; name a file of weights: {_FORMATS}")
    if path.suffix not in READERS:
        raise WeightsError(
            f"{path} must have a suffix that says its format, got {path.suffix!r}; {_FORMATS}"
        )
    return READERS[path.suffix](path)


class _BundleTensors(Mapping[str, torch.Tensor]):
    """The tensors of a TensorFlow checkpoint, each read when it is asked for."""

    def __init__(self, bundle: TensorBundle) -> None:
        self._bundle = bundle
        self._names = dict.fromkeys(bundle.names)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        return torch.from_numpy(self._bundle.read(name))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


_FORMATS = (
    f"weights come as {SAFETENSORS_SUFFIX}, as PyTorch's {', '.join(TORCH_SUFFIXES)}, as Caffe's "
    f"{CAFFE_SUFFIXES[0]}, as Caffe2's {PICKLE_SUFFIX}, or as a TensorFlow checkpoint named by its "
    "prefix (model.ckpt beside model.ckpt.index)"
)


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes a model's state dict as .safetensors. `path` never holds half a file.

    Raises WeightsError for another suffix, and StorageError if the file cannot be written.
    """
    path = Path(path)
    if path.suffix != SAFETENSORS_SUFFIX:
        raise WeightsError(
            f"weights are written as {SAFETENSORS_SUFFIX}, got {path.name!r}; choose "
            f"{path.with_suffix(SAFETENSORS_SUFFIX).name!r}"
        )
    state = {
        # safetensors refuses tensors that share memory, such as tied weights
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
    }
    with Storage(path.parent).atomic_file(path.name) as file:
        file.write(safetensors.torch.save(state, metadata={"format": "pt", "writer": _WRITER}))


def tensorflow_prefix(path: Path) -> str | None:
    if path.suffix == TENSORFLOW_SUFFIX:
        return str(path.with_suffix(""))
    if not path.is_file() and Path(f"{path}{TENSORFLOW_SUFFIX}").exists():
        return str(path)
    match = re.fullmatch(r"(.+)\.(meta|data-\d{5}-of-\d{5})", str(path))
    if match and Path(f"{match[1]}{TENSORFLOW_SUFFIX}").exists():
        return match[1]
    return None


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safetensors.safe_open(path, "pt") as file:
            is_own = (file.metadata() or {}).get("writer") == _WRITER
        tensors = safetensors.torch.load_file(path)
        return WeightsFile(path, "safetensors", tensors, is_own=is_own)
    except OSError as error:
        raise cannot_read(path, error) from error
    except Exception as error:
        # A header can claim anything: types that torch lacks, or shapes that overflow.
        raise WeightsError(
            f"{path} is damaged or not {SAFETENSORS_SUFFIX}: {_one_line(error)}; copy or download "
            "it again"
        ) from error


def _read_torch(path: Path) -> WeightsFile:
    _check_zip(path)
    try:
        if zipfile.is_zipfile(path):
            content = load_zip(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise cannot_read(path, error) from error
    except Exception as error:
        # Unpickling bytes that others wrote can raise any exception.
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
            raise WeightsError(
                f"{path} must hold only tensors and plain containers, got more, or is damaged "
                f"({_one_line(error)}); a pickle can run any code when it is loaded, so it is "
                "refused. If you trust whoever made it, convert it in a place where that code may "
                "run: safetensors.torch.save_file(state_dict, 'x.safetensors'), with state_dict "
                "from torch.load(path, weights_only=False)"
            ) from error
        raise WeightsError(
            f"{path} is damaged or not PyTorch's: {_one_line(error)}; copy or download it again"
        ) from error
    return _find_state_dict(content, path)


def _check_zip(path: Path) -> None:
    """Raises WeightsError if a checksum in a zip is wrong: torch writes them but never checks them.

    Files from before PyTorch 1.6 are not zips and have no checksums.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        damaged = check_zip(path)
    except OSError as error:
        raise cannot_read(path, error) from error
    except Exception as error:
        # On damaged bytes, zipfile passes on errors of zlib, of struct and of its own assumptions.
        raise WeightsError(
            f"{path} is damaged: {_one_line(error)}; copy or download it again"
        ) from error
    if damaged is not None:
        raise WeightsError(
            f"{path} is damaged: the checksum of its part {damaged} is wrong; copy or download it "
            "again (or save it again, if torch.serialization.set_crc32_options(False) was used)"
        )


def _find_state_dict(content: Any, path: Path) -> WeightsFile:
    """Returns the state dict in the result of `torch.load`."""
    removed: list[str] = []
    details: dict[str, str] = {}
    is_own = isinstance(content, Mapping) and content.get("format") == CHECKPOINT_FORMAT
    order = _channel_order(content) if is_own else "interleaved"
    if isinstance(content, Mapping):
        keys = ("model",) if is_own else STATE_DICT_KEYS
        for key in keys:
            if isinstance(content.get(key), Mapping):
                details |= _plain_values(content)
                removed.append(key)
                content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} must hold a state dict (names -> tensors), got {type(content).__name__}; save "
            "model.state_dict()"
        )
    state = {
        name: value.detach()
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if not state:
        raise WeightsError(
            f"{path} must hold a state dict (names -> tensors), alone or under one of "
            f"{', '.join(STATE_DICT_KEYS)}; got no tensor but {listed(map(repr, content))}"
        )
    for name, value in state.items():
        if (oddness := odd_tensor(value)) is not None:
            raise WeightsError(
                f"{path}: tensor {name} must be dense and on the CPU, got {oddness}; save it as a "
                "plain tensor"
            )
    if all(name.startswith(_PARALLEL) for name in state):
        removed.append(_PARALLEL)
        state = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
    return WeightsFile(path, "PyTorch", state, tuple(removed), details, is_own, order)


def _channel_order(content: Mapping[Any, Any]) -> ChannelOrder:
    """Returns the order of channels that a checkpoint of ours was trained with."""
    try:
        stored = json.loads(content["config"])["clip"].get("channel_order")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "interleaved"  # `load_checkpoint` says what is wrong with such a checkpoint
    return "grouped" if stored == "grouped" else "interleaved"


def _plain_values(content: Mapping[Any, Any]) -> dict[str, str]:
    """Returns the texts and numbers beside a state dict, of one short line each."""
    values = {
        name: str(value)
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, str | int | float)
    }
    return {
        name: value for name, value in values.items() if len(value) <= 80 and name.isidentifier()
    }


def _one_line(error: Exception) -> str:
    """Returns the message of a library's error, without the lines of advice that follow."""
    text = str(error) or type(error).__name__
    match = re.search(r"WeightsUnpickler error: (.+)", text)
    return (match[1] if match else text).strip().splitlines()[0][:300]


def _read_caffe(path: Path) -> WeightsFile:
    values = {
        blob_name(layer.name, index): torch.from_numpy(value)
        for layer in read_caffemodel(path)
        for index, value in enumerate(layer.blobs)
    }
    return WeightsFile(path, "Caffe", values)


def _read_pickle(path: Path) -> WeightsFile:
    try:
        with path.open("rb") as file:
            is_torch = file.read(len(_TORCH_START)) == _TORCH_START
        if is_torch or zipfile.is_zipfile(path):
            return _read_torch(path)
    except OSError as error:
        raise cannot_read(path, error) from error
    arrays = {name: torch.from_numpy(value) for name, value in read_pickled_arrays(path).items()}
    return WeightsFile(path, "pickle of arrays", arrays)


_TORCH_START = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How torch.save's files of before PyTorch 1.6 begin: torch.serialization.MAGIC_NUMBER, pickled."""

READERS: dict[str, Callable[[Path], WeightsFile]] = {
    SAFETENSORS_SUFFIX: _read_safetensors,
    **dict.fromkeys(TORCH_SUFFIXES, _read_torch),
    **dict.fromkeys(CAFFE_SUFFIXES, _read_caffe),
    PICKLE_SUFFIX: _read_pickle,
}
"""What reads a file, by its suffix. A reader executes nothing that the file holds."""
