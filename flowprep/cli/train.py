"""`flowprep train`: from flow data sets to a network."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

import click

from flowprep.cli.config_file import config_option
from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    dataclass_options,
    given_values,
    labels_option,
    merged_options,
    options_named,
)
from flowprep.cli.output import echo_line, echo_note, echo_notes
from flowprep.extras import extra_needed
from flowprep.learn.clip_inputs import RecipeName
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions
from flowprep.learn.motion_spec import MotionSpec
from flowprep.learn.networks import NETWORKS, find_network, make_options
from flowprep.learn.recipes import RECIPES, default_config, training_config
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from flowprep.learn.trainings import TRAININGS

__all__ = ["train"]

_SPECS = {
    "model": ModelSpec,
    "clip": ClipSpec,
    "augment": AugmentSpec,
    "optimization": OptimizationSpec,
}

_NETWORK_OPTIONS = {name: network.options for name, network in NETWORKS.items()}


def _option_names() -> list[str]:
    """Returns the names of the options that only some networks have."""
    names = [item.name for kind in _NETWORK_OPTIONS.values() for item in dataclasses.fields(kind)]
    return list(dict.fromkeys(names))


def _varying_options() -> set[str]:
    """Returns the names of the options that a recipe sets."""
    chosen = [one.model.options for streams in TRAININGS.values() for one in streams.values()]
    return {
        item.name
        for options in chosen
        for item in dataclasses.fields(options)
        if getattr(options, item.name) != item.default
    }


@click.command(cls=GroupedCommand)
@click.argument("outs", nargs=-1, required=True, metavar="OUT...")
@click.option(
    "--run",
    metavar="FOLDER",
    cls=GroupedOption,
    group="Training",
    help="The folder for checkpoints and metrics. The default is runs/MODEL-STREAM.",
)
@click.option(
    "--recipe",
    type=ChoiceType(tuple(RECIPES)),
    cls=GroupedOption,
    group="Training",
    metavar="NAME",
    help=f"A published recipe: {', '.join(RECIPES)}. Other options override it. What the data has "
    "otherwise than the recipe is noted. Without a recipe, clips are as published for the model, "
    "and the schedule suits small data sets.",
)
@labels_option("Training", several=True)
@config_option("Training", 'model = "i3d"')
@dataclass_options(TrainConfig, "Training", skip=tuple(_SPECS))
@dataclass_options(
    ModelSpec,
    "Model",
    skip=("options", "motion"),
    metavars={"weights": "FILE", "model": "NAME"},
    choices={"model": NETWORKS},
)
@dataclass_options(
    MotionSpec,
    "Model",
    names={"motion_bound_px": "motion-bound"},
    metavars={"motion_bound_px": "PX"},
)
@merged_options(
    _NETWORK_OPTIONS,
    "Model",
    varying=_varying_options(),
    metavars={"non_local_blocks": "N|NAMES"},
)
@dataclass_options(
    ClipSpec,
    "Clips",
    names={
        "num_frames": "frames",
        "num_segments": "segments",
        "resize_short_px": "resize-short",
        "crop_px": "crop",
    },
    varying=("num_frames", "frame_stride", "num_segments", "subtract_mean_flow", "normalization"),
    metavars={"resize_short_px": "PX", "crop_px": "PX", "normalization": "NAME"},
)
@dataclass_options(
    AugmentSpec, "Variation of clips", names={"crop": "crop-place"}, varying=("crop", "scales")
)
@dataclass_options(
    OptimizationSpec,
    "Optimization",
    names={
        "num_epochs": "epochs",
        "num_steps": "steps",
        "clip_gradient_norm": "clip-gradient",
    },
    metavars={
        "class_weights": "inverse|FILE",
        "freeze": "trunk|N",
        "unfreeze_at": "SHARE",
    },
)
@dataclass_options(
    TrainOptions,
    "Running",
    names={
        "num_workers": "workers",
        "num_loaders": "loaders",
        "test_every_epochs": "test-every",
        "checkpoint_seconds": "checkpoint-every",
    },
    switches=("force",),
    metavars={
        "address": "HOST:PORT|auto",
        "test_every_epochs": "EPOCHS",
        "checkpoint_seconds": "SECONDS",
        "log_every": "STEPS",
    },
)
@click.pass_context
def train(
    ctx: click.Context,
    /,
    outs: tuple[str, ...],
    run: str | None,
    recipe: RecipeName | None,
    labels: tuple[str, ...] | None,
    **_: Any,
) -> int:
    """Train a network on the data set OUT. On several data sets, each gets its own classifier.

    Several label sets of a data set, such as --labels verb,noun, get a classifier each, over the
    same clips. Videos with several labels are trained on too; see --loss.

    To go on after a stop or a crash, run the same command again. It ends with the same weights as a
    training without the stop. For other options, give another --run. The checkpoint that was best
    on the test split is best.pt in the folder --run.

    \b
    flowprep train flow --recipe tsn --run runs/tsn-flow
    flowprep train flow --model i3d --stream rgb --frames 32 --precision bf16
    flowprep train ucf-flow hmdb-flow --workers 4
    flowprep train ucf-flow --labels split2 --run runs/ucf-split2
    flowprep train kitchen --labels verb,noun --run runs/kitchen
    torchrun --nproc-per-node 4 -m -- flowprep train flow --batch-size 256
    """
    from flowprep.dataset.read import open_dataset

    with extra_needed("`flowprep train`", "train"), options_named(ctx):
        from flowprep.learn.ray_train import train_on_ray
        from flowprep.learn.recipe_check import recipe_notes
        from flowprep.learn.train import train as train_here

        config = _config(ctx, recipe)
        names = [item.name for item in dataclasses.fields(TrainOptions)]
        options = TrainOptions(**given_values(ctx, names))
        run = run or f"runs/{config.model.model}-{config.clip.stream}"
        datasets = [open_dataset(out, labels=name) for out in outs for name in labels or (None,)]
        if recipe is not None and _is_main():
            # Several label sets of one data set are one extraction.
            echo_notes(recipe_notes(recipe, config.clip, config.model, datasets))
        try:
            train_so = train_here if options.num_workers is None else train_on_ray
            report = train_so(
                *(datasets, run, config, options),
                on_note=echo_note,
                on_interrupt=_on_interrupt,
            )
        except KeyboardInterrupt:
            _echo_end()
            return 1
    if _is_main():
        click.echo(report.summary())
    return report.exit_code


def _is_main() -> bool:
    """Whether this process writes the messages: torchrun starts the command several times."""
    return os.environ.get("RANK", "0") == "0"


def _say(words: str) -> None:
    # Writing to a closed terminal fails, but the training must still end in order.
    if _is_main():
        with contextlib.suppress(OSError):
            click.echo(err=True)
            echo_line(words, err=True)


def _echo_end() -> None:
    _say("Interrupted; the same command goes on where this one stopped.")


def _on_interrupt(count: int) -> None:
    """Answers a signal from another thread, as the main one may be in a long computation."""
    if count == 1:
        _say("Finishing this step; press Ctrl-C again to stop at once.")
        return
    _echo_end()
    os._exit(1)


def _config(ctx: click.Context, recipe: RecipeName | None) -> TrainConfig:
    """Returns the recipe, or the defaults for the model, changed by the user's options."""
    given = {
        name: given_values(ctx, [item.name for item in dataclasses.fields(kind)])
        for name, kind in _SPECS.items()
    }
    model, stream = given["model"].get("model"), given["clip"].get("stream")
    asked = given_values(ctx, _option_names())
    if recipe is not None:
        stream = stream or RECIPES[recipe].first_stream
        base = training_config(recipe, stream, model)
        name = model or base.model.model
        own = make_options(name, {**dataclasses.asdict(base.model.options), **asked})
        base = training_config(recipe, stream, name, own)
    else:
        name = model or ModelSpec().model
        own = make_options(name, asked)
        base = default_config(name, stream or next(iter(find_network(name).inputs)), own)
    given["model"]["options"] = own
    layer = given_values(ctx, [item.name for item in dataclasses.fields(MotionSpec)])
    given["model"]["motion"] = dataclasses.replace(base.model.motion, **layer)
    if "num_epochs" in given["optimization"]:
        # Otherwise the recipe's number of steps would override the epochs that the user gave.
        given["optimization"].setdefault("num_steps", None)
    parts = base.optimization.accumulate
    if parts > 1 and (size := given["optimization"].get("batch_size", 0)) > 0:
        # Use the fewest parts that are not larger than the recipe's parts.
        largest = base.optimization.batch_size // parts
        fewest = next(n for n in range(1, size + 1) if size % n == 0 and size // n <= largest)
        given["optimization"].setdefault("accumulate", fewest)
    rest = given_values(ctx, ["seed", "train_split", "test_split", "balance"])
    specs = {
        name: dataclasses.replace(getattr(base, name), **values) for name, values in given.items()
    }
    return dataclasses.replace(base, **specs, **rest)
