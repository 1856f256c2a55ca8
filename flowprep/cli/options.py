"""Makes options from the configuration dataclasses, which hold the defaults and the help texts."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from click.core import ParameterSource

from flowprep.cli.field_docs import field_docs
from flowprep.config import DIRECTIONS, CenterCrop, Resize
from flowprep.errors import ConfigError, DatasetError, InputError
from flowprep.urls import as_path, is_url

__all__ = [
    "ChoiceType",
    "CropType",
    "GroupedCommand",
    "GroupedOption",
    "NamesType",
    "NumbersType",
    "PairType",
    "SourceOr",
    "check_exists",
    "dataclass_options",
    "estimator_options",
    "given_values",
    "labels_option",
    "merged_options",
    "options_named",
    "sample_option",
    "workers_option",
]

_HELP_COLUMN = 34
"""Widest first column of the help. The text of a longer option begins on the next line."""


class GroupedOption(click.Option):
    """An option that the help shows under a heading."""

    def __init__(self, *args: Any, group: str = "Other", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        """Returns the part of the help in brackets. Numbers have no trailing zeros."""
        extra = super().get_help_extra(ctx)
        if "default" in extra and isinstance(self.default, float):
            extra["default"] = f"{self.default:g}"
        return extra


class GroupedCommand(click.Command):
    """A command whose help lists its options by group, in the order in which they were declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Argument):
                continue
            if (record := parameter.get_help_record(ctx)) is not None:
                group = parameter.group if isinstance(parameter, GroupedOption) else "Help"
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                # All groups have the same column, which is easier to read.
                first, words = records[0]
                records[0] = (first.ljust(_HELP_COLUMN), words)
                formatter.write_dl(records, col_max=_HELP_COLUMN)


class ResizeType(click.ParamType):  # type: ignore[type-arg]
    """`none`, `short:256`, `height:256` or `340x256`."""

    name = "SIZE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Resize:
        """Reads a size. Raises ConfigError for any other text."""
        if isinstance(value, Resize):
            return value
        with options_named(ctx):
            return Resize.parse(value)


class CropType(click.ParamType):  # type: ignore[type-arg]
    """`112`, `112x96`, or `none`."""

    name = "SIZE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> CenterCrop | None:
        """Reads a size or `none`. Raises ConfigError for any other text."""
        if isinstance(value, CenterCrop) or value == "none":
            return None if value == "none" else value
        with options_named(ctx):
            return CenterCrop.parse(str(value))


class SourceOr(click.ParamType):  # type: ignore[type-arg]
    """A number, or `source` for None."""

    name = "NUMBER|source"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Reads a number or `source`."""
        if value in (None, "source"):
            return None
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'source'.", param, ctx)


class NumbersType(click.ParamType):  # type: ignore[type-arg]
    """Numbers separated by commas, as a tuple of floats."""

    name = "NUMBERS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Reads the numbers. A single number may also be an int or a float."""
        if isinstance(value, (tuple, list)):
            return tuple(value)
        try:
            return tuple(float(number) for number in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them.", param, ctx)


class NamesType(click.ParamType):  # type: ignore[type-arg]
    """Names separated by commas, as a tuple of texts, each once."""

    name = "NAMES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Splits at the commas. A list of a configuration file is taken as it is."""
        names = tuple(value) if isinstance(value, (tuple, list)) else tuple(str(value).split(","))
        if not all(names) or len(set(names)) < len(names):
            self.fail(
                f"{value!r} must be names with commas between them, each of them once.", param, ctx
            )
        return names


class PairType(click.ParamType):  # type: ignore[type-arg]
    """`radius=4`, as a pair of texts."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Splits at the first equals sign."""
        if isinstance(value, tuple):
            return value
        key, sign, text = str(value).partition("=")
        if not (key and sign):
            self.fail(f"{value!r} is not KEY=VALUE.", param, ctx)
        return key.replace("-", "_"), text


class ChoiceType(click.Choice):  # type: ignore[type-arg]
    """One of several words. The error for any other word suggests the most similar choice."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Returns the error, with all choices."""
        choices = [str(choice) for choice in self.choices]
        close = get_close_matches(str(value), choices, 1)
        hint = f"; did you mean {close[0]}?" if close else "."
        return f"{value!r} is not one of {', '.join(choices)}{hint}"


class DirectionsType(ChoiceType):
    """`forward`, `backward` or `both`, as a tuple."""

    def __init__(self) -> None:
        super().__init__((*DIRECTIONS, "both"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reads the choice."""
        if isinstance(value, tuple):
            return value
        choice = super().convert(value, param, ctx)
        return DIRECTIONS if choice == "both" else (choice,)


def dataclass_options(
    kind: type[Any],
    group: str,
    *,
    names: Mapping[str, str] | None = None,
    skip: tuple[str, ...] = (),
    switches: tuple[str, ...] = (),
    varying: tuple[str, ...] = (),
    metavars: Mapping[str, str] | None = None,
    choices: Mapping[str, Iterable[str]] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with an option for each field of a dataclass.

    The type and the default are those of the field, and the help is the docstring under the field.
    `names` gives other option names to fields, and `metavars` other words for their values.
    `switches` are bools that can only be switched on. `varying` fields have no single default that
    the help could show. `choices` are the values of str fields without a Literal, which the help
    lists. The command gets the value under the name of the field.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        docs = field_docs(kind)
        hints = get_type_hints(kind)
        for item in reversed(fields(kind)):
            if item.name in skip:
                continue
            option = (names or {}).get(item.name, item.name.strip("_").replace("_", "-"))
            settings = _option_settings(item, hints[item.name])
            doc = docs.get(item.name, "")
            if item.name in (choices or {}):
                known = tuple((choices or {})[item.name])
                settings["type"] = ChoiceType(known)
                doc = f"{doc} One of {', '.join(known)}."
            if item.name in varying:
                settings["show_default"] = False
            if item.name in (metavars or {}):
                settings["metavar"] = (metavars or {})[item.name]
            if settings["type"] is bool and item.name in switches:
                settings["is_flag"] = True
            command = _add_option(command, option, item.name, doc, group, settings)
        return command

    return decorate


def merged_options(
    kinds: Mapping[str, type[Any]],
    group: str,
    *,
    varying: Iterable[str] = (),
    only: Collection[str] | None = None,
    metavars: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with the options of several things, such as algorithms.

    `kinds` maps the name of each thing to the dataclass with its options. Fields with the same name
    become one option with all their choices, and the help says which things have this option. For
    `a_b` of the same things as `a`, it says that `a` is needed. `varying` and `metavars` are as in
    `dataclass_options`. `only` names the fields that become options (None: all). Raises TypeError
    if fields with the same name have different types.
    """
    settings: dict[str, dict[str, Any]] = {}
    owners: dict[str, dict[str, dict[str, list[str]]]] = {}
    for name, kind in kinds.items():
        hints = get_type_hints(kind)
        docs: dict[str, str] = {}
        for base in reversed(kind.__mro__):
            docs |= field_docs(base) if is_dataclass(base) else {}
        for item in fields(kind):
            if only is not None and item.name not in only:
                continue
            own = _option_settings(item, hints[item.name])
            first = settings.setdefault(item.name, own)
            if isinstance(own["type"], ChoiceType) and isinstance(first["type"], ChoiceType):
                known = dict.fromkeys([*first["type"].choices, *own["type"].choices])
                first["type"] = ChoiceType(tuple(known))
            elif own["type"] != first["type"]:
                raise TypeError(
                    f"option {item.name} must have one type, got {first['type']} and "
                    f"{own['type']} (of {name}); rename one"
                )
            if item.name in varying or own["default"] != first["default"]:
                first["show_default"] = False
            of = owners.setdefault(item.name, {}).setdefault(docs.get(item.name, ""), {})
            of.setdefault(f"(default {own['default']})", []).append(name)

    for name, metavar in (metavars or {}).items():
        settings[name]["metavar"] = metavar

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, setting in reversed(settings.items()):
            of = owners[name]
            first = next((one for one in owners if name.startswith(f"{one}_")), None)
            if first is not None and _things(owners[first]) == _things(of):
                doc = f"{' '.join(of)} With --{first.replace('_', '-')}."
            else:
                # Where the defaults differ, the help tells whose they are.
                defaults = {default for by_default in of.values() for default in by_default}
                is_told = name not in varying and len(defaults) > 1
                doc = " ".join(
                    f"{one} For {_owners(by_default, is_told, kinds)}."
                    for one, by_default in of.items()
                )
            option = name.strip("_").replace("_", "-")
            command = _add_option(command, option, name, doc, group, setting)
        return command

    return decorate


def _things(of: Mapping[str, Mapping[str, Sequence[str]]]) -> set[str]:
    """Returns the names of the things that have an option."""
    return {name for by_default in of.values() for names in by_default.values() for name in names}


def _owners(by_default: Mapping[str, Sequence[str]], is_told: bool, known: Collection[str]) -> str:
    """Returns the names of things as a list, with their defaults if these are to be told."""
    return ", ".join(
        ", ".join(_families(names, known)) + (f" {default}" if is_told else "")
        for default, names in by_default.items()
    )


def _families(names: Sequence[str], known: Collection[str]) -> list[str]:
    """Returns `tsn-*` for `tsn-resnet18`, `tsn-resnet34` and so on, if all that are known are there
    and they are at least three."""
    short: dict[str, None] = {}
    for name in names:
        family = {one for one in known if one.startswith(f"{name.partition('-')[0]}-")}
        is_whole = len(family) > 2 and family <= set(names) and name in family
        short[f"{name.partition('-')[0]}-*" if is_whole else name] = None
    return list(short)


def _add_option(
    command: Callable[..., Any],
    option: str,
    field: str,
    doc: str,
    group: str,
    settings: Mapping[str, Any],
) -> Callable[..., Any]:
    """Decorates a command with `--option`. The command gets the value as `field`."""
    flag = f"--{option}"
    if settings["type"] is bool and not settings.get("is_flag"):
        flag = f"{flag}/--no-{option}"
    # `doc` has backquotes around names. A terminal does not need them.
    words = doc.replace("`", "")
    decorate = click.option(flag, field, cls=GroupedOption, group=group, help=words, **settings)
    return decorate(command)


def given_values(ctx: click.Context, names: typing.Iterable[str]) -> dict[str, Any]:
    """Returns the values that the user gave, on the command line or in the configuration file."""
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
    return {name: ctx.params[name] for name in names if ctx.get_parameter_source(name) in given}


@contextmanager
def options_named(ctx: click.Context | None) -> Iterator[None]:
    """Replaces the field's name at the begin of an error by the option: bound_px -> --bound."""
    try:
        yield
    except (ConfigError, InputError) as error:
        field, space, rest = str(error).partition(" ")
        for item in [] if ctx is None else ctx.command.params:
            names = ((item.name or "").strip("_"), f"num_{item.name}", item.opts[0][2:])
            if isinstance(item, click.Option) and field in names:
                raise type(error)(f"{item.opts[0]}{space}{rest}") from error
        raise


def check_exists(out: str) -> None:
    """Raises DatasetError if the folder of a data set does not exist. Does not check URLs."""
    place = as_path(out)
    if not is_url(place) and not os.path.exists(place):
        raise DatasetError(f"OUT does not exist: {out}; name the folder that extract wrote")


def sample_option(group: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds `--sample` to a command that looks for problems in a data set."""
    return click.option(
        "--sample",
        type=int,
        default=300,
        show_default=True,
        metavar="N",
        cls=GroupedOption,
        group=group,
        help="Number of videos whose pixels are examined. The stored statistics of all videos are "
        "always examined.",
    )


def labels_option(
    group: str | None = None, *, several: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds `--labels` to a command that reads labels and splits.

    With `several`, the value is a tuple of names, for several heads of a network.
    """
    grouped: dict[str, Any] = {} if group is None else {"cls": GroupedOption, "group": group}
    more = ""
    if several:
        grouped["type"] = NamesType()
        more = " Several names, such as verb,noun, are for several classifiers of one network."
    return click.option(
        "--labels",
        metavar="NAME,NAME,..." if several else "NAME",
        help="Use the labels, splits and class names that flowprep label wrote under this name. "
        f"The default is the data set's own.{more}",
        **grouped,
    )


def estimator_options(group: str) -> list[Callable[[Any], Any]]:
    """Returns decorators that add `--estimator` and the parameters of its class to a command."""
    return [
        click.option(
            "--estimator",
            metavar="MODULE:CLASS",
            cls=GroupedOption,
            group=group,
            help="A class of your own that computes the flow, in place of --algorithm: a "
            "flowprep.FlowEstimator in a module of the current folder or of an installed package.",
        ),
        click.option(
            "--estimator-options",
            type=PairType(),
            multiple=True,
            metavar="KEY=VALUE",
            cls=GroupedOption,
            group=group,
            help="A parameter of your own estimator. Give one for each parameter.",
        ),
    ]


def workers_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--workers` to a command that computes no flow."""
    return click.option(
        "--workers",
        "num_workers",
        type=int,
        metavar="N",
        help="Worker processes. The default is the number of cores.",
    )(command)


def _option_settings(item: Field[Any], hint: Any) -> dict[str, Any]:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    if get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(one for one in get_args(hint) if one is not type(None))
    settings: dict[str, Any] = {"type": hint, "default": default, "show_default": True}
    # The help shows the defaults, so they are written as the user would write them.
    if item.name == "directions":
        settings |= {"type": DirectionsType(), "default": "both"}
    elif item.name == "fps":
        settings |= {"type": SourceOr(), "default": "source"}
    elif get_origin(hint) is tuple:
        shown = ",".join(f"{number:g}" for number in typing.cast(tuple[float, ...], default))
        settings |= {"type": NumbersType(), "default": shown or None, "metavar": "NUMBERS"}
    elif hint is Resize:
        settings |= {"type": ResizeType(), "default": str(default)}
        settings["metavar"] = "none|short:PX|height:PX|WxH"
    elif hint is CenterCrop:
        settings |= {"type": CropType(), "metavar": "none|PX|WxH"}
    elif get_origin(hint) is Literal:
        settings["type"] = ChoiceType(get_args(hint))
    elif hint is int:
        settings["metavar"] = "N"
    elif hint is float:
        settings["metavar"] = "NUMBER"
    elif hint is str:
        settings["metavar"] = "NAME"
    return settings
