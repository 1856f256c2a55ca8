"""Weights of others, ready to be tested: their network, recipe and classes.

    file, model -> foreign_network -> ForeignNetwork       what the file holds, and its recipe
    ForeignNetwork -> foreign_checkpoint -> Checkpoint     as if flowprep had trained it

Such a checkpoint is for `evaluate` and `Predictor`. Its task names the recipe, so that other data
is refused (`flowprep.learn.checkpoint.check_data`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

from flowprep.config import ExtractConfig
from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError, WeightsError
from flowprep.learn.checkpoint import Checkpoint, Task, build_model
from flowprep.learn.clip_inputs import RecipeName, StreamName
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, ViewSpec
from flowprep.learn.describe import describe_loading
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.networks import find_network, make_options
from flowprep.learn.recipes import (
    RECIPES,
    default_config,
    recipe_clip,
    recipe_options,
    stream_recipe,
)
from flowprep.learn.weights.files import CHECKPOINT_FORMAT, read_file
from flowprep.learn.weights.fits import Fit, find_fits, hinted_options
from flowprep.learn.weights.formats import format_of
from flowprep.learn.weights.load import load_weights_into
from flowprep.learn.weights.reading import WeightsFile

__all__ = [
    "ForeignNetwork",
    "checkpoint_for_dataset",
    "find_recipe",
    "foreign_checkpoint",
    "foreign_network",
]


@dataclass(frozen=True)
class ForeignNetwork:
    """What a file of weights holds for one of our networks."""

    file: str
    model: str
    fit: Fit
    recipe: RecipeName | None
    """The recipe by which the weights were trained. None if it is not known."""
    clip: ClipSpec
    """What the network sees of a clip."""
    notes: tuple[str, ...]
    """What the user must know: what was guessed."""

    @property
    def stream(self) -> StreamName:
        """What the weights see."""
        return self.fit.stream

    @property
    def views(self) -> ViewSpec | None:
        """The published test. None if the recipe is not known."""
        if self.recipe is None:
            return None
        return stream_recipe(self.recipe, self.stream).test


def find_recipe(
    file: str | os.PathLike[str], model: str, stream: StreamName
) -> tuple[RecipeName | None, list[str]]:
    """Returns the recipe that belongs to a file's weights, and a note on this guess.

    None if the file is of no format that is known, or of one without a recipe for this stream.
    """
    return _guessed(read_file(file), os.fspath(file), model, stream)


def _guessed(
    file: WeightsFile, path: str, model: str, stream: StreamName
) -> tuple[RecipeName | None, list[str]]:
    form = format_of(file)
    told = () if form is None else form[1].recipes
    names: list[RecipeName] = [
        name
        for name, recipe in RECIPES.items()
        if name in told and model in recipe.networks and stream in recipe.streams
    ]
    # The format names the most likely one first. Options that the file tells count more.
    network = find_network(model)
    clips = network.with_options(make_options(model, hinted_options(file, model)))

    def likely(name: RecipeName) -> tuple[bool, int]:
        options = recipe_options(name, stream, model)
        return network.with_options(options) != clips, told.index(name)

    names.sort(key=likely)
    if not names:
        return None, [
            f"no recipe is known for {path} as {model}, so nothing is compared with how the "
            "weights were trained; name one with --recipe"
        ]
    others = f" (not {' or '.join(names[1:])})" if names[1:] else ""
    return names[0], [
        f"{path} is taken for weights of recipe {names[0]}{others}; name another one with --recipe"
    ]


def foreign_network(
    path: str | os.PathLike[str],
    model: str,
    *,
    recipe: RecipeName | None = None,
    num_frames: int | None = None,
    mean_file: str | None = None,
) -> ForeignNetwork:
    """Finds what a file of weights holds for the network called `model`.

    The names of its tensors tell the recipe, unless `recipe` names one. `num_frames` is the length
    of a clip for a network over volumes; the default is the recipe's. `mean_file` is that of
    `ClipSpec`. Raises WeightsError if the
    file does not fit the network, and ConfigError for a recipe that does not.
    """
    path = os.fspath(path)
    file = read_file(path)
    if file.details.get("format") == CHECKPOINT_FORMAT:
        raise WeightsError(
            f"{path} is a checkpoint of flowprep, which knows its network; give it as --checkpoint"
        )
    fits = find_fits(file, (model,))
    if not fits:
        raise _misfit(path, model)
    fit = fits[0]
    own = make_options(model, fit.options)
    notes: list[str] = []
    if recipe is None:
        recipe, notes = _guessed(file, path, model, fit.stream)
    if recipe is None:
        clip = default_config(model, fit.stream, own).clip
    else:
        clip = recipe_clip(recipe, fit.stream, model, own)
    if num_frames is not None and fit.num_frames not in (None, num_frames):
        raise ConfigError(
            f"num_frames must be {fit.num_frames}, as {path} has it, got {num_frames}; leave it out"
        )
    if (length := num_frames or fit.num_frames) is not None:
        clip = dataclasses.replace(clip, num_frames=length)
    if mean_file is not None:
        clip = dataclasses.replace(clip, mean_file=mean_file)
    return ForeignNetwork(path, model, fit, recipe, clip, tuple(notes))


def checkpoint_for_dataset(
    network: ForeignNetwork, dataset: FlowDataset, class_names: Sequence[str] | None = None
) -> tuple[Checkpoint, list[str]]:
    """Returns weights of others as a checkpoint to test on a data set, and notes for the user.

    Without `class_names`, the classes are those of the data set, if there are as many. Raises
    ConfigError if there are not, and the errors of `foreign_checkpoint`.
    """
    notes = list(network.notes)
    count = network.fit.num_classes
    if class_names is None and dataset.class_names and count is not None:
        if len(dataset.class_names) != count:
            raise ConfigError(
                f"classes must be given, because {network.file} has {count:,} and "
                f"{dataset.location} has {len(dataset.class_names):,}; give a data set, or labels "
                "of it, with the classes of the weights"
            )
        class_names = dataset.class_names
        notes.append(
            f"the {count:,} classes of {network.file} are taken to be those of "
            f"{dataset.location}, in the same order; give --classes FILE to be sure"
        )
    return foreign_checkpoint(network, class_names, dataset.config), notes


def foreign_checkpoint(
    network: ForeignNetwork,
    class_names: Sequence[str] | None,
    extract: ExtractConfig | None = None,
) -> Checkpoint:
    """Returns weights of others as a checkpoint with one task.

    `class_names` are in the order of the classifier; None numbers the classes. `extract` is how the
    data under test was extracted. It is taken for weights whose recipe is not known, whose data
    nothing is compared with. Raises ConfigError for another number of classes than the file has,
    and WeightsError for weights without a classifier.
    """
    fit = network.fit
    if fit.num_classes is None:
        raise WeightsError(
            f"{network.file} has no classifier, so it gives no scores; take its features with "
            "`flowprep features`, or train a classifier with `flowprep train --weights`"
        )
    names = tuple(class_names or map(str, range(fit.num_classes)))
    if len(names) != fit.num_classes:
        raise ConfigError(
            f"classes must be {fit.num_classes:,}, as {network.file} has them, got {len(names):,}; "
            "give the class list that the weights were trained with"
        )
    if network.recipe is not None:
        extract = stream_recipe(network.recipe, network.stream).extract
    if extract is None:
        raise ConfigError(
            f"recipe must be given for {network.file}, because it says how videos are extracted; "
            f"one of {', '.join(RECIPES)}"
        )
    config = TrainConfig(
        ModelSpec(network.model, options=make_options(network.model, dict(fit.options))),
        network.clip,
    )
    model = build_model(config, [fit.num_classes])
    assert not isinstance(model, MultiTask)
    load_weights_into(model, network.file)
    task = Task(
        network.file, names, extract.to_dict(), extract.flow.algorithm, recipe=network.recipe
    )
    return Checkpoint(config, (task,), 0, dict(model.state_dict()))


def _misfit(path: str, model: str) -> WeightsError:
    """Returns the error that says why a file does not fit a network."""
    try:
        describe_loading(path, model)
    except WeightsError as error:
        return error
    return WeightsError(
        f"{path} can only begin a training of {model}, because it holds weights for other inputs; "
        f"ask `flowprep weights {path}` which network and stream it is for"
    )
