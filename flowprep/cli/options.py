"""Options made from the configuration dataclasses, which hold their defaults and their words."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from click.core import ParameterSource

from flowprep.config import Resize
from flowprep.errors import ConfigError, DatasetError, InputError
from flowprep.urls import as_path, is_url

__all__ = [
    "ChoiceType",
    "GroupedCommand",
    "GroupedOption",
    "NumbersType",
    "check_exists",
    "config_option",
    "dataclass_options",
    "estimator_options",
    "field_help",
    "given_values",
    "labels_option",
    "options_named",
    "sample_option",
    "workers_option",
]

_HELP_COLUMN = 34
"""Widest first column of the help; longer options have their words on the next line."""


class GroupedOption(click.Option):
    """An option that the help shows under a heading."""

    def __init__(self, *args: Any, group: str = "Other", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        """Returns what the help puts in brackets; numbers without needless zeros."""
        extra = super().get_help_extra(ctx)
        if "default" in extra and isinstance(self.default, float):
            extra["default"] = f"{self.default:g}"
        return extra


class GroupedCommand(click.Command):
    """A command whose help lists its options by group, in the order in which they were declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Argument):
                continue
            if (record := parameter.get_help_record(ctx)) is not None:
                group = parameter.group if isinstance(parameter, GroupedOption) else "Help"
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                # The same column in all groups, so that the eye can run down it.
                first, words = records[0]
                records[0] = (first.ljust(_HELP_COLUMN), words)
                formatter.write_dl(records, col_max=_HELP_COLUMN)


class ResizeType(click.ParamType):  # type: ignore[type-arg]
    """`none`, `short:256`, `height:256` or `340x256`."""

    name = "SIZE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Resize:
        """Reads a size; a ConfigError says what is wrong with it."""
        if isinstance(value, Resize):
            return value
        with options_named(ctx):
            return Resize.parse(value)


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
    """Numbers with commas between them, as a tuple of floats."""

    name = "NUMBERS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Reads the numbers; a single one need not be a text."""
        if isinstance(value, (tuple, list)):
            return tuple(value)
        try:
            return tuple(float(number) for number in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them.", param, ctx)


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
    """One of several words; a wrong one gets the nearest word as a hint."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Says which words there are."""
        choices = [str(choice) for choice in self.choices]
        close = get_close_matches(str(value), choices, 1)
        hint = f"; did you mean {close[0]}?" if close else "."
        return f"{value!r} is not one of {', '.join(choices)}{hint}"


class DirectionsType(ChoiceType):
    """`forward`, `backward` or `both`, as a tuple."""

    def __init__(self) -> None:
        super().__init__(("forward", "backward", "both"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reads the choice."""
        if isinstance(value, tuple):
            return value
        choice = super().convert(value, param, ctx)
        return ("forward", "backward") if choice == "both" else (choice,)


def dataclass_options(
    kind: type[Any],
    group: str,
    *,
    names: Mapping[str, str] | None = None,
    skip: tuple[str, ...] = (),
    switches: tuple[str, ...] = (),
    varying: tuple[str, ...] = (),
    metavars: Mapping[str, str] | None = None,
    helps: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with an option for each field of a dataclass.

    Type and default are the field's, the help is the docstring under it. `names` gives fields other
    option names, `metavars` other words for their values; `switches` are bools that can only be
    switched on; `varying` fields have no one default to show. `helps` gives fields other words than
    their docstring's. The value arrives under the field's own name.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        docs = _field_docs(kind)
        hints = get_type_hints(kind)
        for item in reversed(fields(kind)):
            if item.name in skip:
                continue
            option = (names or {}).get(item.name, item.name.strip("_").replace("_", "-"))
            settings = _option_settings(item, hints[item.name])
            # `doc` is written for Python, where names are marked; a terminal needs no marks.
            words = (helps or {}).get(item.name, docs.get(item.name, ""))
            settings |= {"help": words.replace("`", ""), "group": group}
            if item.name in varying:
                settings["show_default"] = False
            if item.name in (metavars or {}):
                settings["metavar"] = (metavars or {})[item.name]
            is_switch = settings["type"] is bool and item.name in switches
            flag = f"--{option}"
            if is_switch:
                settings["is_flag"] = True
            elif settings["type"] is bool:
                flag = f"{flag}/--no-{option}"
            command = click.option(flag, item.name, cls=GroupedOption, **settings)(command)
        return command

    return decorate


def field_help(kind: type[Any], name: str) -> str:
    """Returns the docstring under a dataclass's field, with the field's default after it."""
    (item,) = (one for one in fields(kind) if one.name == name)
    words, default = _field_docs(kind).get(name, ""), item.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    return words if default is None else f"{words} The default is {default}."


def given_values(ctx: click.Context, names: typing.Iterable[str]) -> dict[str, Any]:
    """Returns the values that the user gave, on the command line or in the configuration file."""
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
    return {name: ctx.params[name] for name in names if ctx.get_parameter_source(name) in given}


@contextmanager
def options_named(ctx: click.Context | None) -> Iterator[None]:
    """Names the option in an error that begins with the name of its field: bound_px -> --bound."""
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
    """Raises DatasetError where the folder of a data set is not there; a URL is not looked at."""
    place = as_path(out)
    if not is_url(place) and not os.path.exists(place):
        raise DatasetError(f"OUT does not exist: {out}; name the folder that extract wrote")


def _read_config(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Takes the options in a TOML file as defaults; a callback of `--config`."""
    if path is None:
        return None
    # Python 3.10 has it as the package tomli.
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}", ctx, parameter) from error
    options = {
        flag.lstrip("-"): item
        for item in ctx.command.params
        if isinstance(item, click.Option) and item.name not in ("config", "help")
        for flag in item.opts
        if flag.startswith("--")
    }
    defaults: dict[str, Any] = {}
    for name, value in values.items():
        flag = name.replace("_", "-")
        option = options.get(flag)
        if option is None or option.name is None:
            raise click.BadParameter(
                f"{path}: no option is called {name}{_hint(flag, value, options)}", ctx, parameter
            )
        items = _items(value, option)
        if not all(_has_type(one, option) for one in items):
            wanted, got = _wanted(option), json.dumps(value, default=str)
            raise click.BadParameter(f"{path}: {name} must be {wanted}, got {got}", ctx, parameter)
        try:
            for one in items:
                option.type.convert(one, option, ctx)
        except click.BadParameter as error:
            raise click.BadParameter(f"{path}: {name}: {error.message}", ctx, parameter) from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {str(error).removeprefix('--')}") from error
        defaults[option.name] = items if option.multiple else value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def config_option(group: str, example: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with `--config`; `example` is a line that such a file may hold."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        callback=_read_config,
        expose_value=False,
        cls=GroupedOption,
        group=group,
        help=f"A TOML file with options, such as {example}. The command line overrides it.",
    )


def sample_option(group: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with `--sample`, of the commands that look for what is wrong in a set."""
    return click.option(
        "--sample",
        type=int,
        default=300,
        show_default=True,
        metavar="N",
        cls=GroupedOption,
        group=group,
        help="Videos whose pixels are looked at; the statistics of all of them are.",
    )


def labels_option(group: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with `--labels`, of the commands that read labels and splits."""
    grouped: dict[str, Any] = {} if group is None else {"cls": GroupedOption, "group": group}
    return click.option(
        "--labels",
        metavar="NAME",
        help="Use the labels, splits and class names that flowprep label wrote under this name. "
        "The default is the data set's own.",
        **grouped,
    )


def estimator_options(group: str) -> list[Callable[[Any], Any]]:
    """Returns what decorates a command with `--estimator`, and with the parameters of its class."""
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
    """Decorates a command with `--workers`, of the commands that compute no flow."""
    return click.option(
        "--workers",
        "num_workers",
        type=int,
        metavar="N",
        help="Worker processes. The default is the number of cores.",
    )(command)


def _hint(flag: str, value: object, options: Mapping[str, click.Option]) -> str:
    if isinstance(value, dict):
        return "; options stand at the top of the file, not in tables"
    if flag.startswith("no-") and flag[3:] in options:
        return f"; write {flag[3:]} = false"
    close = get_close_matches(flag, options, 1)
    return f"; did you mean {close[0]}?" if close else "; correct the name, or remove the line"


def _items(value: Any, option: click.Option) -> list[Any]:
    """Returns the values of an option: several for one that may be given several times."""
    if isinstance(option.type, PairType) and isinstance(value, dict):
        return [
            (key, one if isinstance(one, str) else json.dumps(one)) for key, one in value.items()
        ]
    return value if option.multiple and isinstance(value, list) else [value]


def _has_type(value: object, option: click.Option) -> bool:
    """Whether a TOML value can be meant for an option; click alone takes 1.5 for the integer 1."""
    if isinstance(option.type, click.types.BoolParamType):
        return isinstance(value, bool)
    if isinstance(option.type, click.types.IntParamType):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(option.type, click.types.FloatParamType):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(option.type, SourceOr):
        return isinstance(value, (int, float, str)) and not isinstance(value, bool)
    if isinstance(option.type, NumbersType):
        items = value if isinstance(value, list) else [value]
        return all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in items)
    if isinstance(option.type, PairType):
        return isinstance(value, (str, tuple))
    return isinstance(value, str)


def _wanted(option: click.Option) -> str:
    if isinstance(option.type, click.types.BoolParamType):
        return "true or false"
    if isinstance(option.type, click.types.IntParamType):
        return "an integer"
    if isinstance(option.type, click.types.FloatParamType):
        return "a number"
    if isinstance(option.type, SourceOr):
        return 'a number or "source"'
    if isinstance(option.type, NumbersType):
        return "a list of numbers"
    if isinstance(option.type, PairType):
        return "a table such as {radius = 4}"
    return "a list of texts in quotes" if option.multiple else "a text in quotes"


def _option_settings(item: Field[Any], hint: Any) -> dict[str, Any]:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    if get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(one for one in get_args(hint) if one is not type(None))
    settings: dict[str, Any] = {"type": hint, "default": default, "show_default": True}
    # Defaults are given as the user would write them, because the help shows them so.
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
    elif get_origin(hint) is Literal:
        settings["type"] = ChoiceType(get_args(hint))
    elif hint is int:
        settings["metavar"] = "N"
    elif hint is float:
        settings["metavar"] = "NUMBER"
    elif hint is str:
        settings["metavar"] = "NAME"
    return settings


def _field_docs(kind: type[Any]) -> dict[str, str]:
    """Returns the docstrings under a dataclass's fields, which Python itself does not keep."""
    tree = _classes_of(kind.__module__)[kind.__qualname__]
    docs = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.target.id] = str(following.value.value)
    return docs


@functools.cache
def _classes_of(module: str) -> dict[str, ast.ClassDef]:
    """Returns the classes at the top of a module, by name; a module is read and parsed once."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
