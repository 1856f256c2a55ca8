"""A network that gives features: from a file of weights to the numbers of each window.

    NetworkSource -> load -> FeatureNetwork          one layer of one network
    WindowFeatures                                   the windows of a video, a few at a time

A source is small and can be pickled, so that each worker loads its own network.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flowprep.errors import ConfigError, WeightsError
from flowprep.learn.checkpoint import load_checkpoint, restore_model
from flowprep.learn.clip_inputs import ClipInput, RecipeName, StreamName
from flowprep.learn.clips.windows import WindowClips
from flowprep.learn.config import ClipSpec
from flowprep.learn.create import create_model
from flowprep.learn.features_config import POOL, FeatureSpec
from flowprep.learn.forward import arrange_clips
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.network_options import NetworkOptions
from flowprep.learn.networks import clip_inputs
from flowprep.learn.placement import autocast, place_model
from flowprep.learn.training_specs import PrecisionName
from flowprep.learn.weights.files import tensorflow_prefix
from flowprep.learn.weights.load import LoadReport, load_weights_into

__all__ = [
    "FeatureNetwork",
    "NetworkSource",
    "WindowFeatures",
    "check_layer",
    "file_sha256",
    "load_networks",
    "worker_networks",
]

_CHUNK_VALUES = 2**24
"""Input values per pass, 64 MB, as in a test: 16 stacks of 20 x 224 x 224, 2 volumes of 64."""
_NUM_CLASSES = 400
"""Classes of the classifier over foreign weights, Kinetics' number. Features do not need one."""
_MAX_SHOWN_LAYERS = 60


@dataclass(frozen=True)
class NetworkSource:
    """Where a network comes from, and what it sees."""

    model: str
    """Name of the network."""
    file: str
    """Path of the checkpoint or of the weights, the same on every machine of a run."""
    sha256: str
    """Checksum of the file."""
    is_checkpoint: bool
    """Whether it is a checkpoint of flowprep. Otherwise it is a file of weights."""
    clip: ClipSpec
    recipe: RecipeName | None = None
    """The recipe by which foreign weights were trained. None if it is not known."""
    options: NetworkOptions | None = None
    """The network's own options. None stands for its defaults."""

    @property
    def stream(self) -> StreamName:
        """What the network sees: `flow`, `rgb` or `both`. It is also the name of its features."""
        return self.clip.stream

    @property
    def inputs(self) -> tuple[ClipInput, ...]:
        """What the network takes from each window."""
        clip = self.clip
        return clip_inputs(
            self.model, clip.stream, clip.num_frames, clip.frame_stride, self.options
        )

    def load(self) -> tuple[ClipModel | MultiTask, LoadReport | None]:
        """Returns the network on the CPU, in eval mode, and what became of foreign weights.

        Raises WeightsError for weights that do not fit, and for a file that has changed since.
        """
        if (now := file_sha256(self.file)) != self.sha256:
            raise WeightsError(
                f"{self.file} is another file than when the run began (SHA-256 {now[:12]} instead "
                f"of {self.sha256[:12]}); every machine needs the same file at this path"
            )
        if self.is_checkpoint:
            checkpoint = load_checkpoint(self.file)
            config = dataclasses.replace(checkpoint.config, clip=self.clip)
            return restore_model(dataclasses.replace(checkpoint, config=config)), None
        model = create_model(
            self.model,
            stream=self.clip.stream,
            num_classes=_NUM_CLASSES,
            num_frames=self.clip.num_frames,
            frame_stride=self.clip.frame_stride,
            crop_px=self.clip.crop_px,
            **({} if self.options is None else dataclasses.asdict(self.options)),
        )
        report = load_weights_into(model, self.file)
        guessed = next((how for how in report.converted.values() if "cross-modality" in how), None)
        if guessed is not None:
            raise WeightsError(
                f"{self.file} holds weights for RGB, and stream {self.clip.stream} needs others: a "
                "network that only begins from them has no features yet; give weights of this "
                "stream, or --stream rgb"
            )
        return model.eval(), report


def file_sha256(path: str) -> str:
    """Returns the SHA-256 of a file; of a TensorFlow checkpoint, that of its index.

    Raises WeightsError if it cannot be read.
    """
    prefix = tensorflow_prefix(Path(path))
    try:
        with open(path if prefix is None else f"{prefix}.index", "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WeightsError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error
    return digest.hexdigest()


class FeatureNetwork:
    """A network on its device, and the layer whose output is taken."""

    def __init__(
        self,
        model: ClipModel | MultiTask,
        device: str | torch.device,
        *,
        layer: str = POOL,
        maps: bool = False,
        precision: PrecisionName = "fp32",
    ) -> None:
        """Raises ConfigError for a layer that the network does not have, and for TSM."""
        if model.mixes_segments:
            raise ConfigError(
                f"features are those of single clips, but this network looks at "
                f"{model.num_segments} clips of a video together; choose another network, such as "
                "tsn-resnet50"
            )
        self.model = model.eval()
        self.device = torch.device(device)
        self.maps = maps
        self.precision: PrecisionName = precision
        self._layer = layer
        self._module = None if layer == POOL else check_layer(model, layer)
        place_model(model, self.device)

    def __call__(self, clips: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns features (N, C), or maps (N, C, ...), float32 on the CPU.

        `clips` are (N, C, ...) for each input of the network.
        """
        placed = [one.unsqueeze(1).to(self.device, non_blocking=True) for one in clips]
        arranged = arrange_clips(self.model, placed)
        with torch.inference_mode(), autocast(self.device, self.precision):
            if self._module is None:
                features = self.model.extract_features(*arranged)
                if self.model.joins_segments:
                    features = features.squeeze(1)
            else:
                features = self._output_of(self._module, arranged)
        features = features.float()
        if features.dim() > 2 and not self.maps:
            features = features.flatten(2).mean(2)
        return features.cpu()

    def _output_of(self, module: nn.Module, clips: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns the output of a module in a pass through the whole network."""
        outputs: list[Any] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # A copy, as an activation in place may follow.
            outputs.append(output.clone() if isinstance(output, torch.Tensor) else output)

        handle = module.register_forward_hook(keep)
        try:
            self.model(*clips)
        finally:
            handle.remove()
        found = outputs[-1] if outputs else None
        if not isinstance(found, torch.Tensor) or found.dim() < 2 or len(found) != len(clips[0]):
            raise ConfigError(
                f"layer {self._layer} gives no features of each clip; choose another layer, such "
                "as pool"
            )
        return found


def check_layer(model: nn.Module, layer: str) -> nn.Module:
    """Returns the module with this name. The ConfigError for an unknown name lists the choices."""
    modules: dict[str, nn.Module] = {name: module for name, module in model.named_modules() if name}
    if layer in modules:
        return modules[layer]
    # A wrapper of several tasks or of segments puts its own name before those of the network.
    for prefix in ("base.", "model.", "model.base."):
        if prefix + layer in modules:
            return modules[prefix + layer]
    top = [name for name in modules if name.count(".") == 0]
    parts = [name for name in modules if name.count(".") == 1]
    shown = [*top, *parts][:_MAX_SHOWN_LAYERS]
    more = f" and {len(modules) - len(shown)} more" if len(shown) < len(modules) else ""
    close = get_close_matches(layer, modules, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ConfigError(
        f"layer must be {POOL} or one of {', '.join(shown)}{more}, got {layer!r}{hint}"
    )


def load_networks(
    sources: tuple[NetworkSource, ...], spec: FeatureSpec, device: str
) -> tuple[FeatureNetwork, ...]:
    """Returns the networks on a device, with the layer that `spec` names."""
    return tuple(
        FeatureNetwork(
            source.load()[0],
            device,
            layer=spec.layer,
            maps=spec.maps,
            precision=spec.precision,
        )
        for source in sources
    )


worker_networks = functools.lru_cache(maxsize=1)(load_networks)
"""The networks of a worker, which serve all of its videos."""


class WindowFeatures:
    """Passes the windows of one video through all networks, a few at a time.

    How many at a time depends on the networks alone, so the features of a video never depend on
    other videos or on the number of workers.
    """

    def __init__(
        self,
        networks: Sequence[FeatureNetwork],
        streams: Sequence[str],
        clips: WindowClips,
        on_pass: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_pass` is called after each pass through a network."""
        self._networks = networks
        self._streams = streams
        self._clips = clips
        self._on_pass = on_pass
        shapes = clips.shapes
        self._sizes = [
            max(1, _CHUNK_VALUES // sum(int(np.prod(shapes[name][1:])) for name in names))
            for names in clips.names
        ]
        self._waiting: list[list[Sequence[torch.Tensor]]] = [[] for _ in networks]
        self._rows: list[list[torch.Tensor]] = [[] for _ in networks]

    def add(self, views: Mapping[str, NDArray[np.float32] | torch.Tensor]) -> None:
        """Takes the clips of the next window, which `WindowClips.read` returned."""
        for number, names in enumerate(self._clips.names):
            self._waiting[number].append([torch.as_tensor(views[name]) for name in names])
            num_views = len(self._waiting[number]) * self._clips.num_crops
            if num_views >= self._sizes[number]:
                self._run(number)

    def finish(self) -> dict[str, NDArray[np.float32]]:
        """Returns the features of all windows: stream -> (windows, C, ...) float32."""
        for number, waiting in enumerate(self._waiting):
            if waiting:
                self._run(number)
        return {
            stream: torch.cat(rows).numpy()
            for stream, rows in zip(self._streams, self._rows, strict=True)
        }

    def _run(self, number: int) -> None:
        waiting, self._waiting[number] = self._waiting[number], []
        tensors = [torch.cat(parts) for parts in zip(*waiting, strict=True)]
        size = self._sizes[number]
        found = []
        for begin in range(0, len(tensors[0]), size):
            found.append(self._networks[number]([one[begin : begin + size] for one in tensors]))
            self._on_pass()
        features = torch.cat(found)
        if self._clips.num_crops > 1:
            shape = (len(waiting), self._clips.num_crops, *features.shape[1:])
            features = features.view(shape).double().mean(1).float()
        self._rows[number].append(features)
