"""What a file of weights is: ours, of a project that is known, or neither; and what takes it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from flowprep.errors import WeightsError
from flowprep.learn.checkpoint import Checkpoint, average_note, load_checkpoint
from flowprep.learn.clip_inputs import RecipeName, StreamName
from flowprep.learn.evaluate import checkpoint_file, checkpoint_notes
from flowprep.learn.networks import find_network
from flowprep.learn.recipes import RECIPES
from flowprep.learn.weights.files import CHECKPOINT_FORMAT, read_file
from flowprep.learn.weights.fits import Fit, make_for, try_networks
from flowprep.learn.weights.formats import format_of, nearest_format
from flowprep.learn.weights.load import LoadReport, check_match, make_report
from flowprep.learn.weights.offers import listed
from flowprep.learn.weights.reading import WeightsFile
from flowprep.printable import join_lines
from flowprep.words import format_count

__all__ = ["WeightsDescription", "describe_loading", "describe_weights"]

CLASS_LISTS: dict[int, str] = {
    51: "HMDB51",
    101: "UCF101",
    174: "Something-Something",
    359: "IG-Kinetics",
    400: "Kinetics-400",
    487: "Sports-1M",
    600: "Kinetics-600",
    700: "Kinetics-700",
    1000: "ImageNet",
}
"""Number of classes -> the data set that has as many: a hint, and no more."""


@dataclass(frozen=True)
class WeightsDescription:
    """What `describe_weights` found."""

    source: str
    """The path of the file; for a run's folder, that of the checkpoint in it."""
    container: str
    """What kind of file it is: `PyTorch`, `safetensors`, ..."""
    num_tensors: int
    kind: str
    """What it is, in a few words. Begins with `unknown` if that is not known."""
    is_known: bool
    """Whether it is ours, or of a format that is known, or fits a network by its names."""
    format_name: str | None
    """The name of its format; None for ours and for an unknown one."""
    fits: tuple[Fit, ...]
    """The networks whose every tensor it has."""
    recipes: tuple[RecipeName, ...]
    """The names of the published recipes that belong to it."""
    details: Mapping[str, str]
    """What the file says besides its tensors."""
    notes: tuple[str, ...]
    """What follows from its names, and what keeps it from fitting."""
    odd: tuple[str, ...]
    """What one would not expect in such a file."""

    @property
    def exit_code(self) -> int:
        """0 for a file that is known, else 1."""
        return 0 if self.is_known else 1

    def summary(self) -> str:
        """Returns a few lines for the user."""
        head = f"{self.source}: {self.container}, {format_count(self.num_tensors, 'tensor')}"
        rows = [("what it is", self.kind)]
        rows += [("fits", told_fit(fit)) for fit in self.fits]
        rows += [("recipe", f"--recipe {name}: {RECIPES[name].title}") for name in self.recipes]
        rows += [("says", f"{name}: {value}") for name, value in self.details.items()]
        rows += [("note", note) for note in self.notes]
        rows += [("odd", odd) for odd in self.odd]
        return join_lines([head, *(f"  {name:<12} {value}" for name, value in rows)])

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON values."""
        return {
            "source": self.source,
            "container": self.container,
            "num_tensors": self.num_tensors,
            "is_known": self.is_known,
            "kind": self.kind,
            "format": self.format_name,
            "fits": [
                {
                    "model": fit.network,
                    "stream": fit.stream,
                    "num_frames": fit.num_frames,
                    "num_classes": fit.num_classes,
                    "options": dict(fit.options),
                }
                for fit in self.fits
            ],
            "recipes": list(self.recipes),
            "details": dict(self.details),
            "notes": list(self.notes),
            "odd": list(self.odd),
        }


def told_fit(fit: Fit) -> str:
    """Returns how to ask for a network, and what it takes: `--model i3d --stream flow: ...`."""
    (first, *_) = fit.model.inputs
    noun = {"flow": "field", "rgb": "frame", "rgb-difference": "difference", "rgb-pair": "pair"}[
        first.stream
    ]
    asked = [f"--model {fit.network}", f"--stream {fit.stream}"]
    asked += [] if fit.num_frames is None else [f"--frames {fit.num_frames}"]
    for option, value in fit.options.items():
        name = option.replace("_", "-")
        switch = {True: f"--{name}", False: f"--no-{name}"}
        asked.append(switch[value] if isinstance(value, bool) else f"--{name} {value}")
    taken = f"{first.form}s of {format_count(first.num_frames, noun)}"
    if first.form == "volume":
        taken = f"volumes of {noun}s, as many as you like"
    if find_network(fit.network).sees == "segments":
        taken += " from each segment"
    return f"{' '.join(asked)}: {taken}; {_told_classes(fit.num_classes)}"


def _told_classes(num_classes: int | None) -> str:
    if num_classes is None:
        return "no classifier"
    likely = CLASS_LISTS.get(num_classes)
    same = "" if likely is None else f", as many as {likely}"
    return f"{format_count(num_classes, 'class').replace('classs', 'classes')}{same}"


def describe_weights(path: str | os.PathLike[str]) -> WeightsDescription:
    """Says what a file of weights is, and which network, recipe and classes fit it.

    `path` is a file, the prefix of a TensorFlow checkpoint, or a folder that a training wrote.
    Nothing in the file is executed, and its name plays no part. Raises WeightsError if it is
    missing, damaged, of no kind that is read, or if it holds more than tensors.
    """
    source = checkpoint_file(path)
    file = read_file(source)
    if file.details.get("format") == CHECKPOINT_FORMAT:
        checkpoint = load_checkpoint(source)
        notes = [*checkpoint_notes(path), *average_note(checkpoint)]
        return _describe_checkpoint(file, checkpoint, notes)
    return _describe_foreign(file)


def describe_loading(
    path: str | os.PathLike[str], model: str, stream: StreamName | None = None
) -> LoadReport:
    """Returns what would become of each tensor of a file in the network called `model`.

    Without `stream`, the stream is that of the file's first convolution. The number of classes is
    the file's. Raises WeightsError if the weights do not fit the network, as a training would, and
    ConfigError for a network or stream that does not exist.
    """
    source = checkpoint_file(path)
    made = make_for(read_file(source), model, stream)
    check_match(source, made.match, made.model)
    return make_report(source, made.match)


def _describe_checkpoint(
    file: WeightsFile, checkpoint: Checkpoint, notes: list[str]
) -> WeightsDescription:
    """Describes a checkpoint of flowprep, which knows its network, classes and flow."""
    config = checkpoint.config
    resumes = "a training can go on from it" if checkpoint.training else "weights alone"
    details = {
        "network": f"{config.model.model}, stream {config.clip.stream}",
        "step": f"{checkpoint.step:,}",
    }
    for task in checkpoint.tasks:
        flow = task.extract.get("flow", {})
        details[f"data set {task.name}"] = (
            f"{len(task.class_names)} classes ({listed(task.class_names, 3)}); flow "
            f"{flow.get('algorithm')} at most {flow.get('bound_px')} px, {task.implementation}"
        )
    details |= {f"version of {name}": version for name, version in checkpoint.versions.items()}
    return WeightsDescription(
        str(file.path),
        file.container,
        len(file.tensors),
        f"a checkpoint of flowprep ({resumes}): --checkpoint takes it as it is, --weights its "
        "network",
        True,
        None,
        (),
        (),
        details,
        tuple(notes),
        tuple(_odd_values(file)),
    )


def _describe_foreign(file: WeightsFile) -> WeightsDescription:
    found = format_of(file)
    tried = try_networks(file, () if found is None else found[1].networks)
    fits = tuple(fit for fit in tried if fit.is_exact)
    notes: list[str] = []
    odd: list[str] = []
    if found is not None:
        name, form = found
        kind = f"{form.description} ({form.project}; format {name})"
        notes += form.told_of(file.tensors)
        unknown = [tensor for tensor in file.tensors if form.find_rule(tensor) is None]
        if unknown:
            odd.append(f"names of no rule of {name}: {listed(unknown)}")
        if not fits:
            notes.append(_told_miss(tried))
    elif fits:
        kind = "weights with the names of flowprep's own networks"
    else:
        kind = "unknown: neither flowprep's nor of a project that flowprep knows"
        notes += [*_nearest(file), _told_miss(tried)]
    if fits and fits[0].match.unexpected:
        odd.append(f"{fits[0].network} has no place for {listed(fits[0].match.unexpected)}")
    odd += _odd_values(file)
    if file.removed:
        notes.append(f"the tensors are under {', '.join(file.removed)}")
    return WeightsDescription(
        str(file.path),
        file.container,
        len(file.tensors),
        kind,
        found is not None or bool(fits),
        None if found is None else found[0],
        fits,
        () if found is None else tuple(_fitting_recipes(found[1].recipes, fits)),
        file.details,
        tuple(notes),
        tuple(odd),
    )


def _fitting_recipes(names: Iterable[RecipeName], fits: Sequence[Fit]) -> Iterator[RecipeName]:
    """Yields the recipes that have a network and a stream that weights fit."""
    for name in names:
        recipe = RECIPES[name]
        if any(fit.network in recipe.networks and fit.stream in recipe.streams for fit in fits):
            yield name


def _nearest(file: WeightsFile) -> Iterator[str]:
    """Yields what is told of the format that knows the most names of an unknown file."""
    found = nearest_format(file.tensors)
    if found is None:
        yield f"no format knows any of its names: {listed(file.tensors)}"
        return
    name, form = found
    others = [tensor for tensor in file.tensors if form.find_rule(tensor) is None]
    lacking = [mark.pattern for mark in form.marks if not mark.is_in(file.tensors)]
    yield (
        f"the nearest format is {name} ({form.project}): it knows "
        f"{len(file.tensors) - len(others)} of {format_count(len(file.tensors), 'name')}, but not "
        f"{listed(others)}"
    )
    if lacking:
        names = (pattern.replace("\\.", ".").replace(".+", "...") for pattern in lacking)
        yield f"a file of {name} has besides: {listed(names)}"


def _told_miss(tried: Sequence[Fit]) -> str:
    """Returns what is told of the network that comes nearest to a file that fits none."""
    nearest = max(tried, key=lambda fit: fit.num_same)
    if not nearest.num_same:
        return (
            f"none of {len(tried)} networks has a tensor of the same name and shape; check that "
            "the file holds weights of a network for clips"
        )
    num_tensors = len(nearest.model.state_dict())
    return (
        f"no network fits; the nearest is {nearest.network}: {nearest.num_same} of its "
        f"{num_tensors} tensors are there, but not {listed(nearest.differing())}; "
        "make the model with other options, or take other weights"
    )


def _odd_values(file: WeightsFile) -> Iterator[str]:
    """Yields what is odd about the values and types of a file's tensors."""
    types: Counter[torch.dtype] = Counter()
    unreadable, broken = [], []
    for name in file.tensors:
        try:
            value = file.tensors[name]
        except WeightsError:
            unreadable.append(name)
            continue
        if value.is_floating_point():
            types[value.dtype] += 1
            if not torch.isfinite(value).all():
                broken.append(name)
    for dtype, count in types.items():
        if dtype != torch.float32:
            yield f"{format_count(count, 'tensor')} of type {str(dtype).removeprefix('torch.')}"
    if broken:
        yield f"values that are no finite numbers: {listed(broken)}"
    if unreadable:
        yield f"no numbers, or damaged: {listed(unreadable)}"
