"""Options that several networks have of their own become options of one command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from flowprep.cli.options import GroupedCommand, given_values, merged_options


@dataclass(frozen=True)
class Deep:
    """Options of two networks."""

    join: Literal["avg", "max"] = "avg"
    """How scores are joined."""
    num_units: int = 64
    """Units of the hidden layer."""


@dataclass(frozen=True)
class Wide:
    """Options of another network."""

    join: Literal["max", "sum"] = "max"
    """How scores are joined."""
    num_units: int = 64
    """Units of each branch."""
    is_frozen: bool = False
    """Freeze the `trunk`."""
    is_frozen_until: str | None = None
    """The last frozen layer."""


@dataclass(frozen=True)
class Odd:
    """Options that cannot be merged with those."""

    num_units: bool = True
    """Whether there are units."""


KINDS: dict[str, type[Any]] = {"deep1": Deep, "wide": Wide, "deep2": Deep}


@click.command(cls=GroupedCommand)
@merged_options(KINDS, "Model", metavars={"is_frozen_until": "LAYER"})
@click.pass_context
def command(ctx: click.Context, /, **_: Any) -> None:
    """Prints what was given."""
    click.echo(given_values(ctx, ["join", "num_units", "is_frozen"]))


def test_the_help_says_for_which_networks_an_option_is() -> None:
    page = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert (
        "--join [avg|max|sum] How scores are joined. For deep1, deep2 (default avg), wide (default "
        "max). --num"
    ) in page
    units = "Units of the hidden layer. For deep1, deep2. Units of each branch. For wide."
    assert f"--num-units N {units} [default: 64]" in page
    assert "--is-frozen / --no-is-frozen Freeze the trunk. For wide." in page


def test_an_option_of_an_option_names_it() -> None:
    page = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "--is-frozen-until LAYER The last frozen layer. With --is-frozen." in page


def test_a_whole_family_has_one_name() -> None:
    names = ["net-18", "net-34", "net-50", "pair-1", "pair-2", "net"]
    kinds: dict[str, type[Any]] = dict.fromkeys(names, Deep)
    decorate = merged_options({**kinds, "net-wide": Wide}, "Model")
    page = CliRunner().invoke(decorate(click.command(lambda **_: None)), ["--help"]).output
    assert "For net-18, net-34, net-50, pair-1, pair-2, net (default" in " ".join(page.split())
    decorate = merged_options({**kinds, "wide": Wide}, "Model")
    page = CliRunner().invoke(decorate(click.command(lambda **_: None)), ["--help"]).output
    assert "For net-*, pair-1, pair-2, net (default" in " ".join(page.split())


def test_values_arrive_under_the_name_of_the_field() -> None:
    result = CliRunner().invoke(command, ["--join", "sum", "--num-units", "3", "--is-frozen"])
    assert result.output == "{'join': 'sum', 'num_units': 3, 'is_frozen': True}\n"
    assert (
        "'min' is not one of avg, max, sum" in CliRunner().invoke(command, ["--join", "min"]).output
    )


def test_options_of_one_name_must_have_one_type() -> None:
    with pytest.raises(TypeError, match=r"option num_units must have one type, .* \(of odd\)"):
        merged_options({"deep": Deep, "odd": Odd}, "Model")
