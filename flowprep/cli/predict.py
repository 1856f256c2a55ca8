"""`flowprep predict`: the action in a video."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import click

from flowprep.cli.evaluate import running_options
from flowprep.cli.foreign_options import (
    check_foreign_options,
    foreign_options,
    given_classes,
    given_foreign,
)
from flowprep.cli.input_options import reach_options
from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    dataclass_options,
    given_values,
    options_named,
)
from flowprep.cli.output import echo_line, echo_notes
from flowprep.errors import ConfigError, VideoError
from flowprep.extras import extra_needed
from flowprep.learn.config import FusionMethod
from flowprep.learn.recipes import VIEWS
from flowprep.learn.timeline_spec import TimelineSpec
from flowprep.learn.training_specs import PrecisionName
from flowprep.words import format_count

if TYPE_CHECKING:
    from flowprep.learn.checkpoint import Checkpoint
    from flowprep.learn.predict import Predictor

__all__ = ["predict"]

urls_option, links_option = reach_options("Input")

_NUM_NAMED = 5
_NUM_DRAWN = 10


class WeightsType(click.ParamType):  # type: ignore[type-arg]
    """`1,1.5` as a tuple of numbers. Any other text is the path of a file."""

    name = "FILE|W,W,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | tuple[float, ...]:
        """Reads numbers, or returns the path."""
        try:
            return tuple(float(number) for number in str(value).split(","))
        except ValueError:
            return str(value)


@click.command(cls=GroupedCommand)
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@click.option(
    "--checkpoint",
    multiple=True,
    metavar="RUN|FILE",
    cls=GroupedOption,
    group="Networks",
    help="A checkpoint file, or a folder that train wrote. From a folder, best.pt is taken, "
    "or last.pt if there is no best.pt. Give several, such as one for flow "
    "and one for RGB, to fuse their scores.",
)
@click.option(
    "--task",
    metavar="NAME",
    cls=GroupedOption,
    group="Networks",
    help="For networks that were trained on several data sets: the name of the data set whose "
    "classes to predict. For networks of several label sets: the name of one of them, to predict "
    "it alone.",
)
@click.option(
    "--views",
    type=ChoiceType(tuple(VIEWS)),
    metavar="|".join(VIEWS),
    cls=GroupedOption,
    group="Networks",
    help="The views of each video, or of each window of a timeline, whose scores are averaged. "
    "center: the center crop of the middle clip. 30: 10 clips with 3 crops each. 250: 25 clips "
    "with 10 crops each. The default is 30, and center for a timeline.",
)
@click.option(
    "--method",
    type=ChoiceType([name for name in get_args(FusionMethod) if name != "svm"]),
    default="mean",
    show_default=True,
    cls=GroupedOption,
    group="Networks",
    help="How to fuse the scores of several networks. flowprep fuse --help explains the methods.",
)
@click.option(
    "--weights",
    type=WeightsType(),
    multiple=True,
    cls=GroupedOption,
    group="Networks",
    help="Numbers with commas between them: the weight of each network, for methods mean and "
    "weighted. Or a file: weights of another project, in place of a checkpoint, whose network "
    "--model names. May be given several times.",
)
@foreign_options("Weights of others")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    cls=GroupedOption,
    group="Output",
    help="Number of classes to name for each video, and to draw in a timeline. The default is 5, "
    f"and {_NUM_DRAWN} to draw.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    cls=GroupedOption,
    group="Output",
    help="Print the classes as JSON.",
)
@click.option(
    "--timeline",
    "timelines",
    multiple=True,
    metavar="FILE.csv|.json|.png",
    cls=GroupedOption,
    group="Timeline",
    help="Score the video window by window, and write the scores over time to this file. Give it "
    "several times for several formats.",
)
@dataclass_options(TimelineSpec, "Timeline")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="[CLASS=]P",
    cls=GroupedOption,
    group="Timeline",
    help="Join neighboring windows in which a class scores at least this probability to segments. "
    "P is for all classes, CLASS=P for one class. May be given several times. Without --timeline, "
    "name only the classes that score as much.",
)
@click.option(
    "--min-seconds",
    type=float,
    default=0.0,
    show_default=True,
    metavar="NUMBER",
    cls=GroupedOption,
    group="Timeline",
    help="Leave out segments that are shorter.",
)
@urls_option
@links_option
@running_options
@click.pass_context
def predict(
    ctx: click.Context,
    /,
    videos: tuple[str, ...],
    checkpoint: tuple[str, ...],
    task: str | None,
    views: str | None,
    method: FusionMethod,
    weights: tuple[str | tuple[float, ...], ...],
    top: int | None,
    as_json: bool,
    timelines: tuple[str, ...],
    thresholds: tuple[str, ...],
    min_seconds: float,
    device: str,
    precision: PrecisionName,
    urls: bool,
    follow_links: bool,
    model: str | None,
    recipe: str | None,
    classes: str | None,
    num_frames: int | None,
    mean_file: str | None,
    **windows: Any,
) -> int:
    """Name the most probable classes of each VIDEO, a video file.

    The command extracts flow with the options of the training data, and does not store it. For many
    videos, use extract and evaluate instead: they use all cores and keep the flow. The exit code is
    1 when a video cannot be read.

    With --timeline, one long VIDEO is scored window by window. A window speaks for the time around
    its middle, up to halfway to the next window. The video is never whole in memory.

    \b
    flowprep predict clip.mp4 --checkpoint runs/flow
    flowprep predict clip.mp4 --weights TSM_kinetics_Flow.pth --model tsm-resnet50 \\
        --classes kinetics.txt
    flowprep predict *.mp4 --checkpoint runs/rgb --checkpoint runs/flow --method weighted
    flowprep predict match.mp4 --checkpoint runs/i3d --timeline match.png --timeline match.csv \\
        --window 64 --stride 16 --threshold .5 --min-seconds 2
    """
    with extra_needed("`flowprep predict`", "train"), options_named(ctx):
        _check_options(ctx, videos, timelines, windows)
        from flowprep.learn.predict import Predictor

        files = [one for one in weights if isinstance(one, str)]
        numbers = [one for one in weights if not isinstance(one, str)]
        if len(numbers) > 1:
            raise ConfigError(
                f"weights of the networks must be given once, got {len(numbers)} times; write them "
                "with commas between them"
            )
        check_foreign_options(ctx, checkpoint, files)
        networks, notes = _given_networks(ctx, checkpoint, files)
        predictor = Predictor(
            networks,
            VIEWS[views or ("center" if timelines else "30")],
            task=task,
            method=method,
            weights=numbers[0] if numbers else None,
            device=device,
            precision=precision,
            urls=urls,
            follow_links=follow_links,
        )
        predictor.notes += notes
        if timelines:
            spec = TimelineSpec(**windows)
            try:
                _print_timeline(
                    predictor, videos[0], spec, timelines, thresholds, min_seconds, top, as_json
                )
            except VideoError as error:
                echo_line(f"{videos[0]}: {error.reason}: {error.message}", err=True)
                echo_notes(predictor.notes)
                return 1
            return 0
        return _print_classes(predictor, videos, thresholds, top, as_json)


def _given_networks(
    ctx: click.Context, checkpoints: Sequence[str], files: Sequence[str]
) -> tuple[list[Checkpoint], list[str]]:
    """Returns the networks that the options name, those of checkpoints first, and notes."""
    from flowprep.learn.checkpoint import load_checkpoint
    from flowprep.learn.evaluate import checkpoint_file, checkpoint_notes
    from flowprep.learn.foreign import foreign_checkpoint

    networks = [load_checkpoint(checkpoint_file(path)) for path in checkpoints]
    notes = [note for path in checkpoints for note in checkpoint_notes(path)]
    for file in files:
        found = given_foreign(ctx, file)
        networks.append(foreign_checkpoint(found, given_classes(ctx)))
        notes += found.notes
    return networks, notes


def _check_options(
    ctx: click.Context,
    videos: tuple[str, ...],
    timelines: tuple[str, ...],
    windows: Mapping[str, Any],
) -> None:
    """Raises ConfigError for options that do not fit, before anything long begins."""
    if not timelines:
        given = given_values(ctx, [*windows, "min_seconds"])
        if name := next(iter(given), None):
            raise ConfigError(f"{name} is for a timeline; add --timeline FILE")
        return
    if len(videos) > 1:
        raise ConfigError(
            f"timeline is of one video, got {len(videos)}; run the command once for each video"
        )
    from flowprep.learn.timeline_files import check_timeline_file

    for path in timelines:
        check_timeline_file(path)


def _print_classes(
    predictor: Predictor,
    videos: tuple[str, ...],
    threshold: tuple[str, ...],
    top: int | None,
    as_json: bool,
) -> int:
    from flowprep.learn.timeline import parse_thresholds

    heads = predictor.heads[0]
    if threshold and len(heads) > 1:
        raise ConfigError(
            f"threshold is for one label set; name one of {', '.join(one.name for one in heads)} "
            "with --task"
        )
    thresholds = parse_thresholds(threshold, heads[0].class_names) if threshold else None
    # All classes that reach the threshold, unless the user says how many.
    number = top or (_NUM_NAMED if thresholds is None else len(heads[0].class_names))
    found: list[dict[str, Any]] = []
    num_bad = 0
    for video in videos:
        for prediction in predictor.predict(video):
            classes = prediction.top(number, thresholds=thresholds)
            by_head = {name: prediction.top(number, head=name) for name in prediction.heads}
            num_bad += prediction.error is not None
            if as_json:
                found.append(
                    {"video": prediction.video, "error": prediction.error}
                    if prediction.error is not None
                    else {"video": prediction.video, **_json_classes(classes, by_head)}
                )
            elif prediction.error is not None:
                echo_line(f"{prediction.video}: {prediction.error}", err=True)
            else:
                echo_line(prediction.video)
                for name, own in by_head.items():
                    echo_line(f" {name}")
                    _echo_classes(own)
                if not by_head:
                    _echo_classes(classes)
                if thresholds is not None and not classes:
                    echo_line("  no class reaches the threshold")
    echo_notes(predictor.notes)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    return 1 if num_bad else 0


def _json_classes(
    classes: Sequence[tuple[str, float]], by_head: Mapping[str, Sequence[tuple[str, float]]]
) -> dict[str, Any]:
    if not by_head:
        return {"classes": _class_values(classes)}
    return {"label_sets": {name: _class_values(own) for name, own in by_head.items()}}


def _print_timeline(
    predictor: Predictor,
    video: str,
    spec: TimelineSpec,
    files: tuple[str, ...],
    threshold: tuple[str, ...],
    min_seconds: float,
    top: int | None,
    as_json: bool,
) -> None:
    from flowprep.learn.timeline import find_segments, parse_thresholds
    from flowprep.learn.timeline_files import timeline_values, write_timeline

    thresholds = parse_thresholds(threshold, predictor.tasks[0].class_names)
    if min_seconds and not thresholds:
        raise ConfigError(
            f"min_seconds is for segments, got {min_seconds:g} and no threshold; add --threshold"
        )
    timeline = predictor.timeline(video, spec)
    segments = find_segments(timeline, thresholds, min_seconds=min_seconds)
    written = []
    for path in files:
        written += write_timeline(
            timeline,
            path,
            segments=segments,
            thresholds=thresholds,
            num_drawn=top or _NUM_DRAWN,
        )
    echo_notes(predictor.notes)
    classes = timeline.top(top or _NUM_NAMED)
    if as_json:
        values = timeline_values(timeline, segments, thresholds)
        del values["windows"]
        click.echo(json.dumps({**values, "classes": _class_values(classes)}, indent=2))
        return
    echo_line(timeline.summary())
    _echo_classes(classes)
    if thresholds:
        echo_line(f"  {format_count(len(segments), 'segment')}")
    for one in segments:
        echo_line(f"  {one.times():>20}  {100 * one.score:5.1f} %  {one.name}")
    for path in written:
        echo_line(f"  written to {path}")


def _class_values(classes: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"name": name, "probability": probability} for name, probability in classes]


def _echo_classes(classes: Sequence[tuple[str, float]]) -> None:
    for name, probability in classes:
        echo_line(f"  {100 * probability:5.1f} %  {name}")
