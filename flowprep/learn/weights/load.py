"""Loads weights that others trained, or we, into our networks; and writes ours for others.

    .safetensors             https://github.com/huggingface/safetensors
    .pt .pth .tar .bin       PyTorch's, of which only tensors and plain containers are believed
    PREFIX, PREFIX.index     a TensorFlow V2 checkpoint (`flowprep.learn.weights.tensorflow`)

`load_weights_into` compares the file's names and shapes with the model's, and knows what turns one
into the other: ImageNet's ResNets of torchvision into ours over flow (cross-modality), into those
of TSN and into 3D ones (inflation); pytorch-i3d's files and DeepMind's own into I3D. It either
takes all that the model needs, and says what became of each tensor, or leaves the model untouched.
"""

from __future__ import annotations

import copy
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from flowprep.errors import WeightsError
from flowprep.learn.models.base import ClipModel
from flowprep.learn.weights.inflate import cross_modality, inflate_conv
from flowprep.learn.weights.tensorflow import TensorBundle, read_checkpoint
from flowprep.storage import Storage

__all__ = [
    "LoadReport",
    "load_weights_into",
    "read_weights",
    "save_weights",
    "tensorflow_i3d_names",
]

TORCH_SUFFIXES = (".pt", ".pth", ".tar", ".bin")
SAFETENSORS_SUFFIX = ".safetensors"
TENSORFLOW_SUFFIX = ".index"

CHECKPOINT_FORMAT = "flowprep-checkpoint"
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
"""Where training scripts keep the state dict in what they save."""

FOREIGN_PREFIXES = ("", "model.", "base.", "model.base.")
"""What may come before a network's own names in a file: our MultiTask's and TSN's."""
OWN_PREFIXES = ("", "base.")
"""The same in the model that is loaded into."""

RGB_CHANNELS = 3

_COUNTER = "num_batches_tracked"
_NUM_BATCHES = 1000
"""What a batch norm counts whose averages come from a file without a count: many."""

_NEUTRAL = (
    (
        re.compile(r"(^|\.)num_batches_tracked$"),
        "a counter of training steps, which older and other files lack",
    ),
    (re.compile(r"\.non_local\."), "a non-local block, which begins as the identity"),
    (re.compile(r"(^|\.)segment_weight$"), "TSN's weighted consensus, which begins as the average"),
)
"""Tensors that a model does not need from a file where the file has none of their kind."""

_I3D_FIRST = "Conv3d_1a_7x7"
_I3D_UNITS = (_I3D_FIRST, "Conv3d_2b_1x1", "Conv3d_2c_3x3")
_I3D_MODULES = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
_I3D_BRANCHES = {
    "b0": "Branch_0/Conv3d_0a_1x1",
    "b1a": "Branch_1/Conv3d_0a_1x1",
    "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1",
    "b2b": "Branch_2/Conv3d_0b_3x3",
    "b3b": "Branch_3/Conv3d_0b_1x1",
}
_I3D_NORM = {
    "batch_norm/beta": "bn.bias",
    "batch_norm/moving_mean": "bn.running_mean",
    "batch_norm/moving_variance": "bn.running_var",
}


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of a file, and of each of the model that it was loaded into."""

    source: str
    """The path that was loaded."""
    loaded: tuple[str, ...]
    """Tensors of the model that the file has under the same name and in the same shape and type."""
    converted: Mapping[str, str]
    """Other tensors of the model that were filled -> from what, and how."""
    missing: Mapping[str, str]
    """Tensors of the model that were left as they were -> why; among them a new classifier."""
    unexpected: tuple[str, ...]
    """Tensors of the file that the model has no place for."""

    def summary(self) -> str:
        """Returns a few lines for people: counts, and the first names of each kind."""
        lines = [
            f"{self.source}: {len(self.loaded)} tensors taken as they are, {len(self.converted)} "
            f"converted, {len(self.missing)} of the model left as they were, "
            f"{len(self.unexpected)} of the file not used"
        ]
        kinds = (
            ("converted", [f"{name} {how}" for name, how in self.converted.items()]),
            ("left", [f"{name}: {why}" for name, why in self.missing.items()]),
            ("not used", list(self.unexpected)),
        )
        for kind, items in kinds:
            lines += [f"  {kind}: {item}" for item in items[:5]]
            if len(items) > 5:
                lines.append(f"  {kind}: and {len(items) - 5} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Offer:
    """What a file has for a tensor of the model."""

    source: tuple[str, ...]
    """Names in the file; none where the value follows from the format."""
    value: torch.Tensor
    how: tuple[str, ...] = ()
    """What was done to it."""


# --- Files ----------------------------------------------------------------------------------------


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Reads all tensors of a file, on the CPU, under the names and in the shapes they have there.

    What training scripts wrap around a state dict is taken off (the rest of their checkpoint, and
    `module.` of DataParallel before each name). Raises WeightsError where the file is missing,
    damaged or of another format, and where it is a pickle that holds more than tensors: nothing in
    a file is ever executed.
    """
    path = Path(path)
    prefix = _tensorflow_prefix(path)
    if prefix is not None:
        return {name: torch.from_numpy(value) for name, value in read_checkpoint(prefix).items()}
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise WeightsError(f"{path} {problem}; name a file of weights: {_FORMATS}")
    if path.suffix == SAFETENSORS_SUFFIX:
        return _read_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return _read_torch(path)
    raise WeightsError(
        f"{path} must have a suffix that says its format, got {path.suffix!r}; {_FORMATS}"
    )


_FORMATS = (
    f"weights come as {SAFETENSORS_SUFFIX}, as PyTorch's {', '.join(TORCH_SUFFIXES)}, or as a "
    "TensorFlow checkpoint named by its prefix (model.ckpt beside model.ckpt.index)"
)


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes a model's state dict as .safetensors; `path` is never half a file.

    Raises WeightsError for another suffix, StorageError where it cannot be written.
    """
    path = Path(path)
    if path.suffix != SAFETENSORS_SUFFIX:
        raise WeightsError(
            f"weights are written as {SAFETENSORS_SUFFIX}, got {path.name!r}; choose "
            f"{path.with_suffix(SAFETENSORS_SUFFIX).name!r}"
        )
    state = {
        # safetensors refuses tensors that share memory, as tied weights do
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
    }
    with Storage(path.parent).atomic_file(path.name) as file:
        file.write(safetensors.torch.save(state, metadata={"format": "pt"}))


def _tensorflow_prefix(path: Path) -> str | None:
    if path.suffix == TENSORFLOW_SUFFIX:
        return str(path.with_suffix(""))
    if not path.is_file() and Path(f"{path}{TENSORFLOW_SUFFIX}").exists():
        return str(path)
    match = re.fullmatch(r"(.+)\.(meta|data-\d{5}-of-\d{5})", str(path))
    if match and Path(f"{match[1]}{TENSORFLOW_SUFFIX}").exists():
        return match[1]
    return None


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error
    except Exception as error:
        # A header can claim anything: types that torch lacks, shapes that overflow.
        raise WeightsError(
            f"{path} is damaged or not {SAFETENSORS_SUFFIX}: {_one_line(error)}; copy or download "
            "it anew"
        ) from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    _check_zip(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error
    except Exception as error:
        # Unpickling foreign bytes can fail in any way at all.
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
            raise WeightsError(
                f"{path} must hold only tensors and plain containers, got more, or is damaged "
                f"({_one_line(error)}); a pickle can run any code when it is loaded, so it is "
                "refused. If you trust whoever made it, convert it in a place where that code may "
                "run: safetensors.torch.save_file(state_dict, 'x.safetensors'), with state_dict "
                "from torch.load(path, weights_only=False)"
            ) from error
        raise WeightsError(
            f"{path} is damaged or not PyTorch's: {_one_line(error)}; copy or download it anew"
        ) from error
    return _find_state_dict(content, path)


def _check_zip(path: Path) -> None:
    """Raises WeightsError where a checksum in a zip is wrong: torch writes them, but never looks.

    Files from before PyTorch 1.6 are no zips and have none.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error
    except Exception as error:
        # zipfile lets through what zlib, struct and its own assumptions raise on damaged bytes.
        raise WeightsError(
            f"{path} is damaged: {_one_line(error)}; copy or download it anew"
        ) from error
    if damaged is not None:
        raise WeightsError(
            f"{path} is damaged: the checksum of its part {damaged} is wrong; copy or download it "
            "anew (or save it anew, if torch.serialization.set_crc32_options(False) was used)"
        )


def _find_state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """Returns the state dict in what `torch.load` gave."""
    if isinstance(content, Mapping):
        keys = ("model",) if content.get("format") == CHECKPOINT_FORMAT else STATE_DICT_KEYS
        for key in keys:
            if isinstance(content.get(key), Mapping):
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
            f"{', '.join(STATE_DICT_KEYS)}; got no tensor but {_list(map(repr, content))}"
        )
    for name, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise WeightsError(
                f"{path}: tensor {name} must be dense and on the CPU, got layout {value.layout}, "
                f"type {value.dtype} on {value.device}; save it as a plain tensor"
            )
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state


# --- Into a model ---------------------------------------------------------------------------------


def load_weights_into(model: ClipModel, path: str | os.PathLike[str]) -> LoadReport:
    """Fills a model with a file's weights, and reports what became of every tensor.

    Taken are: equal names and shapes; a 2D network into TSN's base or a 3D network (kernels
    inflated); a first convolution over RGB into one over other channels (cross-modality); the
    variables of kinetics-i3d's TensorFlow checkpoints into I3D. A classifier that the file lacks or
    has for other classes stays as it was initialised.

    Raises WeightsError, and leaves the model as it was, where anything else that the model needs is
    missing or has another shape, and where `read_weights` does.
    """
    path = Path(path)
    targets: dict[str, torch.Tensor] = model.state_dict()
    prefix = _tensorflow_prefix(path)
    if prefix is not None:
        offers, unexpected = _offer_tensorflow(TensorBundle(prefix), model)
    else:
        offers, unexpected = _offer_state_dict(read_weights(path), targets)

    classifier = _classifier_names(model)
    input_convs = _input_conv_names(model)
    filled: dict[str, _Offer] = {}
    misfits: dict[str, str] = {}
    for name, offer in offers.items():
        try:
            filled[name] = _fit(offer, targets[name], is_input=name in input_convs)
        except _MisfitError as error:
            misfits[name] = str(error)

    missing: dict[str, str] = {}
    if not classifier <= filled.keys():
        reason = next(
            (f"a new classifier: {misfits[n]}" for n in sorted(classifier & misfits.keys())),
            "a new classifier: the file has none, or not all of it",
        )
        for name in sorted(classifier):
            missing[name] = reason
            misfits.pop(name, None)
            filled.pop(name, None)
            unexpected += offers[name].source if name in offers else ()
    _check_misfits(path, misfits, len(targets))
    absent = [name for name in targets if name not in filled and name not in missing]
    for pattern, reason in _NEUTRAL:
        if not any(pattern.search(name) for name in offers):
            missing |= {name: reason for name in absent if pattern.search(name)}
    _check_absent(path, [name for name in absent if name not in missing], unexpected, targets)

    with torch.no_grad():
        for name, offer in filled.items():
            targets[name].copy_(offer.value)
        for name in missing:
            # A norm that counts none takes its moving averages for those of no batch at all.
            if name.endswith(_COUNTER) and name.replace(_COUNTER, "running_mean") in filled:
                targets[name].fill_(_NUM_BATCHES)
    told = {name: _tell(name, offer) for name, offer in filled.items()}
    return LoadReport(
        str(path),
        tuple(name for name, how in told.items() if not how),
        {name: how for name, how in told.items() if how},
        missing,
        tuple(unexpected),
    )


def _check_misfits(path: Path, misfits: Mapping[str, str], num_targets: int) -> None:
    if misfits:
        raise WeightsError(
            f"{path}: {len(misfits)} of the model's {num_targets} tensors are others in the file: "
            f"{_list(f'{name} ({why})' for name, why in misfits.items())}; load weights of the "
            "same architecture, or make the model with the same options"
        )


def _check_absent(
    path: Path, absent: list[str], unexpected: Iterable[str], targets: Mapping[str, Any]
) -> None:
    if absent:
        raise WeightsError(
            f"{path}: {len(absent)} of the model's {len(targets)} tensors are missing: "
            f"{_list(absent)}; the file has besides: {_list(unexpected)}. Load weights of the same "
            "architecture, or make the model with the same options"
        )


class _MisfitError(Exception):
    """What keeps a tensor of a file from being one of the model."""


def _fit(offer: _Offer, target: torch.Tensor, *, is_input: bool) -> _Offer:
    """Returns the offer as the target has to be; raises _MisfitError where no way is known."""
    value, how = offer.value, list(offer.how)
    if value.dtype != target.dtype:
        if value.is_floating_point() != target.is_floating_point() or value.is_complex():
            raise _MisfitError(f"{value.dtype} in the file, {target.dtype} in the model")
        how.append(f"{value.dtype} to {target.dtype}")
    before = tuple(value.shape)
    window = value.shape[2:]
    is_kernel = value.dim() in (4, 5) and target.dim() in (value.dim(), 5)
    if is_kernel and value.shape[0] == target.shape[0] and window == target.shape[-len(window) :]:
        if is_input and value.shape[1] == RGB_CHANNELS != target.shape[1]:
            how.append(f"mean over RGB, repeated over {target.shape[1]} channels (cross-modality)")
            value = cross_modality(value, target.shape[1])
        if value.dim() < target.dim() and value.shape[1] == target.shape[1]:
            how.append(f"inflated over {target.shape[2]} frames")
            value = inflate_conv(value, target.shape[2])
    if value.shape != target.shape:
        raise _MisfitError(f"shape {before} in the file, {tuple(target.shape)} in the model")
    return _Offer(offer.source, value, tuple(how))


def _offer_state_dict(
    state: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]
) -> tuple[dict[str, _Offer], tuple[str, ...]]:
    """Pairs names by the prefixes under which the most agree; returns the rest of the file too."""
    pairs = max(
        (
            {own + name.removeprefix(foreign): name for name in state if name.startswith(foreign)}
            for foreign in FOREIGN_PREFIXES
            for own in OWN_PREFIXES
        ),
        key=lambda names: len(names.keys() & targets.keys()),
    )
    offers = {
        ours: _Offer((theirs,), state[theirs]) for ours, theirs in pairs.items() if ours in targets
    }
    used = {pairs[ours] for ours in offers}
    return offers, tuple(name for name in state if name not in used)


def _classifier_names(model: ClipModel) -> frozenset[str]:
    """Returns the names of what `replace_classifier` replaces, in the model as it is."""
    before = dict(_named_tensors(model))
    # A copy of the modules that shares the tensors: whatever is another tensor then, was replaced.
    probe = copy.deepcopy(model, {id(tensor): tensor for tensor in before.values()})
    with torch.random.fork_rng(devices=[]):
        probe.replace_classifier(1)
    after = dict(_named_tensors(probe))
    return frozenset(name for name, tensor in before.items() if after.get(name) is not tensor)


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _input_conv_names(model: ClipModel) -> frozenset[str]:
    """Returns the names of the weights that see the clip: of each input, the first convolution
    over so many channels."""
    left = [one.num_channels for one in model.inputs]
    found = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.in_channels in left:
            left.remove(module.in_channels)
            found.add(f"{name}.weight")
    return frozenset(found)


def _tell(name: str, offer: _Offer) -> str:
    """Returns what was done to a tensor, empty where it was taken as it is."""
    return ", ".join([*(f"from {source}" for source in offer.source if source != name), *offer.how])


def _list(names: Iterable[str], most: int = 5) -> str:
    """Lists the first few of many."""
    items = list(names)
    if not items:
        return "nothing"
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


def _one_line(error: Exception) -> str:
    """Returns what an error of a library says, without the advice of many lines that follows."""
    text = str(error) or type(error).__name__
    match = re.search(r"WeightsUnpickler error: (.+)", text)
    return (match[1] if match else text).strip().splitlines()[0][:300]


# --- kinetics-i3d's names -------------------------------------------------------------------------


def tensorflow_i3d_names(scope: str = "") -> dict[str, str]:
    """Returns the 230 variables of DeepMind's I3D checkpoints -> our names (pytorch-i3d's).

    `scope` comes before each: `RGB/inception_i3d/`, `Flow/inception_i3d/`, or nothing, as in the
    checkpoint of 600 classes. The names are those of google-deepmind/kinetics-i3d's i3d.py under
    Sonnet 1's names of modules (`conv_3d` with w and b, `batch_norm` with beta, moving_mean and
    moving_variance, but no gamma), and those in the index files beside it, with the shapes of ours
    but for the order of axes. Mixed_5b's Branch_2 has its second convolution named 0a_3x3,
    where all others' is 0b_3x3.
    """
    units = {unit: unit for unit in _I3D_UNITS}
    for module in _I3D_MODULES:
        for ours, theirs in _I3D_BRANCHES.items():
            units[f"Mixed_{module}/{theirs}"] = f"Mixed_{module}.{ours}"
    units["Mixed_5b/Branch_2/Conv3d_0a_3x3"] = units.pop("Mixed_5b/Branch_2/Conv3d_0b_3x3")
    names: dict[str, str] = {}
    for theirs, ours in units.items():
        names[f"{scope}{theirs}/conv_3d/w"] = f"{ours}.conv3d.weight"
        for variable, tensor in _I3D_NORM.items():
            names[f"{scope}{theirs}/{variable}"] = f"{ours}.{tensor}"
    names[f"{scope}Logits/Conv3d_0c_1x1/conv_3d/w"] = "logits.conv3d.weight"
    names[f"{scope}Logits/Conv3d_0c_1x1/conv_3d/b"] = "logits.conv3d.bias"
    return names


def _offer_tensorflow(
    bundle: TensorBundle, model: ClipModel
) -> tuple[dict[str, _Offer], tuple[str, ...]]:
    """Turns I3D's variables into our tensors; reads no others (an optimizer's), but names them."""
    source = f"{bundle.prefix}{TENSORFLOW_SUFFIX}"
    if f"{_I3D_FIRST}.conv3d.weight" not in model.state_dict():
        raise WeightsError(
            f"{source}: TensorFlow checkpoints are known for I3D alone, the model is "
            f"{type(model).__name__}; load a file of PyTorch's or safetensors"
        )
    scope = _i3d_scope(bundle, model.inputs[0].num_channels, source)
    offers: dict[str, _Offer] = {}
    names = tensorflow_i3d_names(scope)
    available = set(bundle.names)
    used = [name for name in names if name in available]
    for name in used:
        value = torch.from_numpy(bundle.read(name))
        if value.dim() == 5 and name.endswith("/w"):
            # (T, H, W, in, out) -> (out, in, T, H, W)
            offer = _Offer((name,), value.permute(4, 3, 0, 1, 2), ("transposed",))
        else:
            offer = _Offer((name,), _as_vector(value))
        offers[names[name]] = offer
    for name, ours in names.items():
        if not ours.endswith(".bn.bias") or ours not in offers:
            continue
        scale = ours.removesuffix("bias") + "weight"
        gamma = name.removesuffix("beta") + "gamma"
        if gamma in available:  # not in DeepMind's, but Sonnet can
            used.append(gamma)
            offers[scale] = _Offer((gamma,), _as_vector(torch.from_numpy(bundle.read(gamma))))
        else:
            ones = torch.ones_like(offers[ours].value)
            offers[scale] = _Offer((), ones, ("1: the file's batch norms have no scale",))
    taken = set(used)
    return offers, tuple(name for name in bundle.names if name not in taken)


def _as_vector(value: torch.Tensor) -> torch.Tensor:
    """Returns (C,) for (1, 1, 1, 1, C), in which the checkpoint of 600 classes has its norms."""
    return value.flatten() if max(value.shape, default=1) == value.numel() else value


def _i3d_scope(bundle: TensorBundle, in_channels: int, source: str) -> str:
    """Returns what comes before I3D's names; of several networks, the one with these channels."""
    first = f"{_I3D_FIRST}/conv_3d/w"
    scopes = [name.removesuffix(first) for name in bundle.names if name.endswith(first)]
    if not scopes:
        raise WeightsError(
            f"{source}: no variable is named ...{first}, as in kinetics-i3d's checkpoints, which "
            f"are the ones known; it has {_list(bundle.names)}. Load such a checkpoint, or a file "
            "of PyTorch's"
        )
    if len(scopes) > 1:
        fitting = [s for s in scopes if bundle.shape(s + first)[3:4] == (in_channels,)]
        if len(fitting) != 1:
            raise WeightsError(
                f"{source}: {len(fitting)} of its networks ({_list(scopes)}) have "
                f"{in_channels} channels as the model has; save the wanted one alone"
            )
        return fitting[0]
    return scopes[0]
