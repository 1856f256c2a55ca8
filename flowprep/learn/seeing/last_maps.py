"""Finds the last maps of a network: the outputs with a height and a width nearest to the scores.

Every module's output is watched in a pass. From the score, the graph of the pass is followed
backward, and each way ends at the first map it meets. A network of one trunk has one such output. A
network of several towers that meet behind their poolings has one for each tower. So nothing needs
to be known of a network. One whose last maps have another form names modules in `map_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask

__all__ = ["LastMap", "last_maps", "traceable"]


@dataclass(frozen=True)
class LastMap:
    """An output with a height and a width behind which there is none."""

    values: torch.Tensor
    """A module's output, part of the graph. `arrange` makes (B, C, h, w) or (B, C, T, h, w) of it,
    and of its gradient."""
    inputs: tuple[int, ...]
    """The numbers of the network's inputs that it depends on."""
    arrange: Callable[[torch.Tensor], torch.Tensor]
    """The `arrange_maps` of the network that it belongs to."""


@contextmanager
def traceable(model: nn.Module) -> Iterator[None]:
    """Within it, gradients of a network in eval mode reach its input, on every device."""
    # cuDNN's recurrent layers give no gradients in eval mode.
    is_recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    on = torch.backends.cudnn.enabled and not is_recurrent
    with torch.backends.cudnn.flags(enabled=on), torch.enable_grad():
        yield


def last_maps(
    model: ClipModel | MultiTask,
    inputs: Sequence[torch.Tensor],
    run: Callable[[], torch.Tensor],
) -> tuple[torch.Tensor, list[LastMap]]:
    """Returns the result of `run`, a score that the network computes, and the last maps below it.

    `inputs` are the tensors that require gradients, in the order of the network's inputs. Raises
    ConfigError for a network without maps.
    """
    network = model.model if isinstance(model, MultiTask) else model
    owners = _owners(network)
    outputs: list[tuple[torch.Tensor, ClipModel]] = []

    def watch(owner: ClipModel) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, taken: Any, given: Any) -> None:
            if isinstance(given, torch.Tensor) and given.requires_grad:
                shape = owner.arrange_maps(given).shape if owners else given.shape
                if len(shape) in (4, 5) and min(shape[-2:]) > 1:
                    outputs.append((given, owner))

        return keep

    watched = [
        module.register_forward_hook(watch(owners.get(name, network)))
        for name, module in network.named_modules()
        if (name in owners if owners else name)
    ]
    try:
        score = run()
    finally:
        for hook in watched:
            hook.remove()
    # A later layer that works in place changes which node an output belongs to: only now is it
    # known.
    nodes = {one.grad_fn: (one, owner) for one, owner in outputs if one.grad_fn is not None}
    found = [nodes[node] for node in _first_nodes(score, set(nodes))]
    if not found:
        raise ConfigError(
            f"explain needs a network with maps of two or more pixels a side, got "
            f"{type(network).__name__} for a crop of {inputs[0].shape[-1]} px; choose a network of "
            "convolutions, or a larger crop"
        )
    return score, [
        LastMap(one, _inputs_of(one, inputs), owner.arrange_maps) for one, owner in found
    ]


def _owners(network: ClipModel) -> dict[str, ClipModel]:
    """Returns the modules that networks name as their last maps, also networks inside of others."""
    return {
        f"{prefix}.{name}" if prefix else name: module
        for prefix, module in network.named_modules()
        if isinstance(module, ClipModel)
        for name in module.map_layers
    }


def _first_nodes(score: torch.Tensor, wanted: set[Any]) -> list[Any]:
    """Returns the nodes of `wanted` that the ways from a score backward meet first."""
    found, seen, left = [], set(), [score.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in wanted:
            found.append(node)
        else:
            left += [before for before, _ in node.next_functions]
    return found


def _inputs_of(maps: torch.Tensor, inputs: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """Returns the numbers of the inputs that a map depends on."""
    seen, left = set(), [maps.grad_fn]
    met = set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            met.add(id(node.variable))
        left += [before for before, _ in node.next_functions]
    return tuple(number for number, one in enumerate(inputs) if id(one) in met)
