"""The options of `evaluate` and `predict` that take weights of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from flowprep.cli.options import ChoiceType, GroupedOption, given_values
from flowprep.errors import ConfigError
from flowprep.learn.networks import NETWORKS
from flowprep.learn.recipes import RECIPES

if TYPE_CHECKING:
    from flowprep.learn.foreign import ForeignNetwork

__all__ = [
    "check_foreign_options",
    "foreign_options",
    "given_classes",
    "given_foreign",
    "recipe_option",
]


_ONLY_FOREIGN = ["model", "recipe", "classes", "num_frames", "mean_file"]
"""Options that say what a checkpoint of flowprep says itself."""


def recipe_option(group: str) -> Callable[[Any], Any]:
    """Returns what adds `--recipe` to a command that takes weights of others."""
    return click.option(
        "--recipe",
        type=ChoiceType(tuple(RECIPES)),
        metavar="NAME",
        cls=GroupedOption,
        group=group,
        help="The published recipe by which the foreign weights were trained: "
        f"{', '.join(RECIPES)}. It says what the network sees, and which data it needs. By default "
        "the names in the file tell it.",
    )


def foreign_options(group: str) -> Callable[[Any], Any]:
    """Returns what adds the options for weights of others, but for `--weights`."""

    def decorate(command: Any) -> Any:
        for option in reversed(
            (
                click.option(
                    "--model",
                    type=ChoiceType(tuple(NETWORKS)),
                    metavar="NAME",
                    cls=GroupedOption,
                    group=group,
                    help="The network of foreign weights. flowprep weights FILE says which one "
                    "fits.",
                ),
                recipe_option(group),
                click.option(
                    "--classes",
                    metavar="FILE",
                    cls=GroupedOption,
                    group=group,
                    help="The class names of foreign weights, one on each line, in the order of "
                    "the classifier.",
                ),
                click.option(
                    "--frames",
                    "num_frames",
                    type=click.IntRange(min=1),
                    metavar="N",
                    cls=GroupedOption,
                    group=group,
                    help="Fields or frames in a clip of foreign weights. The default is the "
                    "recipe's.",
                ),
                click.option(
                    "--mean-file",
                    metavar="FILE",
                    cls=GroupedOption,
                    group=group,
                    help="The mean of all frames that foreign weights were trained with, a "
                    ".binaryproto of Caffe or a .npy file, as for C3D. By default the recipe's own "
                    "mean is subtracted.",
                ),
            )
        ):
            command = option(command)
        return command

    return decorate


def check_foreign_options(
    ctx: click.Context, checkpoint: str | Sequence[str] | None, weights: str | Sequence[str] | None
) -> None:
    """Raises ConfigError unless there is a network, and all options of foreign weights fit."""
    if checkpoint and weights and isinstance(weights, str):
        raise ConfigError(
            f"weights replace a checkpoint, got both {weights} and {checkpoint}; leave one of them "
            "out"
        )
    if weights:
        if ctx.params["model"] is None:
            raise ConfigError(
                f"weights need --model NAME, got {weights} alone; `flowprep weights FILE` says "
                "which one fits"
            )
        return
    if name := next(iter(given_values(ctx, _ONLY_FOREIGN)), None):
        raise ConfigError(
            f"{name} is for foreign weights, because a checkpoint says it itself; leave it out, or "
            "give --weights FILE"
        )
    if not checkpoint:
        raise ConfigError(
            "checkpoint must be given, or a model with its weights, got neither; give --checkpoint "
            "RUN, or --model NAME --weights FILE"
        )


def given_foreign(ctx: click.Context, weights: str) -> ForeignNetwork:
    """Returns the network that the options name for a file of weights."""
    from flowprep.learn.foreign import foreign_network

    return foreign_network(
        weights,
        ctx.params["model"],
        recipe=ctx.params["recipe"],
        num_frames=ctx.params["num_frames"],
        mean_file=ctx.params["mean_file"],
    )


def given_classes(ctx: click.Context) -> tuple[str, ...] | None:
    """Returns the class names of `--classes`."""
    from flowprep.dataset.label_sources import read_class_names

    path = ctx.params["classes"]
    return None if path is None else read_class_names(path)
