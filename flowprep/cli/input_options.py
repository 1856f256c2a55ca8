"""Options of several commands that say which videos are taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from flowprep.cli.options import GroupedOption

__all__ = ["reach_options", "share_options"]


def reach_options(group: str) -> list[Callable[[Any], Any]]:
    """Returns what decorates a command that reads folders and lists with what they may reach."""
    return [
        click.option(
            "--urls/--no-urls",
            default=True,
            show_default=True,
            cls=GroupedOption,
            group=group,
            help="Whether a list may name URLs. --no-urls leaves them out with a note, except URLs "
            "below the folder that you named.",
        ),
        click.option(
            "--follow-links/--no-follow-links",
            default=True,
            show_default=True,
            cls=GroupedOption,
            group=group,
            help="Whether links are followed. --no-follow-links leaves out, with a note, all that "
            "lies outside of the folder that you named, or of the folder of the list. Symbolic "
            "links lead there, and a list's .. and paths from the root.",
        ),
    ]


def share_options(group: str) -> list[Callable[[Any], Any]]:
    """Returns what decorates a command that can make a split of train and test."""
    return [
        click.option(
            "--test-share",
            type=float,
            metavar="SHARE",
            cls=GroupedOption,
            group=group,
            help="Make a split where there is none: this share of the videos, such as 0.2, goes to "
            "test, the rest to train. Groups of videos are never divided, and each class gets "
            "its share as far as its groups allow. The same videos always get the same split, and "
            "videos that are added to OUT move no others.",
        ),
        click.option(
            "--group-by",
            metavar="REGEX",
            cls=GroupedOption,
            group=group,
            help="What finds the group of a video in its path for --test-share, such as "
            "'subject[0-9]+'. The default is the name up to gNN in names as in UCF101, else the "
            "folder inside or around the class, else the file.",
        ),
    ]
