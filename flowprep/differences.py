"""Finds the differences between two configurations, and words them for users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from flowprep.errors import ConfigMismatchError
from flowprep.words import format_count

__all__ = [
    "Differences",
    "describe_differences",
    "find_differences",
    "find_extraction_differences",
    "flatten",
    "mismatch",
    "show_value",
]

Differences: TypeAlias = dict[str, tuple[Any, Any]]
"""Name of a field -> both values. A side that does not have the field has None."""

_UNSTORED = {"flow.camera_motion": "none"}
"""Values that a configuration does not store."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dicts as one flat dict: `{"flow.step": 1}` for `{"flow": {"step": 1}}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def find_differences(
    one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str] | None = None
) -> Differences:
    """Returns the differences of two flat mappings, sorted by name or in the order of `names`."""
    if names is None:
        names = sorted({*one, *other})
    pairs = {
        name: tuple(side.get(name, _UNSTORED.get(name)) for side in (one, other)) for name in names
    }
    return {name: (first, second) for name, (first, second) in pairs.items() if first != second}


def find_extraction_differences(
    one: Mapping[str, Any], other: Mapping[str, Any], *, sees_flow: bool, is_exact: bool = False
) -> Differences:
    """Returns what two extractions, as flat mappings, give a network differently.

    What counts is the frame rate, size, crop and shape of the pixels. If the network sees flow, the
    algorithm with all its parameters, step, bound and the camera's motion count too. With
    `is_exact`, the interpolation and the quantizer count as well, and `tvl1-opencv` is `tvl1`: both
    compute the same flow.
    """
    names = ["decode.fps", "decode.resize", "decode.crop", "decode.square_pixels"]
    if is_exact:
        names.append("decode.interpolation")
        other = _in_words_of(one, other)
    if sees_flow:
        names += ["flow.algorithm", "flow.step", "flow.bound_px", "flow.camera_motion"]
        names += ["flow.quantizer"] if is_exact else []
        names += sorted(name for name in {*one, *other} if name.startswith("flow.parameters."))
    return find_differences(one, other, names)


def _in_words_of(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `other` with the algorithm and parameters of `one`, as far as they mean the same.

    A native algorithm computes OpenCV's numbers. `stop` only says how it does so.
    """
    algorithms = str(one.get("flow.algorithm")), str(other.get("flow.algorithm"))
    if len({name.removesuffix("-opencv") for name in algorithms}) > 1:
        return dict(other)
    how = {"flow.algorithm", "flow.parameters.stop"}
    return {
        **{name: value for name, value in other.items() if name not in how},
        **{name: value for name, value in one.items() if name in how},
    }


def describe_differences(
    differences: Differences, places: tuple[str, str], max_shown: int | None = None
) -> list[str]:
    """Returns a line for each difference, with both values.

    `places` say where the values are, such as `in the data set` and `in this run`. If there are
    more than `max_shown` differences, a last line counts the others. Another algorithm is one line,
    which counts the parameters that differ with it.
    """
    followers = {name: _followers(name, differences) for name in differences}
    following = {name for names in followers.values() for name in names}
    causes = [name for name in differences if name not in following]
    lines = []
    for name in causes[:max_shown]:
        one, other = differences[name]
        line = f"  {name}: {show_value(one)} {places[0]}, {show_value(other)} {places[1]}"
        if count := len(followers[name]):
            line += f" (and with it {format_count(count, 'parameter')})"
        lines.append(line)
    if len(lines) < len(causes):
        lines.append(f"  ... and {len(causes) - len(lines)} more")
    return lines


def _followers(name: str, differences: Differences) -> list[str]:
    """Returns the differences that follow from this one: the parameters of another algorithm."""
    owner, _, field = name.rpartition(".")
    if field != "algorithm":
        return []
    begin = f"{owner}.parameters." if owner else "parameters."
    return [other for other in differences if other.startswith(begin)]


def mismatch(
    title: str,
    differences: Differences,
    places: tuple[str, str],
    remedy: str,
    *,
    max_shown: int | None = None,
) -> ConfigMismatchError:
    """Returns the error that shows the differences, as `describe_differences` does.

    `title` is a clause without a colon. `remedy` is a sentence.
    """
    lines = describe_differences(differences, places, max_shown)
    return ConfigMismatchError([f"{title}:", *lines, remedy], differences)


def show_value(value: Any) -> str:
    """Returns a value as text for users: a list as its items, None as `nothing`."""
    if isinstance(value, list | tuple):
        return ", ".join(map(show_value, value)) or "nothing"
    return "nothing" if value is None else str(value)
