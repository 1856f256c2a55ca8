"""The command line: `flowprep COMMAND`. Each command ends in one library call."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from flowprep._version import __version__
from flowprep.cli.output import echo_error, printable_output
from flowprep.ending import check_working_folder, follow_hangup, say, trouble
from flowprep.errors import FlowprepError
from flowprep.lazy import imported
from flowprep.run.interrupts import endings_raised

__all__ = ["cli", "main"]

_COMMANDS = {
    "plan": ("flowprep.cli.plan:plan", "Estimate hours, bytes and shards of large collections."),
    "extract": (
        "flowprep.cli.extract:extract",
        "Extract optical flow from videos into a data set.",
    ),
    "status": ("flowprep.cli.dataset:status", "Show how far a run has got, from any machine."),
    "verify": ("flowprep.cli.dataset:verify", "Prove that a data set is complete and undamaged."),
    "info": ("flowprep.cli.dataset:info", "Print what a data set holds."),
    "view": ("flowprep.cli.view:view", "Draw flow beside its frames, as a film or a sheet."),
    "report": (
        "flowprep.cli.report:report",
        "Write an HTML page that shows what is wrong with a data set.",
    ),
    "browse": ("flowprep.cli.browse:browse", "Look through a data set in a web browser."),
    "compare": (
        "flowprep.cli.compare:compare",
        "Measure how much the flows of two data sets differ.",
    ),
    "metrics": (
        "flowprep.cli.metrics:metrics",
        "Score flow files against ground truth: EPE, angle, outliers.",
    ),
    "export": (
        "flowprep.cli.export:export",
        "Export a data set to the file layout of another project.",
    ),
    "import": (
        "flowprep.cli.import_:import_",
        "Import flow images that another project wrote.",
    ),
    "label": (
        "flowprep.cli.label:label",
        "Give a finished data set other labels, splits or class names.",
    ),
    "train": ("flowprep.cli.train:train", "Train a network on data sets."),
    "evaluate": ("flowprep.cli.evaluate:evaluate", "Test a network on the videos of a data set."),
    "fuse": (
        "flowprep.cli.fuse:fuse",
        "Fuse the scores of several networks, such as flow and RGB.",
    ),
    "predict": ("flowprep.cli.predict:predict", "Name the action in raw videos."),
    "imagine": (
        "flowprep.cli.imagine:imagine",
        "Find what a network takes for a class, as a picture and a film.",
    ),
    "explain": (
        "flowprep.cli.explain:explain",
        "Show where networks look in a video, and which moments count.",
    ),
    "features": (
        "flowprep.cli.features:features",
        "Write features of whole videos, window by window.",
    ),
    "probe": ("flowprep.cli.probe:probe", "Train and test a linear classifier on features."),
    "weights": (
        "flowprep.cli.weights:weights",
        "Say what a file of weights is, and which network takes it.",
    ),
    "synthetic": (
        "flowprep.cli.synthetic:synthetic",
        "Make a few small clips to try everything on.",
    ),
    "doctor": ("flowprep.cli.doctor:doctor", "Check what this machine can do, and how fast."),
}
"""The place and the short help of each command, in the order in which people use them."""


class _LazyGroup(click.Group):
    """A group that imports a command only when the command is called, so that `--help` is fast."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (_, words) in _COMMANDS.items():
            self.add_command(click.Command(name, short_help=words))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the commands in the order in which they were added."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; returns None for an unknown name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = imported(_COMMANDS[cmd_name][0])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the name and the short help of each command without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="flowprep")
def cli() -> None:
    """Turn video collections into optical-flow data sets that train.

    \b
    flowprep synthetic demo                 make a few small clips to try flowprep with
    flowprep extract demo/videos demo-flow  compute their flow and store it in shards
    flowprep verify demo-flow               prove that nothing is missing or damaged
    flowprep info demo-flow                 print what the data set holds
    flowprep view demo-flow --to flow.mp4   draw the flow of one video
    flowprep report demo-flow               find problems before you train
    flowprep browse demo-flow               look through the data set in a web browser

    Exit codes: 0 complete, 1 incomplete or failed, 2 wrong usage.
    """
    check_working_folder()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    with printable_output():
        sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    """Runs the command line; returns its exit code."""
    follow_hangup()
    try:
        # SIGTERM ends a command in order, as Ctrl-C does.
        with endings_raised():
            code = cli.main(arguments, prog_name="flowprep", standalone_mode=False)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return error.exit_code
    except FlowprepError as error:
        with suppress(OSError):
            echo_error(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("\nInterrupted.")
        return 1
    except OSError as error:
        if (words := trouble(error)) is not None:
            say(f"Error: {words}")
        return 1
    except Exception:
        # A traceback that Python itself wrote would not be escaped.
        traceback.print_exc()
        return 1
    return code if isinstance(code, int) else 0
