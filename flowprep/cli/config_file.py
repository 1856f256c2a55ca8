"""Options from a TOML file. Options on the command line override them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from flowprep.cli.options import CropType, GroupedOption, NumbersType, PairType, SourceOr
from flowprep.errors import ConfigError

__all__ = ["config_option"]


def config_option(group: str, example: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with `--config`. `example` is an example of a line in such a file."""
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


def _read_config(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Uses the options in a TOML file as defaults. This is the callback of `--config`."""
    if path is None:
        return None
    # In Python 3.10, this module is the package tomli.
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}", ctx, parameter) from error
    except RecursionError as error:
        raise click.BadParameter(
            f"{path}: lists or tables are nested too deeply; give a value, a list of values or "
            "one table",
            ctx,
            parameter,
        ) from error
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


def _hint(flag: str, value: object, options: Mapping[str, click.Option]) -> str:
    if isinstance(value, dict):
        return "; options stand at the top of the file, not in tables"
    if flag.startswith("no-") and flag[3:] in options:
        return f"; write {flag[3:]} = false"
    close = get_close_matches(flag, options, 1)
    return f"; did you mean {close[0]}?" if close else "; correct the name, or remove the line"


def _items(value: Any, option: click.Option) -> list[Any]:
    """Returns the values of an option as a list: several if the option can be repeated."""
    if isinstance(option.type, PairType) and isinstance(value, dict):
        return [
            (key, one if isinstance(one, str) else json.dumps(one)) for key, one in value.items()
        ]
    return value if option.multiple and isinstance(value, list) else [value]


def _has_type(value: object, option: click.Option) -> bool:
    """Whether a TOML value has the type of an option. Click alone would read 1.5 as integer 1."""
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
    if isinstance(option.type, CropType):
        return isinstance(value, (int, str)) and not isinstance(value, bool)
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
