from __future__ import annotations

import pytest

from flowprep.differences import (
    describe_differences,
    find_differences,
    flatten,
    mismatch,
    show_value,
)
from flowprep.errors import ConfigMismatchError


def test_nested_values_become_one_level() -> None:
    nested = {"flow": {"step": 1, "parameters": {"scale": 0.5}}, "resize": None}
    assert flatten(nested) == {"flow.step": 1, "flow.parameters.scale": 0.5, "resize": None}


def test_what_only_one_side_has_differs() -> None:
    found = find_differences({"b": 1, "a": 2, "same": 3}, {"same": 3, "a": 2.5, "c": None})
    # A field that is None says as much as one that is not there.
    assert found == {"a": (2, 2.5), "b": (1, None)}
    assert list(found) == ["a", "b"]


def test_named_fields_keep_their_order() -> None:
    found = find_differences({"b": 1, "a": 2, "c": 3}, {}, ["c", "a"])
    assert list(found.items()) == [("c", (3, None)), ("a", (2, None))]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "nothing"), (20.0, "20.0"), (False, "False"), (("x", "y"), "x, y"), ([], "nothing")],
)
def test_values_are_shown(value: object, text: str) -> None:
    assert show_value(value) == text


def test_an_error_shows_both_values_of_every_difference() -> None:
    differences = {f"field {n}": (n, -n) for n in range(30)}
    error = mismatch("It differs", differences, ("here", "there"), "Choose.")
    assert isinstance(error, ConfigMismatchError)
    assert error.differences == differences
    lines = str(error).splitlines()
    assert lines[0] == "It differs:"
    assert lines[1:-1] == [f"  field {n}: {n} here, {-n} there" for n in range(30)]
    assert lines[-1] == "Choose."


def test_differences_that_are_too_many_are_counted() -> None:
    lines = describe_differences({str(n): (n, None) for n in range(5)}, ("here", "there"), 2)
    assert lines == ["  0: 0 here, nothing there", "  1: 1 here, nothing there", "  ... and 3 more"]


def test_another_algorithm_is_one_line_and_counts_its_parameters() -> None:
    differences = {
        "flow.algorithm": ("tvl1", "dis"),
        **{f"flow.parameters.{name}": (1, None) for name in "abcdefghij"},
        "flow.step": (1, 2),
    }
    lines = describe_differences(differences, ("here", "there"))
    assert lines == [
        "  flow.algorithm: tvl1 here, dis there (and with it 10 parameters)",
        "  flow.step: 1 here, 2 there",
    ]
    # Parameters of one algorithm are differences of their own.
    del differences["flow.algorithm"]
    assert len(describe_differences(differences, ("here", "there"))) == 11
