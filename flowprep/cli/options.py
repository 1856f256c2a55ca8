"""Options made from the configuration dataclasses, which hold their defaults and their words."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from click.core import ParameterSource

from flowprep.config import Resize

__all__ = ["GroupedCommand", "GroupedOption", "dataclass_options", "given_values", "read_config"]


class GroupedOption(click.Option):
    """An option that the help shows under a heading."""

    def __init__(self, *args: Any, group: str = "Other", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


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
                formatter.write_dl(records)


class ResizeType(click.ParamType[Resize]):
    """`none`, `short:256`, `height:256` or `340x256`."""

    name = "SIZE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Resize:
        """Reads a size; a ConfigError says what is wrong with it."""
        return value if isinstance(value, Resize) else Resize.parse(value)


class SourceOr(click.ParamType["float | None"]):
    """A number, or `source` for None."""

    name = "NUMBER|source"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Reads a number or `source`."""
        if value in (None, "source"):
            return None
        return click.FLOAT.convert(value, param, ctx)


class DirectionsType(click.Choice[str]):
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
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with an option for each field of a dataclass.

    Type and default are the field's, the help is the docstring under it. `names` gives fields other
    option names. The value arrives under the field's own name.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        docs = _field_docs(kind)
        hints = get_type_hints(kind)
        for item in reversed(fields(kind)):
            if item.name in skip:
                continue
            option = (names or {}).get(item.name, item.name.strip("_").replace("_", "-"))
            command = _option(item, option, hints[item.name], docs.get(item.name, ""), group)(
                command
            )
        return command

    return decorate


def given_values(ctx: click.Context, names: typing.Iterable[str]) -> dict[str, Any]:
    """Returns the values that the user gave, on the command line or in the configuration file."""
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
    return {name: ctx.params[name] for name in names if ctx.get_parameter_source(name) in given}


def read_config(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
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
        option = options.get(name.replace("_", "-"))
        if option is None or option.name is None:
            close = get_close_matches(name.replace("_", "-"), options, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise click.BadParameter(f"{path}: no option is called {name!r}{hint}", ctx, parameter)
        defaults[option.name] = value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def _option(
    item: Field[Any], name: str, hint: Any, doc: str, group: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    # `doc` is written for Python, where names are marked; a terminal needs no marks.
    settings: dict[str, Any] = {"default": default, "help": doc.replace("`", ""), "group": group}
    settings["show_default"] = default is not None
    flag = f"--{name}"
    if get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if item.name == "directions":
        settings |= {"type": DirectionsType(), "show_default": "both"}
    elif item.name == "fps":
        settings |= {"type": SourceOr(), "metavar": "NUMBER|source", "show_default": "source"}
    elif hint is Resize:
        settings |= {"type": ResizeType(), "metavar": "none|short:PX|height:PX|WxH"}
        settings["show_default"] = str(default)
    elif hint is bool:
        flag = f"{flag}/--no-{name}"
        settings["show_default"] = default is not None and (name if default else f"no-{name}")
    elif get_origin(hint) is Literal:
        settings["type"] = click.Choice(get_args(hint))
    else:
        settings["type"] = hint
    return click.option(flag, item.name, cls=GroupedOption, **settings)


def _field_docs(kind: type[Any]) -> dict[str, str]:
    """Returns the docstrings under a dataclass's fields, which Python itself does not keep."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
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
