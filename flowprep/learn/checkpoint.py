"""A checkpoint: the weights, and everything that is needed to understand them.

    format, format_version   "flowprep-checkpoint", 1
    config                   JSON: the whole TrainConfig
    tasks                    JSON: name, classes and flow extraction of each data set
    versions                 JSON: library versions of the run that wrote it
    step                     number of training steps that produced these weights
    model                    the state dict of `build_model`'s network
    training                 what a resumed run needs: optimizer, scaler, best result; or None

`training` is None in an exported checkpoint. The file can be read with
`torch.load(weights_only=True)`: it holds only tensors, numbers and text, so no code can hide in it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from flowprep._version import __version__
from flowprep.config import VERSION_1_VALUES, ExtractConfig
from flowprep.dataset.read import FlowDataset
from flowprep.differences import (
    Differences,
    find_differences,
    find_extraction_differences,
    flatten,
    mismatch,
)
from flowprep.errors import ConfigError, FlowprepError, WeightsError
from flowprep.learn.clip_inputs import RecipeName, StreamName, sees_flow
from flowprep.learn.clips.targets import class_names_of
from flowprep.learn.config import TrainConfig
from flowprep.learn.create import create_model
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.networks import find_network
from flowprep.learn.recipe_check import check_recipe
from flowprep.learn.train_state import TrainState
from flowprep.learn.training_specs import LossName
from flowprep.learn.weights.files import CHECKPOINT_FORMAT
from flowprep.learn.weights.offers import listed
from flowprep.learn.weights.reading import check_zip, load_zip, odd_tensor
from flowprep.storage import Storage

__all__ = [
    "Checkpoint",
    "Task",
    "average_note",
    "build_model",
    "check_data",
    "describe_task",
    "library_versions",
    "load_checkpoint",
    "load_model",
    "restore_model",
    "save_checkpoint",
]

FORMAT_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """What a network learned from one data set: its classes, and how its flow was extracted."""

    name: str
    """The name of the data set: the last part of its location."""
    class_names: tuple[str, ...]
    """Ordered by label, which is also the logit's index. Numbers if the data set has no names."""
    extract: dict[str, Any]
    """`ExtractConfig.to_dict()` of the data set."""
    implementation: str
    """The flow estimator's implementation (`opencv-5`)."""
    labels: str | None = None
    """The name under which the labels were read. None, as in all of version 1, means the data set's
    own labels."""
    loss: LossName = "cross-entropy"
    """`cross-entropy`, as in all of version 1: one class a video. `bce`: any number of classes."""
    data: str | None = None
    """The name of the data set, if `name` is that of one of several label sets of its videos."""
    recipe: RecipeName | None = None
    """The recipe by which others trained the weights. None for a network that flowprep trained."""

    @property
    def is_multilabel(self) -> bool:
        """Whether a video may have several of these classes."""
        return self.loss == "bce"

    @property
    def config(self) -> ExtractConfig:
        """How the data set was extracted; raises WeightsError where that is not understood."""
        try:
            return ExtractConfig.from_dict(self.extract)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(
                f"the checkpoint does not say how {self.name} was extracted: {_told(error)}; take "
                "another checkpoint"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Returns the task as JSON values; `from_dict` is its inverse."""
        values = dataclasses.asdict(self) | {"class_names": list(self.class_names)}
        # Version 1 has none of these; a network of one label a video is stored as there.
        for name, usual in (("loss", "cross-entropy"), ("data", None), ("recipe", None)):
            if values[name] == usual:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """Rebuilds a stored task; raises ValueError or TypeError where it is none."""
        return msgspec.convert(dataclasses.asdict(cls(**values)), cls)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file, in memory; tensors are on the CPU after loading."""

    config: TrainConfig
    tasks: tuple[Task, ...]
    step: int
    """Number of training steps that produced these weights."""
    model: dict[str, torch.Tensor]
    """State dict of the network that `build_model` makes. With `ema_decay`, it is the average over
    the steps."""
    training: TrainState | None = None
    """What a resumed training needs. None for a checkpoint that holds only weights."""
    versions: dict[str, str] = field(default_factory=dict)


def describe_task(dataset: FlowDataset, loss: LossName = "cross-entropy") -> Task:
    """Returns what a checkpoint must record about a data set that it was trained on."""
    name = os.path.basename(dataset.location.rstrip("/")) or dataset.location
    return Task(
        name,
        class_names_of(dataset),
        dataset.config.to_dict(),
        dataset.header.implementation,
        dataset.labels_name,
        loss,
    )


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically: at any moment `path` is the old file or the whole new one.

    Raises StorageError if the file cannot be written.
    """
    path = Path(path)
    content = {
        "format": CHECKPOINT_FORMAT,
        "format_version": FORMAT_VERSION,
        "config": json.dumps(checkpoint.config.to_dict()),
        "tasks": json.dumps([task.to_dict() for task in checkpoint.tasks]),
        "versions": json.dumps(checkpoint.versions or library_versions()),
        "step": checkpoint.step,
        "model": checkpoint.model,
        "training": None if checkpoint.training is None else checkpoint.training.to_dict(),
    }
    with Storage(path.parent).atomic_file(path.name) as file:
        writer: Any = _Writer(file)
        try:
            torch.save(content, writer)
        except Exception as error:
            # For a full disk, torch itself says "unexpected pos 64 vs 0".
            raise writer.error or error from error


class _Writer:
    """The file that torch writes a checkpoint to. It remembers the first error of the file."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        return self._kept(lambda: int(self._file.write(data)))

    def flush(self) -> None:
        self._kept(self._file.flush)

    def _kept(self, do: Callable[[], T]) -> T:
        try:
            return do()
        except OSError as error:
            self.error = self.error or error
            raise


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint. Its tensors are on the CPU.

    Raises WeightsError if the file is missing, damaged (a checksum covers every byte), not a
    flowprep checkpoint, or written in a newer format. Nothing in the file is ever executed.
    """
    path = Path(path)
    try:
        damaged = check_zip(path)
    except OSError as error:
        raise WeightsError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error
    except Exception as error:
        # A damaged zip directory fails in many ways: it may claim encryption, compression, ...
        raise WeightsError(
            f"{path} is not a checkpoint of flowprep, or it is damaged or cut off "
            f"({_first_line(error)}); give last.pt or best.pt of a folder that `flowprep train` "
            "wrote"
        ) from error
    if damaged is not None:
        raise WeightsError(
            f"{path} is damaged: the checksum of {damaged} is wrong; take another checkpoint"
        )
    try:
        content = load_zip(path)
    except Exception as error:
        # Unpickling bytes that others wrote can raise any exception.
        raise WeightsError(
            f"{path} is not a checkpoint of flowprep: {_first_line(error)}; give last.pt or "
            "best.pt of a folder that `flowprep train` wrote"
        ) from error
    # What looks like a text or a number may be a tensor, which compares with neither.
    named = content.get("format") if isinstance(content, dict) else None
    if type(named) is not str or named != CHECKPOINT_FORMAT:
        raise WeightsError(
            f"{path} is a PyTorch file but not a checkpoint of flowprep; weights of other projects "
            "are taken by `flowprep train --weights`"
        )
    version = content.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise WeightsError(
            f"{path} is a checkpoint of format version {version}, this flowprep reads version "
            f"{FORMAT_VERSION}; install a newer flowprep"
        )
    try:
        return _checked(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{path} is not a whole checkpoint: {_told(error)}; take another checkpoint"
        ) from error


def _checked(content: dict[str, Any]) -> Checkpoint:
    """Returns the checkpoint that a file holds; raises ValueError and the like for any other."""
    step, training = content["step"], content["training"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step must be an integer >= 0, got {step!r}")
    for name, value in content["model"].items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise TypeError(f"model must hold tensors by name, got {name!r}")
        if (oddness := odd_tensor(value)) is not None:
            raise ValueError(f"tensor {name} must be dense and on the CPU, got {oddness}")
    checkpoint = Checkpoint(
        TrainConfig.from_dict(json.loads(content["config"])),
        tuple(Task.from_dict(task) for task in json.loads(content["tasks"])),
        step,
        dict(content["model"]),
        None if training is None else TrainState.from_dict(training, step),
        msgspec.convert(json.loads(content["versions"]), dict[str, str]),
    )
    ema_decay = checkpoint.config.optimization.ema_decay
    if training is not None and (training.get("raw") is None) != (ema_decay is None):
        raise ValueError(f"training must have raw weights for an average alone, at {ema_decay}")
    if not checkpoint.tasks or not all(task.class_names for task in checkpoint.tasks):
        raise ValueError("tasks must be one or more, each with its classes")
    return checkpoint


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, FlowprepError) else repr(error)


def build_model(config: TrainConfig, num_classes: Sequence[int]) -> ClipModel | MultiTask:
    """Makes the network of a configuration, with one head for each number of classes.

    The initial weights are drawn with torch's global generator. `config.model.weights` is not read
    here: the code that starts a training loads it. Raises ConfigError for options that the model
    does not have.
    """
    spec, clip = config.model, config.clip
    joins = find_network(spec.model).sees == "segments"
    model = create_model(
        spec.model,
        stream=clip.stream,
        num_classes=num_classes[0],
        num_frames=clip.num_frames,
        frame_stride=clip.frame_stride,
        width=spec.width,
        dropout=spec.dropout,
        crop_px=clip.crop_px,
        num_segments=clip.num_segments if joins else None,
        motion=spec.motion,
        normalization=clip.normalization,
        **dataclasses.asdict(spec.options),
    )
    return model if len(num_classes) == 1 else MultiTask(model, num_classes)


def restore_model(checkpoint: Checkpoint) -> ClipModel | MultiTask:
    """Makes the checkpoint's network with its weights, on the CPU, in eval mode.

    Raises WeightsError if the weights do not fit the configuration that is stored with them.
    """
    counts = [len(task.class_names) for task in checkpoint.tasks]
    try:
        # Without memory: a configuration may ask for any amount, and weights have the file's size.
        with torch.device("meta"):
            described = build_model(checkpoint.config, counts)
        _check_model(described, checkpoint)
    except (ConfigError, RuntimeError, TypeError, OverflowError) as error:
        raise _not_its_own(checkpoint, error) from error
    model = build_model(checkpoint.config, counts)
    load_model(model, checkpoint)
    return model.eval()


def average_note(checkpoint: Checkpoint) -> list[str]:
    """Returns a note if the checkpoint's weights are an average, and not those of one step."""
    ema_decay = checkpoint.config.optimization.ema_decay
    if ema_decay is None:
        return []
    return [
        f"the weights of the checkpoint are their average over the training (--ema-decay "
        f"{ema_decay:g}); for those of step {checkpoint.step:,} alone, train without it"
    ]


def load_model(model: ClipModel | MultiTask, checkpoint: Checkpoint) -> None:
    """Gives the network of a checkpoint's configuration its weights.

    Raises WeightsError, and leaves the network as it is, where they are another's or no numbers.
    """
    _check_model(model, checkpoint)
    for name, value in checkpoint.model.items():
        if not torch.isfinite(value).all():
            raise WeightsError(
                f"the checkpoint's weights {name} are not all numbers; take another checkpoint"
            )
    model.load_state_dict(checkpoint.model)


def _check_model(model: ClipModel | MultiTask, checkpoint: Checkpoint) -> None:
    """Raises WeightsError where the checkpoint's weights have other names, shapes or types."""
    wanted, given = model.state_dict(), checkpoint.model
    differing = [name for name in wanted if name not in given] or [
        name
        for name, value in given.items()
        if name not in wanted
        or (value.shape, value.dtype) != (wanted[name].shape, wanted[name].dtype)
    ]
    if differing:
        raise _not_its_own(checkpoint, ValueError(f"{listed(differing)} do not fit"))


def _not_its_own(checkpoint: Checkpoint, error: Exception) -> WeightsError:
    return WeightsError(
        f"the checkpoint's weights are not those of its own {checkpoint.config.model.model}: "
        f"{_first_line(error)}; copy the checkpoint again, or train again"
    )


# The two columns of a difference.
_PLACES = ("in training", "here")
_MAX_SHOWN_CLASSES = 10


def check_data(
    task: Task,
    dataset: FlowDataset,
    *,
    stream: StreamName,
    force: bool = False,
    labels: bool = True,
) -> list[str]:
    """Checks that a data set matches a network's training data. Returns notes for the user.

    For the streams flow and both, these must match: frame rate, size, crop and shape of the pixels,
    algorithm with all parameters, step and bound. For rgb and rgb-difference: frame rate, size,
    crop and shape. The quantizer may differ, because networks get px, or levels made from px. A
    different implementation of the same algorithm only adds a note. For weights of others, all
    that their recipe says must match, also the quantizer. Raises ConfigMismatchError with both
    values of every difference, unless `force` is set. With `labels`, it also raises for other class
    names or another order of the class names, even with `force`.
    """
    if task.recipe is not None:
        notes = check_recipe(task.recipe, dataset, stream=stream, force=force)
    else:
        notes = _check_extraction(task, dataset, stream=stream, force=force)
    if labels and dataset.class_names and dataset.class_names != task.class_names:
        raise mismatch(
            f"{dataset.location} has other classes than the network",
            _class_differences(task.class_names, dataset.class_names),
            _PLACES,
            "Extract it with the class list of the training data, or give it labels with these "
            "classes by `flowprep label` and name them with --labels.",
            max_shown=_MAX_SHOWN_CLASSES,
        )
    return notes


def _check_extraction(
    task: Task, dataset: FlowDataset, *, stream: StreamName, force: bool
) -> list[str]:
    """Checks the extraction of a data set against that of a network's training data."""
    stored = {
        **{f"decode.{name}": value for name, value in VERSION_1_VALUES["DecodeSpec"].items()},
        **flatten(task.extract),
    }
    given = flatten(dataset.config.to_dict())
    differences = find_extraction_differences(stored, given, sees_flow=sees_flow(stream))
    if differences and not force:
        raise mismatch(
            f"{dataset.location} is not like the data that the network was trained on",
            differences,
            _PLACES,
            "Extract the videos as the training data were, or add --force to go on all the same.",
        )
    implementation = dataset.header.implementation
    if sees_flow(stream) and not differences and implementation != task.implementation:
        return [
            f"the flow of {dataset.location} was computed by {implementation}, that of the "
            f"training data by {task.implementation}: same algorithm, small differences"
        ]
    return []


def _class_differences(one: Sequence[str], other: Sequence[str]) -> Differences:
    """Returns the classes that differ; a class more or less shifts all others, and is one cause."""
    stored, given = _numbered(one), _numbered(other)
    longest = given if len(given) > len(stored) else stored
    each = find_differences(stored, given, list(longest))
    gone = [name for name in one if name not in other]
    new = [name for name in other if name not in one]
    if len(each) <= 2 + len(gone) + len(new):
        return each
    if [name for name in one if name in other] == [name for name in other if name in one]:
        return {"classes that only one has": (gone, new)}
    if not gone and not new:
        name, (first, second) = next(iter(each.items()))
        return {f"the order of {len(each)} classes, such as {name}": (first, second)}
    return each


def _numbered(class_names: Sequence[str]) -> dict[str, str]:
    return {f"class {label}": name for label, name in enumerate(class_names)}


def library_versions() -> dict[str, str]:
    """Returns the versions that a checkpoint's numbers may depend on."""
    return {"flowprep": __version__, "torch": torch.__version__}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
