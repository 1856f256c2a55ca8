"""Writes the tables of docs/networks.md: `python -m tests.learn.networks_table`.

Everything in them follows from `flowprep.learn.networks`, and from the tables of recipes and of
foreign weights, which name the networks that they are for.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from flowprep.learn.clip_inputs import ClipInput, StreamName
from flowprep.learn.create import create_model
from flowprep.learn.models.cost import count_macs, count_parameters
from flowprep.learn.network_entry import Network
from flowprep.learn.network_options import NetworkOptions, NonLocalOptions
from flowprep.learn.networks import NETWORKS
from flowprep.learn.recipes import RECIPES
from flowprep.learn.weights.formats import FOREIGN
from flowprep.words import format_count

__all__ = ["PAGE", "tables", "written_tables"]

PAGE = Path(__file__).parents[2] / "docs/networks.md"
NUM_CLASSES = 101

Table = list[tuple[str, ...]]

FAMILIES = {
    "clips": "one image or one stack of fields at a time",
    "segments": "several stacks of a video together",
    "volumes": "a volume: fields or frames along time",
}


@dataclasses.dataclass(frozen=True)
class System:
    """A system of the field's history, and how flowprep trains it."""

    name: str
    model: str
    stream: StreamName
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def command(self) -> str:
        """The options of `flowprep train`."""
        words = [f"--model {self.model}", f"--stream {self.stream}"]
        for key, value in self.options.items():
            option = f"--{key.replace('_', '-')}"
            words.append(option if value is True else f"{option} {value}")
        return " ".join(words)


SYSTEMS = (
    System("DeepVideo, slow fusion", "deepvideo", "rgb", {"fusion": "slow"}),
    System("DeepVideo, fovea and context", "deepvideo", "rgb", {"fusion": "multiresolution"}),
    System("Two-stream networks, spatial", "cnn-m-2048", "rgb"),
    System("Two-stream networks, temporal", "cnn-m-2048", "flow"),
    System("Beyond short snippets, pooling", "frame-pooling", "rgb", {"pooling": "conv"}),
    System("Beyond short snippets, LSTM", "cnn-lstm", "rgb"),
    System("LRCN", "lrcn", "flow"),
    System("C3D", "c3d", "rgb"),
    System("Very deep two-stream networks", "vgg16", "flow"),
    System("Recurrent convolution (lecture)", "recurrent-cnn", "flow"),
    System("GRU-RCN", "gru-rcn", "rgb"),
    System("Two-stream fusion", "two-stream-fusion", "both"),
    System("TSN", "tsn-bn-inception", "flow"),
    System("I3D", "i3d", "flow"),
    System("Its rivals: CNN and LSTM", "i3d-lstm", "rgb"),
    System("Its rivals: C3D with batch norm", "c3d-bn", "rgb"),
    System("Its rivals: two streams", "inception-v1", "flow"),
    System("Its rivals: fused streams", "i3d-fused", "both"),
    System("R(2+1)D", "r2plus1d-34", "flow"),
    System("Non-local networks", "i3d-resnet50", "rgb", {"non_local": True}),
    System("TSM", "tsm-resnet50", "rgb"),
    System("Representation flow", "representation-flow", "rgb"),
    System("MARS", "resnext101-3d", "rgb"),
    System("SlowOnly", "slow-8x8", "rgb"),
    System("SlowFast", "slowfast-8x8", "rgb"),
    System("GSM", "gsm-inception-v3", "rgb"),
    System("TimeSformer", "timesformer", "rgb"),
)
"""The systems that `docs/networks.md` and the README name, from the oldest on."""


def tables() -> dict[str, str]:
    """Returns each table by its name in the page's comments."""
    made: dict[str, Table] = {name: [*_what(_family(name))] for name in FAMILIES}
    made["systems"] = [*_systems()]
    made["figures"] = [*_figures()]
    made["weights"] = [*_weights()]
    return {name: _markdown(rows) for name, rows in made.items()}


def written_tables() -> dict[str, str]:
    """Returns the tables that the page has: each stands below `<!-- table NAME -->`."""
    found = re.findall(r"<!-- table (\w+) -->\n\n(.*?)\n\n", PAGE.read_text(encoding="utf-8"), re.S)
    return dict(found)


def _markdown(rows: Table) -> str:
    header, *rest = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([header, "|" + "---|" * len(rows[0]), *rest])


def _family(family: str) -> dict[str, Network]:
    def family_of(network: Network) -> str:
        first = next(iter(network.inputs.values()))[0]
        if network.sees == "segments":
            return "segments"
        return "clips" if first.form == "stack" else "volumes"

    return {name: network for name, network in NETWORKS.items() if family_of(network) == family}


def _what(networks: Mapping[str, Network]) -> Iterable[tuple[str, ...]]:
    """Yields what each network is, where it comes from and what it takes."""
    yield "`--model`", "what it is", "paper", "what it takes", "its own options"
    for name, network in networks.items():
        yield (
            f"`{name}`",
            network.description,
            network.paper,
            _inputs(network),
            _options(network.options),
        )


def _figures() -> Iterable[tuple[str, ...]]:
    """Yields the cost of each network, and the accuracy that was published."""
    yield "`--model`", "crop", "parameters", "multiply-adds", "published accuracy"
    for name, network in NETWORKS.items():
        crop = f"{network.crop_px} px"
        yield f"`{name}`", crop, *_cost(name, next(iter(network.inputs))), network.accuracy


def _systems() -> Iterable[tuple[str, ...]]:
    """Yields the history of the field, with the cost of each system."""
    yield (
        *("system", "paper", "`flowprep train`", "parameters", "multiply-adds"),
        "published accuracy",
    )
    for one in SYSTEMS:
        network = NETWORKS[one.model]
        cost = _cost(one.model, one.stream, one.options)
        yield one.name, network.paper, f"`{one.command}`", *cost, network.accuracy


def _weights() -> Iterable[tuple[str, ...]]:
    """Yields the recipes of each network, and the projects whose weights load."""
    yield "`--model`", "weights that load", "`--recipe`"
    for name in NETWORKS:
        projects = dict.fromkeys(
            project
            for form in FOREIGN.values()
            if name in form.networks
            for project in form.project.split(", ")
        )
        recipes = [f"`{recipe}`" for recipe, of in RECIPES.items() if name in of.networks]
        yield f"`{name}`", ", ".join(projects), ", ".join(recipes)


def _inputs(network: Network) -> str:
    """Returns the inputs of each stream, and how many clips of a video go together."""
    streams = [f"{' and '.join(map(_input, inputs))}" for inputs in network.inputs.values()]
    segments = f"{network.num_segments} segments of " if network.sees == "segments" else ""
    return f"{segments}{', or '.join(streams)}"


def _input(one: ClipInput) -> str:
    words = {"flow": "field", "rgb": "frame", "rgb-difference": "difference"}
    count = format_count(one.num_frames, words[one.stream])
    if one.stack_length > 1:
        stack = format_count(one.stack_length, words[one.stream])
        count = f"{stack} at each of {one.num_frames} places"
    if one.frame_stride == 1:
        return count
    about = "about " if one.rate_ratio > 1 else ""
    ordinal = {2: "2nd", 3: "3rd"}.get(one.frame_stride, f"{one.frame_stride}th")
    return f"{count}, {about}every {ordinal}"


def _options(kind: type[NetworkOptions]) -> str:
    """Returns the options of a network. Those of non-local blocks have a section of their own."""
    names = [item.name for item in dataclasses.fields(kind)]
    if issubclass(kind, NonLocalOptions):
        others = {item.name for item in dataclasses.fields(NonLocalOptions)} - {"non_local"}
        names = [name for name in names if name not in others]
    return ", ".join(f"`--{name.replace('_', '-')}`" for name in names)


def _cost(
    name: str, stream: StreamName, options: Mapping[str, object] | None = None
) -> tuple[str, str]:
    """Returns the parameters, and the multiply-adds of one view."""
    crop_px = NETWORKS[name].crop_px
    with torch.device("meta"):
        model = create_model(
            name, stream=stream, num_classes=NUM_CLASSES, crop_px=crop_px, **(options or {})
        )
    clips = (1, NETWORKS[name].num_segments) if model.joins_segments else (1,)
    shapes = [(*clips, *one.shape(crop_px)) for one in model.inputs]
    return f"{count_parameters(model) / 1e6:.1f} M", f"{count_macs(model, *shapes) / 1e9:.1f} G"


def main() -> None:
    """Rewrites the page."""
    text = PAGE.read_text(encoding="utf-8")
    written = written_tables()
    for name, table in tables().items():
        text = text.replace(written[name], table, 1)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
