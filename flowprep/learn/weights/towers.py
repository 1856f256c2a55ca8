"""Starts a network of several towers from the weights of networks of one stream."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from flowprep.errors import WeightsError
from flowprep.learn.clip_inputs import ChannelOrder
from flowprep.learn.models.base import ClipModel
from flowprep.learn.weights.files import read_file
from flowprep.learn.weights.load import (
    FOREIGN_PREFIXES,
    LoadReport,
    Match,
    check_channel_order,
    check_match,
    fill,
    load_weights_into,
    make_report,
    match_file,
)
from flowprep.learn.weights.offers import Offer

__all__ = ["start_from"]


def start_from(
    model: ClipModel,
    weights: str | os.PathLike[str],
    *,
    channel_order: ChannelOrder = "interleaved",
) -> LoadReport:
    """Fills a model with weights, as `load_weights_into` does, or each of its towers.

    For a model of towers (`ClipModel.whole_towers`), `weights` may name a file for each tower, with
    commas between them, in the order of the model's inputs. One file that holds no towers starts
    all of them. What a tower does not have is not used; a layer that sees the maps of two towers
    begins as that of their mean; all else of the model stays as it is.

    `channel_order` is that of the stacks of flow which the model will get.

    Raises WeightsError, and leaves the model unchanged, if a file does not fit its tower.
    """
    if not (towers := model.whole_towers):
        return load_weights_into(model, weights, channel_order=channel_order)
    names = [os.fspath(weights)]
    if "," in names[0] and not os.path.exists(names[0]):
        names = names[0].split(",")
    if len(names) == 1:
        tensors = read_file(Path(names[0])).tensors
        own = tuple(f"{prefix}{tower}." for prefix in FOREIGN_PREFIXES for tower in towers)
        if any(name.startswith(own) for name in tensors):
            return load_weights_into(model, weights, channel_order=channel_order)
        names *= len(towers)
    if len(names) != len(towers):
        raise WeightsError(
            f"weights must be one file, or {len(towers)} with commas between them, for "
            f"{' and '.join(towers)}, got {len(names)}: {os.fspath(weights)}"
        )
    return _load_towers(model, towers, [Path(name) for name in names], channel_order)


def _load_towers(
    model: ClipModel,
    towers: Mapping[str, Callable[[], ClipModel]],
    paths: list[Path],
    channel_order: ChannelOrder,
) -> LoadReport:
    targets: dict[str, torch.Tensor] = model.state_dict()
    parts: list[tuple[dict[str, torch.Tensor], Match, LoadReport]] = []
    for (tower, build), path in zip(towers.items(), paths, strict=True):
        with torch.device("meta"):
            whole = build()
        file = read_file(path)
        match = match_file(file, whole)
        check_match(path, match, whole)
        check_channel_order(file, match, whole, channel_order)
        own = {
            name.removeprefix(f"{tower}."): target
            for name, target in targets.items()
            if name.startswith(f"{tower}.")
        }
        match = _of_what_is_there(match, own)
        parts.append((own, match, _renamed(make_report(path, match), tower)))
    for own, match, _ in parts:
        fill(own, match)
    reports = [report for *_, report in parts]
    missing = {name: why for report in reports for name, why in report.missing.items()}
    rest = {name for name in targets if not name.startswith(tuple(f"{one}." for one in towers))}
    missing |= dict.fromkeys(sorted(rest), "not of a tower, so it begins new")
    return LoadReport(
        ", ".join(dict.fromkeys(report.source for report in reports)),
        tuple(name for report in reports for name in report.loaded),
        {name: how for report in reports for name, how in report.converted.items()},
        missing,
        tuple(name for report in reports for name in report.unexpected),
        reports[0].format_name,
        tuple(dict.fromkeys(note for report in reports for note in report.notes)),
    )


def _of_what_is_there(match: Match, targets: Mapping[str, torch.Tensor]) -> Match:
    """Returns the match of a whole network, for what a tower has of it."""
    filled = {}
    unexpected = list(match.unexpected)
    for name, offer in match.filled.items():
        if name not in targets:
            unexpected += offer.source
        elif targets[name].shape != offer.value.shape:
            twice = torch.cat([offer.value, offer.value], 1) / 2
            filled[name] = Offer(offer.source, twice, (*offer.how, "for the mean of two maps"))
        else:
            filled[name] = offer
    missing = {name: why for name, why in match.missing.items() if name in targets}
    return dataclasses.replace(match, filled=filled, missing=missing, unexpected=tuple(unexpected))


def _renamed(report: LoadReport, tower: str) -> LoadReport:
    """Returns a report with the names of the whole model."""
    return dataclasses.replace(
        report,
        loaded=tuple(f"{tower}.{name}" for name in report.loaded),
        converted={f"{tower}.{name}": how for name, how in report.converted.items()},
        missing={f"{tower}.{name}": why for name, why in report.missing.items()},
    )
