"""Options that `imagine` and `explain` share."""

from __future__ import annotations

from typing import Any, get_args

import click

from flowprep.cli.options import ChoiceType, GroupedOption
from flowprep.learn.seeing.specs import FilmName

__all__ = ["seeing_output_options"]


def seeing_output_options(command: Any) -> Any:
    """Decorates a command with the folder that it writes, and the kind of its film."""
    for option in (
        click.option(
            "--film",
            type=ChoiceType(get_args(FilmName)),
            default="mp4",
            show_default=True,
            cls=GroupedOption,
            group="Output",
            help="The kind of the film.",
        ),
        click.option(
            "--out",
            required=True,
            metavar="FOLDER",
            cls=GroupedOption,
            group="Output",
            help="The folder to write: a picture, a film and a JSON file.",
        ),
    ):
        command = option(command)
    return command
