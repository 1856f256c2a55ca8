"""`flowprep view`: films and sheets of flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from flowprep.cli.extract import given_config
from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    dataclass_options,
    estimator_options,
    given_values,
    options_named,
)
from flowprep.cli.output import echo_line, echo_notes
from flowprep.config import DIRECTIONS, DecodeSpec, Direction, ExtractConfig, FlowSpec
from flowprep.flow.parameters import PARAMETERS
from flowprep.look.panel_names import PANELS
from flowprep.presets import PRESETS

__all__ = ["computing_options", "view"]

F = TypeVar("F", bound=Callable[..., Any])

_COMPUTING = "Computing the flow of a video"
_DECODE_FIELDS = tuple(item.name for item in dataclasses.fields(DecodeSpec))
_FLOW_FIELDS = ("step", "bound_px", "quantizer")
_COMPUTING_FIELDS = (
    *("algorithm", "estimator", "estimator_options", "preset", "device"),
    *(*_DECODE_FIELDS, *_FLOW_FIELDS),
)


class RangeType(click.ParamType):  # type: ignore[type-arg]
    """`10:60` as a pair of numbers. The first is included, the second is not."""

    name = "A:B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Reads the range."""
        if isinstance(value, tuple):
            return value
        begin, colon, end = str(value).partition(":")
        if not (colon and begin.isdigit() and end.isdigit() and int(begin) < int(end)):
            self.fail(f"{value!r} is not a range such as 10:60, which ends before frame 60.")
        return int(begin), int(end)


class NamesType(click.ParamType):  # type: ignore[type-arg]
    """Words separated by commas, as a tuple. `all` means every word."""

    name = "NAME,..."

    def __init__(self, every: tuple[str, ...] | None = None) -> None:
        self._every = every

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Splits the words."""
        if isinstance(value, tuple):
            return value
        if value == "all" and self._every is not None:
            return self._every
        return tuple(word.strip() for word in str(value).split(",") if word.strip())


def computing_options(
    *, algorithm: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with the options that say how to compute the flow of a video."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = dataclass_options(
            DecodeSpec,
            _COMPUTING,
            names={"allow_upscale": "upscale"},
            metavars={"fps": "NUMBER|source"},
        )(command)
        command = dataclass_options(
            FlowSpec,
            _COMPUTING,
            names={"bound_px": "bound"},
            skip=("algorithm", "parameters"),
            metavars={"bound_px": "PX"},
        )(command)
        command = click.option(
            "--device",
            default="auto",
            show_default=True,
            cls=GroupedOption,
            group=_COMPUTING,
            metavar="NAME",
            help="cpu, cuda, cuda:1, ... auto uses a GPU if there is one, otherwise the CPU.",
        )(command)
        for option in reversed(estimator_options(_COMPUTING)):
            command = option(command)
        if not algorithm:
            return command
        command = click.option(
            "--preset",
            type=ChoiceType(tuple(PRESETS)),
            cls=GroupedOption,
            group=_COMPUTING,
            metavar="NAME",
            help=f"A published recipe: {', '.join(PRESETS)}. Other options override it.",
        )(command)
        return click.option(
            "--algorithm",
            type=ChoiceType(tuple(PARAMETERS)),
            default=FlowSpec().algorithm,
            show_default=True,
            cls=GroupedOption,
            group=_COMPUTING,
            help="How flow is computed.",
        )(command)

    return decorate


def _picture_option(*names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*names, cls=GroupedOption, group="Picture", **settings)


@click.command(cls=GroupedCommand)
@click.argument("source")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@_picture_option(
    "--to",
    required=True,
    metavar="FILE",
    help="The file to write. Its ending chooses the kind: .mp4 (H.264), .webp or .gif for a film, "
    ".png for a sheet.",
)
@_picture_option(
    "--panels",
    type=NamesType(tuple(PANELS)),
    help="The panels to draw, in order. rgb: the frame. flow: Middlebury's colors. x, y: the "
    "stored gray levels. arrows: flow as arrows. consistency: how far forward and backward flow "
    "disagree, in pixels. warp: the next frame, warped by the flow, against this frame. all: all "
    "of these. camera: the camera's motion that --camera-motion took out, as arrows. The default "
    "is rgb,flow.",
)
@_picture_option(
    "--start", type=int, metavar="N", help="The first field to draw. The default is 0."
)
@_picture_option(
    "--length",
    type=int,
    metavar="N",
    help="Number of fields to draw. The default is all fields of a video in a data set, and 300 "
    "fields of a video file.",
)
@_picture_option(
    "--frames",
    type=RangeType(),
    help="--start and --length as one range: 10:60 means --start 10 --length 50.",
)
@_picture_option(
    "--direction",
    type=ChoiceType(DIRECTIONS),
    default="forward",
    show_default=True,
    help="Draw the flow from frame t to t + step (forward) or from t + step to t (backward).",
)
@_picture_option(
    "--max-flow-px",
    type=float,
    metavar="PX",
    help="Length of the flow with the strongest color, in pixels. The same length is used for all "
    "pictures. The default covers 99 % of the flow in the video.",
)
@_picture_option(
    "--width",
    type=int,
    metavar="PX",
    help="Width of each panel. The default is its own width, 640 at most. Small panels are "
    "enlarged.",
)
@_picture_option(
    "--play-fps",
    type=float,
    metavar="NUMBER",
    help="Pictures per second of a film. The default is the video's own rate.",
)
@_picture_option(
    "--pictures",
    "num_pictures",
    type=int,
    metavar="N",
    default=6,
    show_default=True,
    help="Number of rows in a sheet, spread evenly over the range.",
)
@computing_options()
@click.pass_context
def view(
    ctx: click.Context,
    /,
    source: str,
    keys: tuple[str, ...],
    to: str,
    panels: tuple[str, ...] | None,
    start: int | None,
    length: int | None,
    frames: tuple[int, int] | None,
    direction: Direction,
    max_flow_px: float | None,
    width: int | None,
    play_fps: float | None,
    num_pictures: int,
    preset: str | None,
    device: str,
    **_: Any,
) -> None:
    """Draw the flow of SOURCE as a film or a sheet. SOURCE is a data set or a video file.

    From a data set, the command draws the videos KEY one after the other, or the first video if you
    give no KEY. For a video file, it computes the flow as extract does. The colors are
    Middlebury's. White means no motion. Motion to the right is red, down yellow, left cyan and up
    violet. A color wheel beside the pictures shows the scale, which is the same for all pictures.

    \b
    flowprep view OUT walk/clip7 --to walk.mp4
    flowprep view OUT walk/clip7 --to walk.png --panels rgb,flow,arrows,consistency,warp
    flowprep view clip.mp4 --to clip.webp --algorithm dis --frames 0:50
    """
    from flowprep.look.view import DrawingSpec
    from flowprep.look.view import view as draw

    if frames is not None:
        if start is not None or length is not None:
            raise click.UsageError(
                "--frames cannot be given with --start or --length; leave out one or the other."
            )
        start, length = frames[0], frames[1] - frames[0]
    computing = given_values(ctx, _COMPUTING_FIELDS)
    with options_named(ctx):
        spec = DrawingSpec(
            panels=panels,
            start=start or 0,
            length=length,
            direction=direction,
            max_flow_px=max_flow_px,
            width=width,
            play_fps=play_fps,
            num_pictures=num_pictures,
        )
        base = PRESETS[preset] if preset else ExtractConfig()
        config = given_config(ctx, base) if computing else None
        report = draw(source, to, keys, spec, config=config, device=device)
    echo_notes(report.notes)
    echo_line(report.summary())
