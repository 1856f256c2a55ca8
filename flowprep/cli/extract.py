"""`flowprep extract`: from videos to a flow data set."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from flowprep.cli.config_file import config_option
from flowprep.cli.input_options import reach_options, share_options
from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    dataclass_options,
    estimator_options,
    given_values,
    merged_options,
    options_named,
)
from flowprep.cli.output import echo_notes
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.dataset.plan import stored_ranges, stored_splits
from flowprep.errors import ConfigError
from flowprep.flow.parameters import PARAMETERS, is_own
from flowprep.inputs.entries import CharadesMode
from flowprep.inputs.manifest import FORMATS, Manifest, collect_videos
from flowprep.presets import PRESETS

__all__ = [
    "config_options",
    "config_options_with",
    "extract",
    "format_option",
    "given_config",
    "given_videos",
    "input_options",
    "list_options",
    "run_options",
]

F = TypeVar("F", bound=Callable[..., Any])


def _parameter_options(command: Any) -> Any:
    # Algorithms that share parameters, in a class or a base class, share the options for them.
    kinds = dict.fromkeys(
        base
        for kind in PARAMETERS.values()
        for base in reversed(kind.__mro__)
        if dataclasses.is_dataclass(base)
    )
    owners = Counter(name for kind in kinds for name in kind.__annotations__)
    # Unrelated classes may have parameters with the same name.
    shared = [name for name, count in owners.items() if count > 1]
    if shared:
        heading = "Parameters of several algorithms"
        command = merged_options(PARAMETERS, heading, only=shared)(command)
    for kind in reversed(kinds):
        names = [item.name for item in dataclasses.fields(kind)]
        inherited = [name for name in names if name not in kind.__annotations__]
        algorithms = [name for name, other in PARAMETERS.items() if issubclass(other, kind)]
        heading = f"Parameters of {' and '.join(algorithms)}"
        command = dataclass_options(kind, heading, skip=(*inherited, *shared))(command)
    return command


def _decorator(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Returns a decorator that adds all `options` to a command, in their order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def format_option(flag: str) -> Callable[[Any], Any]:
    """Returns what decorates a command with the format of VIDEOS, under the name `flag`."""
    return click.option(
        flag,
        "manifest_format",
        type=ChoiceType(("auto", *FORMATS)),
        default="auto",
        show_default=True,
        cls=GroupedOption,
        group="Input",
        metavar="FORMAT",
        help=f"What VIDEOS is: {', '.join(FORMATS)}. auto recognizes it.",
    )


list_options = _decorator(
    click.option(
        "--annotations",
        metavar="PATH",
        cls=GroupedOption,
        group="Input",
        help="The list that belongs to the folder VIDEOS: UCF101's or HMDB51's folder of split "
        "files, a data set's CSV or JSON, or a list of paths.",
    ),
    click.option(
        "--list",
        "lists",
        multiple=True,
        cls=GroupedOption,
        group="Input",
        metavar="[SPLIT=]FILE",
        help="A list of videos in the folder VIDEOS, such as train=train.txt. Give one for each "
        "split. A label must mean the same class in all of them.",
    ),
    click.option(
        "--split",
        type=int,
        metavar="1|2|3",
        cls=GroupedOption,
        group="Input",
        help="Which of the three splits of UCF101 or HMDB51. The default is 1.",
    ),
    click.option(
        "--root",
        metavar="PATH",
        cls=GroupedOption,
        group="Input",
        help="The folder that the paths in a list start from. The default is the folder of the "
        "list.",
    ),
    click.option(
        "--class-level",
        type=int,
        metavar="NUMBER",
        cls=GroupedOption,
        group="Input",
        help="Which folder around a video is its class. 1 is the first folder below VIDEOS or "
        "--root, 0 means no classes. By default flowprep finds the classes and splits, and prints "
        "what it found.",
    ),
    click.option(
        "--allow-missing",
        is_flag=True,
        cls=GroupedOption,
        group="Input",
        help="Go on when a whole class of the annotations has no video on disk.",
    ),
    click.option(
        "--charades",
        type=ChoiceType(get_args(CharadesMode)),
        default="clips",
        show_default=True,
        cls=GroupedOption,
        group="Input",
        metavar="|".join(get_args(CharadesMode)),
        help="What Charades' actions become. clips: one clip with one label for each action. "
        "video: whole videos with all their labels.",
    ),
    *share_options("Input"),
    *reach_options("Input"),
)
"""The options that say what VIDEOS is, but for its format."""

input_options = _decorator(format_option("--format"), list_options)
"""The options that say what VIDEOS is."""


def config_options_with(crop: str = "crop") -> Callable[[F], F]:
    """Returns what adds the options that say what to compute and store.

    `crop` is the name of the option for the crop before the flow.
    """
    return _decorator(
        click.option(
            "--preset",
            type=ChoiceType(tuple(PRESETS)),
            cls=GroupedOption,
            group="Recipe",
            metavar="NAME",
            help=f"A published recipe: {', '.join(PRESETS)}. Other options override it.",
        ),
        config_option("Recipe", 'algorithm = "dis"'),
        dataclass_options(
            DecodeSpec,
            "Decoding",
            names={"allow_upscale": "upscale", "crop": crop},
            metavars={"fps": "NUMBER|source"},
        ),
        click.option(
            "--algorithm",
            type=ChoiceType(tuple(PARAMETERS)),
            default=FlowSpec().algorithm,
            show_default=True,
            cls=GroupedOption,
            group="Flow",
            help="How flow is computed.",
        ),
        *estimator_options("Flow"),
        dataclass_options(
            FlowSpec,
            "Flow",
            names={"bound_px": "bound"},
            skip=("algorithm", "parameters"),
            metavars={"bound_px": "PX"},
        ),
        _parameter_options,
        dataclass_options(
            EncodeSpec, "Storing", names={"keep_rgb": "rgb", "videos_per_shard": "shard-size"}
        ),
    )


config_options = config_options_with()
"""The options that say what to compute and store."""


def run_options(*skip: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options of `RunOptions` to a command, except the fields in `skip`."""
    return dataclass_options(
        RunOptions,
        "Running",
        names={"num_workers": "workers", "stall_timeout_seconds": "stall-timeout"},
        skip=skip,
        switches=("retry_failed", "redo_changed"),
        metavars={
            "address": "HOST:PORT|auto",
            "runtime_env": "JSON|FILE",
            "stall_timeout_seconds": "SECONDS",
            "worker_memory": "SIZE|auto|none",
        },
    )


@click.command(cls=GroupedCommand)
@click.argument("videos", nargs=-1, metavar="VIDEOS...")
@click.argument("out")
@input_options
@config_options
@run_options()
@click.option(
    "--dry-run",
    is_flag=True,
    cls=GroupedOption,
    group="Running",
    help="Show the plan and what folders and lists were read as, and estimate time and bytes "
    "from a short probe. Write nothing.",
)
@click.pass_context
def extract(
    ctx: click.Context,
    /,
    videos: tuple[str, ...],
    out: str,
    preset: str | None,
    dry_run: bool,
    **_: Any,
) -> int:
    """Extract optical flow from VIDEOS into the data set OUT.

    VIDEOS can be a folder, a video file, a quoted glob, a list of paths, a CSV or the list of a
    known data set. Several folders, files and globs can be given at once. In a folder, class
    folders become labels, and folders called train, val and test become splits. Give UCF101 and
    HMDB51 with --annotations. Put -- before a name that begins with a dash.

    To go on after a stop or a crash, run the same command again. It also adds new videos.

    \b
    flowprep extract UCF-101 flow --annotations ucfTrainTestlist --split 1
    flowprep extract 'clips/*.mp4' flow --algorithm dis --no-rgb
    flowprep extract train.csv flow --root videos --preset i3d
    flowprep extract videos flow --list train=train.txt --list val=val.txt
    flowprep extract own-videos flow --test-share 0.2
    flowprep extract videos flow --estimator my_flow:MyFlow --estimator-options radius=4
    """
    # Imported late, because --help and usage errors need neither Ray nor a decoder.
    from flowprep.run.early import early_worker
    from flowprep.run.options import check_options, with_all_parameters

    if not videos:
        raise click.UsageError(f"Give VIDEOS and OUT; got one name only, {out!r}.", ctx)
    with options_named(ctx):
        # Before a worker starts, so that only the driver looks for weights.
        config = with_all_parameters(
            given_config(ctx, PRESETS[preset] if preset else ExtractConfig())
        )
        run_fields = [item.name for item in dataclasses.fields(RunOptions)]
        options = RunOptions(**given_values(ctx, run_fields))
        check_options(options, config.flow.algorithm)
    with early_worker(options, config.flow, () if dry_run else videos) as worker:
        with options_named(ctx):
            manifest = given_videos(ctx, config, out)
        echo_notes(manifest.notes)
        if dry_run:
            from flowprep.run.estimate import estimate_run

            click.echo(estimate_run(manifest, out, config, options).summary())
            return 0
        from flowprep.run.driver import run_extract

        try:
            report = run_extract(manifest, out, config, options, worker=worker)
        except KeyboardInterrupt:
            click.echo("\nInterrupted; the same command goes on where this one stopped.", err=True)
            return 1
    click.echo(report.summary())
    return report.exit_code


def given_videos(ctx: click.Context, config: ExtractConfig, out: str | None = None) -> Manifest:
    """Lists VIDEOS as `input_options` say. OUT, if given, may not be among them."""
    names = (
        *("annotations", "split", "root", "class_level", "lists", "allow_missing", "charades"),
        *("urls", "follow_links", "test_share", "group_by"),
    )
    return collect_videos(
        ctx.params["videos"],
        format=ctx.params["manifest_format"],
        out=out,
        stored_ranges=None if out is None else stored_ranges(out),
        stored_splits=None if out is None else stored_splits(out),
        image_fps=config.decode.image_fps,
        **{name: ctx.params[name] for name in names},
    )


def given_config(
    ctx: click.Context, base: ExtractConfig, algorithm: str | None = None
) -> ExtractConfig:
    """Returns `base`, in which the options that the user gave replace the values.

    `algorithm` overrides the option. A command need not have all the options.
    """
    decode = given_values(ctx, [item.name for item in dataclasses.fields(DecodeSpec)])
    encode = given_values(ctx, [item.name for item in dataclasses.fields(EncodeSpec)])
    names = [item.name for item in dataclasses.fields(FlowSpec) if item.name != "parameters"]
    flow = given_values(ctx, names)
    own = given_values(ctx, ["estimator", "estimator_options"])
    if "estimator" in own and "algorithm" in flow:
        raise ConfigError(
            f"estimator replaces --algorithm, got both {own['estimator']} and "
            f"{flow['algorithm']}; leave one of them out"
        )
    options = dict(own.get("estimator_options", ()))
    if options and algorithm is None and "estimator" not in own:
        key, value = next(iter(options.items()))
        raise ConfigError(
            f"estimator_options need --estimator, got {key}={value} alone; add it, or leave them "
            "out"
        )
    algorithm = flow["algorithm"] = (
        algorithm or own.get("estimator") or flow.get("algorithm", base.flow.algorithm)
    )
    FlowSpec(algorithm)  # An error lists the choices if the name is unknown.
    known = [] if is_own(algorithm) else [i.name for i in dataclasses.fields(PARAMETERS[algorithm])]
    for other, kind in PARAMETERS.items():
        strange = given_values(
            ctx, [i.name for i in dataclasses.fields(kind) if i.name not in known]
        )
        if strange:
            name = next(iter(strange)).strip("_").replace("_", "-")
            raise ConfigError(
                f"--{name} is a parameter of {other}, but the algorithm is {algorithm}; "
                f"add --algorithm {other} or leave --{name} out"
            )
    if is_own(algorithm):
        from flowprep.flow.estimators import parse_parameters

        flow["parameters"] = parse_parameters(algorithm, options)
    else:
        start: Any = PARAMETERS[algorithm]()
        if algorithm == base.flow.algorithm:
            start = base.flow.parameters
        flow["parameters"] = dataclasses.replace(start, **given_values(ctx, known))
    return ExtractConfig(
        dataclasses.replace(base.decode, **decode),
        dataclasses.replace(base.flow, **flow),
        dataclasses.replace(base.encode, **encode),
    )
