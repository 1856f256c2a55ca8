"""Finds the weights of RAFT: a file, or weights that torchvision offers by name."""

from __future__ import annotations

import importlib
import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowprep.errors import ConfigError, WeightsError
from flowprep.extras import extra_needed
from flowprep.flow.weight_files import keep

__all__ = ["find_weights", "offered_weights", "optical_flow", "read_state"]

_ENUMS = {"raft_large": "Raft_Large_Weights", "raft_small": "Raft_Small_Weights"}
_WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts store a state dict; torchvision's own takes `model`."""


def find_weights(model: str, weights: str) -> str:
    """Returns the ID of the weights (see `flowprep.flow.weight_files`), which are then kept.

    `weights` is a file, or torchvision's name of weights of the network `model`. These are read
    from PyTorch's folder of downloads (`TORCH_HOME`), or downloaded into it. Raises ConfigError for
    an unknown name or a file that is missing, and WeightsError for a download that fails.
    """
    path = Path(weights)
    is_name = re.fullmatch(r"[A-Z][A-Z0-9_]*", weights) is not None
    if is_name:
        offered = offered_weights(model)
        if weights in offered:
            return keep(_downloaded(weights, offered[weights]))
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        names = f"; torchvision's names are {', '.join(offered)}" if is_name else ""
        raise ConfigError(
            f"raft_weights must be a file of weights or torchvision's name of weights of {model}, "
            f"got {weights!r}, which {problem}{names}"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"raft_weights must be a file that can be read, got {weights!r} ({error.strerror}); "
            "change its rights, or name another"
        ) from error
    read_state(content, weights)
    return keep(content)


def offered_weights(model: str) -> dict[str, str]:
    """Returns the addresses of the weights that torchvision offers for a network, by name."""
    offered = getattr(optical_flow(), _ENUMS[model])
    return {name: offered[name].url for name in offered.__members__}


def optical_flow() -> Any:
    """Returns torchvision's module of flow networks; raises MissingExtraError or ConfigError."""
    try:
        with extra_needed("algorithm raft", "raft"):
            return importlib.import_module("torchvision.models.optical_flow")
    except RuntimeError as error:
        # The commonest: "operator torchvision::nms does not exist", where torch is another build
        # than the one for which torchvision was compiled.
        torch: Any = importlib.import_module("torch")
        raise ConfigError(
            f"algorithm raft needs a torchvision that fits PyTorch {torch.__version__}, and the "
            f"installed one does not ({error}); install both together from one index, as PyTorch's "
            "installation page says"
        ) from error


def read_state(content: bytes, source: str) -> dict[str, Any]:
    """Returns the tensors of a file by name. Nothing in a file is ever executed.

    Raises WeightsError, which names `source`, for what is no state dict of PyTorch's.
    """
    torch: Any = importlib.import_module("torch")
    try:
        _check_zip(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged bytes can raise any exception.
        if isinstance(error, pickle.UnpicklingError) or "pickle" in str(error):
            what = "must hold only tensors and plain containers, and holds more, or is damaged"
        else:
            what = f"is damaged or not PyTorch's ({str(error).strip().partition(chr(10))[0]})"
        raise WeightsError(
            f"{source} {what}; name a file that torch.save(model.state_dict(), ...) wrote"
        ) from error
    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise WeightsError(
            f"{source} must hold a state dict (names -> tensors), got {type(state).__name__}; save "
            "model.state_dict()"
        )
    # DataParallel puts this before each name.
    return {name.removeprefix("module."): value for name, value in state.items()}


def _check_zip(content: bytes) -> None:
    """Raises ValueError if a checksum in a zip is wrong. torch writes them, but never checks."""
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of its part {damaged} is wrong")


def _downloaded(name: str, url: str) -> bytes:
    hub: Any = importlib.import_module("torch.hub")
    file = Path(hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            # The file's name ends in the first digits of its SHA-256.
            prefix = file.stem.rpartition("-")[2]
            hub.download_url_to_file(url, str(file), hash_prefix=prefix, progress=False)
        return file.read_bytes()
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the weights {name} cannot be downloaded from {url} ({error}); download that file "
            f"where there is a network, and give it by --raft-weights FILE or put it into "
            f"{file.parent}"
        ) from error
