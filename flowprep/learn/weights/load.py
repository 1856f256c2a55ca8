"""Loads weights, from others or from us, into our networks.

`load_weights_into` recognizes the file's format and takes its names to ours
(`flowprep.learn.weights.formats`). It then compares names and shapes with the model's and converts
if needed: RGB into flow (cross-modality), 2D networks into TSN's and into 3D ones (inflation). It
either fills everything that the model needs and reports what became of each tensor, or leaves the
model unchanged.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from flowprep.differences import mismatch
from flowprep.errors import WeightsError
from flowprep.learn.clip_inputs import ChannelOrder
from flowprep.learn.models.base import ClipModel
from flowprep.learn.weights.files import read_file
from flowprep.learn.weights.foreign import rename
from flowprep.learn.weights.formats import FOREIGN, format_of
from flowprep.learn.weights.inflate import fit_kernel
from flowprep.learn.weights.offers import Offer, listed
from flowprep.learn.weights.reading import WeightsFile
from flowprep.printable import join_lines

__all__ = [
    "LoadReport",
    "Match",
    "check_match",
    "classifier_names",
    "fill",
    "input_conv_names",
    "load_weights_into",
    "make_report",
    "match_file",
]

FOREIGN_PREFIXES = ("", "model.", "base.", "model.base.")
"""Possible prefixes of a network's own names in a file: those of our MultiTask and TSN."""
OWN_PREFIXES = ("", "base.", "base.base.")
"""The same prefixes in the model that is loaded into. Its towers have more."""

_MOST = 5
"""How many names of each kind a short report has."""

_COUNTER = "num_batches_tracked"
_NUM_BATCHES = 1000
"""The batch count of a batch norm whose averages come from a file without a count: many."""

_NEUTRAL = (
    (
        re.compile(r"(^|\.)num_batches_tracked$"),
        "a counter of training steps, which older and other files lack",
    ),
    (re.compile(r"\.non_local\."), "a non-local block, which begins as the identity"),
    (
        re.compile(r"^motion\.(log_\w+|\w+_taps)$"),
        "the motion layer, which begins as TV-L1",
    ),
    (re.compile(r"(^|\.)gates\."), "a gate of GSM, which begins closed"),
    (re.compile(r"(^|\.)segment_weight$"), "TSN's weighted consensus, which begins as the average"),
    (re.compile(r"(^|\.)time_embed$"), "the embeddings of time, which begin at zero"),
    *(
        (re.compile(rf"\.{step}_fc\."), "a layer behind one more attention, which begins at zero")
        for step in ("temporal", "local", "width")
    ),
)
"""Tensors that a model does not need from a file if the file has none of their kind."""


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of a file, and of each tensor of the model."""

    source: str
    """The path of the loaded file."""
    loaded: tuple[str, ...]
    """Tensors of the model that the file has with the same name, shape and type."""
    converted: Mapping[str, str]
    """Other tensors of the model that were filled -> their source and conversion."""
    missing: Mapping[str, str]
    """Tensors of the model that stayed unchanged -> the reason. Includes a new classifier."""
    unexpected: tuple[str, ...]
    """Tensors of the file for which the model has no place."""
    format_name: str | None = None
    """The file's format in `formats.FOREIGN`; None for names that were taken as they are."""
    notes: tuple[str, ...] = ()
    """What the names tell about the network that the weights belong to."""

    def summary(self, *, every: bool = False) -> str:
        """Returns lines for the user: counts, and the first names of each kind, or every name."""
        renamed = {name: how for name, how in self.converted.items() if _is_renamed(how)}
        changed = {name: how for name, how in self.converted.items() if name not in renamed}
        words = f"{len(renamed)} renamed, " if renamed else ""
        lines = [
            f"{self.source}: {len(self.loaded)} tensors taken as they are, {words}{len(changed)} "
            f"converted, {len(self.missing)} of the model left as they were, "
            f"{len(self.unexpected)} of the file not used"
        ]
        if self.format_name is not None:
            lines.append(f"  format: {self.format_name} ({FOREIGN[self.format_name].project})")
        lines += [f"  note: {note}" for note in self.notes]
        kinds = (
            *([("taken", list(self.loaded))] if every else []),
            ("renamed", [f"{name} {how}" for name, how in renamed.items()]),
            ("converted", [f"{name} {how}" for name, how in changed.items()]),
            ("left", [f"{name}: {why}" for name, why in self.missing.items()]),
            ("not used", list(self.unexpected)),
        )
        for kind, items in kinds:
            most = len(items) if every or len(items) <= _MOST else _MOST
            lines += [f"  {kind}: {item}" for item in items[:most]]
            if len(items) > most:
                lines.append(f"  {kind}: and {len(items) - most} more")
        return join_lines(lines)


@dataclass(frozen=True)
class Match:
    """What the tensors of a file would become in a model, before anything is changed."""

    format_name: str | None
    """The file's format in `formats.FOREIGN`; None for names that are taken as they are."""
    offers: Mapping[str, Offer]
    """What the file offers for the model's tensors, in the shapes of the file."""
    filled: Mapping[str, Offer]
    """The same in the shapes of the model."""
    missing: Mapping[str, str]
    """Tensors of the model that may stay as they are -> the reason."""
    misfits: Mapping[str, str]
    """Tensors of the model for which the file has something else -> what."""
    absent: tuple[str, ...]
    """Tensors of the model that the file lacks."""
    unexpected: tuple[str, ...]
    """Tensors of the file for which the model has no place."""
    notes: tuple[str, ...]
    """What the names tell about the network that the weights belong to."""

    @property
    def fits(self) -> bool:
        """Whether everything that the model needs is there."""
        return not self.misfits and not self.absent


def load_weights_into(
    model: ClipModel,
    path: str | os.PathLike[str],
    *,
    channel_order: ChannelOrder = "interleaved",
) -> LoadReport:
    """Fills a model with a file's weights, and reports what became of every tensor.

    It accepts equal names and shapes; the names of other projects (`formats.FOREIGN`); a 2D network
    for TSN's base or for a 3D network (kernels are inflated); a first convolution over RGB for one
    over other channels (cross-modality). If the file lacks the classifier or has one for other
    classes, the model keeps its initial classifier. `channel_order` is that of the stacks of flow
    which the model will get.

    Raises WeightsError, and leaves the model unchanged, if anything else that the model needs is
    missing or has another shape, and in all cases in which `read_weights` raises it. Raises
    ConfigMismatchError for a first convolution over stacks in the other order of channels.
    """
    path = Path(path)
    file = read_file(path)
    match = match_file(file, model)
    check_match(path, match, model)
    check_channel_order(file, match, model, channel_order)
    fill(model.state_dict(), match)
    return make_report(path, match)


@torch.no_grad()
def fill(targets: Mapping[str, torch.Tensor], match: Match) -> None:
    """Gives tensors of a model, by name, what a file has for them."""
    for name, offer in match.filled.items():
        targets[name].copy_(offer.value)
    for name in match.missing:
        # With a count of zero, a norm would treat its moving averages as those of no batch.
        if name.endswith(_COUNTER) and name.replace(_COUNTER, "running_mean") in match.filled:
            targets[name].fill_(_NUM_BATCHES)


def make_report(path: Path, match: Match) -> LoadReport:
    """Returns what became, or would become, of each tensor of a file."""
    told = {name: _tell(name, offer) for name, offer in match.filled.items()}
    return LoadReport(
        str(path),
        tuple(name for name, how in told.items() if not how),
        {name: how for name, how in told.items() if how},
        match.missing,
        match.unexpected,
        match.format_name,
        match.notes,
    )


def match_file(file: WeightsFile, model: ClipModel) -> Match:
    """Finds what each tensor of a file would become in a model, and changes nothing.

    The model may be on torch's device `meta`. Raises WeightsError where a file has several networks
    and none is the model's.
    """
    targets: dict[str, torch.Tensor] = model.state_dict()
    found = format_of(file)
    if found is None:
        ours = {name: Offer((name,), value) for name, value in file.tensors.items()}
        left: tuple[str, ...] = ()
    elif found[1].convert is not None:
        ours, left = found[1].convert(file, model)
    else:
        ours, left = rename(found[1], file.tensors)
    offers = _under_prefixes(ours, targets)
    if found is not None and found[1].norm_eps is not None:
        offers = _with_epsilon(offers, model, found[1].norm_eps)
    offers |= {
        name: Offer(offers[other].source, offers[other].value, (*offers[other].how, "copied"))
        for name, other in model.begins_as.items()
        if name not in offers and other in offers
    }
    used = {source for offer in offers.values() for source in offer.source}
    sources = (source for offer in ours.values() for source in offer.source)
    unexpected = (*left, *(source for source in sources if source not in used))

    classifier = classifier_names(model)
    input_convs = input_conv_names(model)
    filled: dict[str, Offer] = {}
    misfits: dict[str, str] = {}
    for name, offer in offers.items():
        try:
            resized = model.resize(name, offer.value)
            if resized is not None:
                told = f"resized from {_size(offer.value)} to {_size(resized)}"
                offer = Offer(offer.source, resized, (*offer.how, told))
            filled[name] = _fit(offer, targets[name], is_input=name in input_convs)
        except _MisfitError as error:
            others = [source for source in offer.source if source != name]
            misfits[name] = ", ".join([*(f"from {source}" for source in others), str(error)])

    missing: dict[str, str] = {}
    if not classifier <= filled.keys():
        reason = next(
            (f"a new classifier: {misfits[n]}" for n in sorted(classifier & misfits.keys())),
            "a new classifier: the file has none, or not all of it",
        )
        for name in sorted(classifier):
            missing[name] = reason
            misfits.pop(name, None)
            filled.pop(name, None)
            unexpected += offers[name].source if name in offers else ()
    absent = [name for name in targets if name not in filled and name not in missing | misfits]
    for pattern, reason in _NEUTRAL:
        if not any(pattern.search(name) for name in offers):
            missing |= {name: reason for name in absent if pattern.search(name)}
    for part in model.new_layers:
        if not any(name.startswith(f"{part}.") for name in offers):
            reason = "a layer above the trunk, which begins anew: the file has none"
            missing |= {name: reason for name in absent if name.startswith(f"{part}.")}
    return Match(
        found and found[0],
        offers,
        filled,
        missing,
        misfits,
        tuple(name for name in absent if name not in missing),
        unexpected,
        () if found is None else found[1].told_of(file.tensors),
    )


def check_match(path: Path, match: Match, model: ClipModel) -> None:
    """Raises WeightsError where a file cannot fill a model."""
    if match.fits:
        return
    num_targets = len(model.state_dict())
    if match.misfits:
        items = listed(f"{name} ({why})" for name, why in match.misfits.items())
        told = f"{len(match.misfits)} of the model's {num_targets} tensors are others in the file"
        told = f"{told}: {items}"
    else:
        told = (
            f"{len(match.absent)} of the model's {num_targets} tensors are missing: "
            f"{listed(match.absent)}; the file has besides: {listed(match.unexpected)}"
        )
    found = ""
    if match.format_name is not None:
        form = FOREIGN[match.format_name]
        found = (
            f"The file holds {form.description} ({form.project}), for {', '.join(form.networks)}: "
            f"the model is {type(model).__name__}. "
        )
    raise WeightsError(
        f"{path}: {told}. {found}Load weights of the same architecture, or make the model with the "
        "same options"
    )


def check_channel_order(
    file: WeightsFile, match: Match, model: ClipModel, channel_order: ChannelOrder
) -> None:
    """Raises ConfigMismatchError for kernels over flow whose channels stand in another order.

    A kernel of another number of channels was averaged over them, so that their order is gone.
    """
    has_stacks = any(one.has_stacks for one in model.inputs)
    if file.channel_order == channel_order or not has_stacks:
        return
    taken = [
        name
        for name in input_conv_names(model) & match.filled.keys()
        if match.filled[name].value.shape[1] == match.offers[name].value.shape[1]
    ]
    if taken:
        raise mismatch(
            f"The weights in {file.path} are for stacks of flow in another order of channels",
            {"clip.channel_order": (file.channel_order, channel_order)},
            ("in the weights", "here"),
            f"Give --channel-order {file.channel_order}, or other weights.",
        )


class _MisfitError(Exception):
    """Why a tensor of a file cannot become a tensor of the model."""


def _fit(offer: Offer, target: torch.Tensor, *, is_input: bool) -> Offer:
    """Returns the offer in the target's shape and type; raises _MisfitError if this fails."""
    value, how = offer.value, list(offer.how)
    if value.dtype != target.dtype:
        if value.is_floating_point() != target.is_floating_point() or value.is_complex():
            raise _MisfitError(f"{value.dtype} in the file, {target.dtype} in the model")
        how.append(f"{value.dtype} to {target.dtype}")
    before = tuple(value.shape)
    value, changes = fit_kernel(value, target.shape, sees_clip=is_input)
    how += changes
    if value.shape != target.shape:
        raise _MisfitError(f"shape {before} in the file, {tuple(target.shape)} in the model")
    return Offer(offer.source, value, tuple(how))


def _size(value: torch.Tensor) -> str:
    return "x".join(map(str, value.shape))


def _under_prefixes(
    ours: Mapping[str, Offer], targets: Mapping[str, torch.Tensor]
) -> dict[str, Offer]:
    """Returns the offers for the model's tensors, by the prefixes with the most matches."""
    pairs = max(
        (
            {own + name.removeprefix(foreign): name for name in ours if name.startswith(foreign)}
            for foreign in FOREIGN_PREFIXES
            for own in OWN_PREFIXES
        ),
        key=lambda names: len(names.keys() & targets.keys()),
    )
    return {name: ours[theirs] for name, theirs in pairs.items() if name in targets}


def _with_epsilon(
    offers: Mapping[str, Offer], model: ClipModel, epsilon: float
) -> dict[str, Offer]:
    """Returns the offers with variances that, with the epsilon of the model's batch norms, scale
    as the file's do with their own."""
    changed = dict(offers)
    for name, module in model.named_modules():
        offer = offers.get(f"{name}.running_var")
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if offer is not None and is_norm and module.eps != epsilon:
            told = f"epsilon {epsilon:g} to {module.eps:g}, the difference added"
            value = offer.value + (epsilon - module.eps)
            changed[f"{name}.running_var"] = Offer(offer.source, value, (*offer.how, told))
    return changed


def classifier_names(model: ClipModel) -> frozenset[str]:
    """Returns the names of the tensors that `replace_classifier` would replace."""
    before = dict(_named_tensors(model))
    # The copy shares all tensors with the model. A tensor that differs afterwards was replaced.
    probe = copy.deepcopy(model, {id(tensor): tensor for tensor in before.values()})
    with torch.random.fork_rng(devices=[]):
        probe.replace_classifier(1)
    after = dict(_named_tensors(probe))
    return frozenset(name for name, tensor in before.items() if after.get(name) is not tensor)


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def input_conv_names(model: ClipModel) -> frozenset[str]:
    """Returns the names of the weights that see the clip: for each input, the first convolution
    with that number of channels."""
    left = list(model.input_channels)
    found = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.in_channels in left:
            left.remove(module.in_channels)
            found.add(f"{name}.weight")
    return frozenset(found)


def _tell(name: str, offer: Offer) -> str:
    """Returns what was done to a tensor; empty if the tensor was taken unchanged."""
    return ", ".join([*(f"from {source}" for source in offer.source if source != name), *offer.how])


def _is_renamed(how: str) -> bool:
    """Whether a tensor has another name in the file and the same value."""
    return re.fullmatch(r"from \S+", how) is not None
