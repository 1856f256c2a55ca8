"""What a run computes: frozen dataclasses that check themselves, and the published recipes.

The whole `ExtractConfig` is stored in the data set (`dataset.json`). A later run with another
`ExtractConfig` is refused. `RunOptions` says how a run is carried out (workers, retries). It never
changes a number.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from flowprep.errors import ConfigError
from flowprep.flow.devices import parse_device
from flowprep.flow.parameters import (
    DIRECTIONS,
    PARAMETERS,
    Direction,
    FlowParameters,
    OwnParameters,
    check_algorithm,
    is_own,
)
from flowprep.frame_size import CenterCrop, Resize

__all__ = [
    "DIRECTIONS",
    "CenterCrop",
    "DecodeSpec",
    "Direction",
    "EncodeSpec",
    "ExtractConfig",
    "FlowSpec",
    "Resize",
    "RunOptions",
    "build_spec",
    "check_choice",
    "parse_memory",
]

DecoderName = Literal["pyav", "decord"]
Interpolation = Literal["area", "bilinear", "bicubic"]
Quantizer = Literal["round", "floor", "centered"]
OnDamage = Literal["fail", "cut", "conceal"]
OnGaps = Literal["fail", "ignore"]
CameraMotion = Literal["none", "homography"]
ExecutorName = Literal["auto", "ray", "process", "inline"]

MIN_WORKER_MEMORY_BYTES = 200_000_000
"""A worker holds about half of it before its first video: 93 MB, as `resident_bytes` measures."""


def check_choice(name: str, value: object, literal: object) -> None:
    """Raises ConfigError unless `value` is one of the values of `literal`, a Literal."""
    choices = get_args(literal)
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_at_least(spec: object, least: float, *names: str) -> None:
    """Raises ConfigError unless each named field of `spec` is None or at least `least`."""
    for name in names:
        value = getattr(spec, name)
        if value is not None and not value >= least:
            raise ConfigError(f"{name} must be >= {least:g}, got {value}")


_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kMGT]?)(i?)B?", re.IGNORECASE)


def parse_memory(text: str) -> int | None:
    """Reads an amount of memory such as `2GB`, `512MB` or `1.5GiB`, in bytes; None for no limit.

    `none` and `0` mean no limit. Raises ConfigError for what is no amount of memory.
    """
    if text.lower() in ("none", "0"):
        return None
    found = _MEMORY.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"worker_memory must be auto, none or an amount such as 2GB or 512MB, got {text!r}"
        )
    number, unit, binary = found.groups()
    base = 1024 if binary else 1000
    size = int(float(number) * base ** " kmgt".index(unit.lower() or " "))
    if size < MIN_WORKER_MEMORY_BYTES:
        raise ConfigError(
            f"worker_memory must be at least 200MB, because an idle worker holds half of it; got "
            f"{text!r}"
        )
    return size


@dataclass(frozen=True)
class DecodeSpec:
    """How a file becomes frames.

    The order is: decode, rotate, sample, resize, crop, convert to gray.
    """

    decoder: DecoderName = "pyav"
    """The library that decodes. Both give identical frames, except for MPEG-4 part 2 (old AVI
    files), where some pixels differ by one or two levels. Use one decoder for a whole data set."""
    fps: float | None = None
    """Frames per second to sample, by time stamps. `source` keeps every frame."""
    resize: Resize = field(default_factory=Resize)
    """Size of the stored frames. Flow is in pixels of this size."""
    interpolation: Interpolation = "area"
    """How frames are resized. `area` averages when shrinking and is bilinear when enlarging."""
    allow_upscale: bool = False
    """Enlarge videos that are smaller than `resize` asks for. Otherwise they keep their size."""
    crop: CenterCrop | None = None
    """Keep only the box of this size in the middle of each resized frame, before the flow is
    computed. By default whole frames are kept, or what the preset says."""
    on_damage: OnDamage = "fail"
    """What happens to a damaged video. `fail`: store nothing and list it in failures.jsonl. `cut`:
    keep the part before the damage. `conceal`: keep all pictures; the decoder fills in what is
    damaged."""
    video_stream: int | None = None
    """The stream to take, by ffmpeg's number. The default is the stream that players show."""
    square_pixels: bool = False
    """Resample pictures so that their pixels become square, as players do."""
    image_fps: float | None = None
    """Frame rate of folders of images. It is needed to sample frames, and for ranges in seconds."""
    on_gaps: OnGaps = "fail"
    """What happens to a folder of images whose numbers have gaps. `fail`: store nothing and list it
    in failures.jsonl. `ignore`: use the images as if they had no gaps."""

    def __post_init__(self) -> None:
        check_choice("decoder", self.decoder, DecoderName)
        check_choice("interpolation", self.interpolation, Interpolation)
        check_choice("on_damage", self.on_damage, OnDamage)
        check_choice("on_gaps", self.on_gaps, OnGaps)
        for name in ("fps", "image_fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1000:
                raise ConfigError(f"{name} must be > 0 and <= 1000, got {value}")
        self._check_crop()
        if self.video_stream is not None and self.video_stream < 0:
            raise ConfigError(f"video_stream must be >= 0, got {self.video_stream}")
        if self.on_damage == "conceal" and self.decoder == "decord":
            raise ConfigError(
                "on_damage conceal needs decoder pyav, got decord: decord repeats earlier pictures "
                "in place of damaged pictures and does not say so; take --decoder pyav"
            )

    def describe_size(self) -> str:
        """Returns the resize and the crop as words, such as `171x128, crop 112`."""
        return str(self.resize) if self.crop is None else f"{self.resize}, crop {self.crop}"

    def _check_crop(self) -> None:
        """Raises ConfigError for a crop that no frame of this size can hold."""
        if self.crop is None:
            return
        resize, crop = self.resize, self.crop
        sides = {
            "none": (),
            "short": ((min(crop.width_px, crop.height_px), resize.short_px),),
            "height": ((crop.height_px, resize.height_px),),
            "exact": ((crop.width_px, resize.width_px), (crop.height_px, resize.height_px)),
        }[resize.mode]
        if any(side > most for side, most in sides if most is not None):
            raise ConfigError(
                f"crop must lie within the resized frames, got {crop} with resize {resize}; take a "
                "smaller crop or a larger resize"
            )


@dataclass(frozen=True)
class FlowSpec:
    """What a stored level means: algorithm, step, bound and quantizer."""

    algorithm: str = "tvl1"
    """A name in `flowprep.flow.parameters.PARAMETERS`, or `package.module:Class` for an estimator
    of your own."""
    parameters: FlowParameters | Mapping[str, Any] | None = None
    """The algorithm's parameters. None is replaced by the algorithm's defaults. For an estimator of
    your own, give a mapping of names to values; a run adds the estimator's defaults."""
    step: int = 1
    """Flow goes from frame t to frame t + step."""
    bound_px: float = 20.0
    """Longest x and y component in pixels. Longer components are clipped to the bound. Then all are
    stored as 256 levels."""
    quantizer: Quantizer = "round"
    """How pixels become levels. `round`: as denseflow. `floor`: as MediaPipe. `centered`: 0 px
    stays exactly 0 px."""
    camera_motion: CameraMotion = "none"
    """What happens to the camera's motion. `none`: it is a part of the flow. `homography`: it is
    taken out of each pair of frames before the flow is computed (warped flow). Pairs in which it
    cannot be found are left as they are, and a note counts them."""

    def __post_init__(self) -> None:
        check_algorithm(self.algorithm)
        check_choice("camera_motion", self.camera_motion, CameraMotion)
        check_choice("quantizer", self.quantizer, Quantizer)
        if not isinstance(self.step, int) or self.step < 1:
            raise ConfigError(f"step must be an integer >= 1, got {self.step}")
        if not self.bound_px > 0:
            raise ConfigError(f"bound_px must be > 0, got {self.bound_px:g}")
        if self.bound_px > 10000:
            raise ConfigError(f"bound_px must be <= 10000, got {self.bound_px:g}")
        kind: type[Any] = OwnParameters
        if not is_own(self.algorithm):
            kind = PARAMETERS[self.algorithm]
        elif isinstance(self.parameters, Mapping):
            object.__setattr__(self, "parameters", OwnParameters.of(self.parameters))
        if self.parameters is None:
            object.__setattr__(self, "parameters", kind())
        elif type(self.parameters) is not kind:
            raise ConfigError(
                f"algorithm {self.algorithm} takes {kind.__name__}, "
                f"got {type(self.parameters).__name__}"
            )

    @property
    def center_level(self) -> float:
        """The level that decodes to exactly 0 px: 127.5 (round), 127 (floor), 128 (centered)."""
        return {"round": 127.5, "floor": 127.0, "centered": 128.0}[self.quantizer]

    @property
    def zero_level(self) -> int:
        """The level that stores 0 px and every invalid value: 128, 127 or 128."""
        return {"round": 128, "floor": 127, "centered": 128}[self.quantizer]

    @property
    def px_per_level(self) -> float:
        """The distance between two levels, in px."""
        return self.bound_px / 128 if self.quantizer == "centered" else 2 * self.bound_px / 255


@dataclass(frozen=True)
class EncodeSpec:
    """Which streams are stored, and how."""

    directions: tuple[Direction, ...] = DIRECTIONS
    """`forward` flow goes from frame t to frame t + step, `backward` flow from t + step to t."""
    keep_rgb: bool = True
    """Store the RGB frames too, in the same size as the flow."""
    jpeg_quality: int = 95
    """JPEG quality of the flow, 1 to 100."""
    rgb_jpeg_quality: int = 90
    """JPEG quality of the RGB frames, 1 to 100."""
    videos_per_shard: int = 100
    """Videos per tar file. This may change from run to run."""

    def __post_init__(self) -> None:
        if not self.directions or not set(self.directions) <= set(DIRECTIONS):
            raise ConfigError(
                f"directions must name {', '.join(DIRECTIONS)} or both, got {self.directions!r}"
            )
        ordered = tuple(name for name in DIRECTIONS if name in self.directions)
        object.__setattr__(self, "directions", ordered)
        for name in ("jpeg_quality", "rgb_jpeg_quality", "videos_per_shard"):
            if not isinstance(getattr(self, name), int):
                raise ConfigError(f"{name} must be an integer, got {getattr(self, name)!r}")
        for name in ("jpeg_quality", "rgb_jpeg_quality"):
            if not 1 <= getattr(self, name) <= 100:
                raise ConfigError(f"{name} must be from 1 to 100, got {getattr(self, name)}")
        if self.videos_per_shard < 1:
            raise ConfigError(f"videos_per_shard must be >= 1, got {self.videos_per_shard}")


@dataclass(frozen=True)
class ExtractConfig:
    """Everything that decides the numbers and bytes of a data set."""

    decode: DecodeSpec = field(default_factory=DecodeSpec)
    flow: FlowSpec = field(default_factory=FlowSpec)
    encode: EncodeSpec = field(default_factory=EncodeSpec)

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as JSON values. `from_dict` is the inverse."""
        values = dataclasses.asdict(self)
        values["decode"]["resize"] = str(self.decode.resize)
        if self.decode.crop is None:
            # Data that has no crop is stored as before there were crops.
            del values["decode"]["crop"]
        else:
            values["decode"]["crop"] = str(self.decode.crop)
        values["encode"]["directions"] = list(self.encode.directions)
        if isinstance(self.flow.parameters, OwnParameters):
            values["flow"]["parameters"] = self.flow.parameters.values
        values["flow"]["center_level"] = self.flow.center_level
        if self.flow.camera_motion == "none":
            # Flow that keeps the camera's motion is stored as before there was a choice.
            del values["flow"]["camera_motion"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExtractConfig:
        """Rebuilds a stored configuration. Raises ConfigError for an unknown or missing field."""
        decode = dict(values["decode"])
        decode["resize"] = Resize.parse(decode["resize"])
        if "crop" in decode:
            decode["crop"] = CenterCrop.parse(decode["crop"])
        flow = dict(values["flow"])
        center_level = flow.pop("center_level")
        algorithm = flow.get("algorithm")
        if algorithm in PARAMETERS:
            flow["parameters"] = build_spec(PARAMETERS[algorithm], flow["parameters"])
        elif not isinstance(flow["parameters"], Mapping):
            raise ConfigError(f"parameters must be an object, got {flow['parameters']!r}")
        encode = dict(values["encode"])
        encode["directions"] = tuple(encode["directions"])
        config = cls(
            build_spec(DecodeSpec, decode),
            build_spec(FlowSpec, flow),
            build_spec(EncodeSpec, encode),
        )
        if config.flow.center_level != center_level:
            raise ConfigError(
                f"center_level of quantizer {config.flow.quantizer} must be "
                f"{config.flow.center_level}, got {center_level}"
            )
        return config


INTERCHANGEABLE_FIELDS = frozenset({"encode.videos_per_shard"})
"""Fields that may differ between runs into one data set. No stored number depends on them."""

INTERCHANGEABLE_VALUES: dict[str, frozenset[str]] = {
    "decode.on_damage": frozenset({"fail", "cut"}),
    "decode.on_gaps": frozenset(get_args(OnGaps)),
}
"""Values of a field that may share a data set. A video that both values keep is stored alike."""

VERSION_1_VALUES: dict[str, dict[str, Any]] = {
    "DecodeSpec": {
        "on_damage": "fail",
        "video_stream": None,
        "square_pixels": False,
        "image_fps": None,
        "on_gaps": "ignore",
        "crop": None,
    },
    "FlowSpec": {"camera_motion": "none"},
    "OptimizationSpec": {
        "loss": None,
        "class_weights": None,
        "freeze": None,
        "unfreeze_at": None,
        "layer_decay": 1.0,
        "classifier_rate": 1.0,
        "drop_path": None,
        "ema_decay": None,
    },
    "TrainState": {"raw": None},
    "ClipSpec": {"channel_order": "interleaved", "mean_file": None},
    "AugmentSpec": {
        "random_strides": (),
        "rand_augment": (),
        "random_erasing": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
    },
    "TrainConfig": {"balance": False},
}
"""Values of the fields that format version 1 did not have, by class and field."""


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out. Nothing here changes a stored number."""

    num_workers: int | None = None
    """Number of worker processes. Each uses one core. The default is the number of cores."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ... `auto` uses the GPUs, and on machines without a GPU the cores.
    `cuda+cpu` uses all GPUs and all cores. `cuda!` computes TV-L1 by its CUDA kernel even where its
    trial found it wrong."""
    workers_per_gpu: int | None = None
    """Number of workers that share one GPU. While one decodes or encodes, another uses the GPU. The
    default is the number of cores per GPU, at most 8. On this machine it is also at most one for
    every 3 GiB of the GPU's memory."""
    executor: ExecutorName = "auto"
    """`ray` works in many processes. `process` works in one process, without Ray. `inline` works in
    the process of flowprep itself, for debugging. `auto` takes `process` for one video or one
    worker on this machine's cores, and `ray` in all other cases."""
    address: str | None = None
    """An existing Ray cluster. By default Ray starts on this machine."""
    ship_code: bool = True
    """Send this copy of flowprep to all nodes of an existing cluster."""
    # The log of a run leaves this field out, because its variables may be secret.
    runtime_env: str | None = field(default=None, repr=False)
    """Ray's runtime environment for the workers, as JSON text or as a JSON or YAML file."""
    max_attempts: int = 3
    """How often to try a video that crashes its worker. Then the video counts as failed."""
    stall_timeout_seconds: float = 120.0
    """A worker that finishes no frame for this many seconds is ended and replaced."""
    worker_memory: str = "auto"
    """Most memory that a worker may hold, such as 2GB or 512MB. A video that needs more fails, and
    the others go on. `auto` divides a machine's memory among its workers, but gives each at least a
    quarter. `none` sets no limit."""
    segment_frames: int = 3000
    """Frames per segment. Videos of more than twice this length are cut into segments that several
    workers share. 0 cuts none."""
    retry_failed: bool = False
    """Try the videos in failures.jsonl again."""
    redo_changed: bool = False
    """Look at each source, and compute videos again whose source changed after they were extracted.
    Otherwise only the sizes are compared that the listing of an object store tells anyhow."""
    progress: bool | None = None
    """Draw a progress bar on stderr. By default only on a terminal."""

    def __post_init__(self) -> None:
        check_choice("executor", self.executor, ExecutorName)
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"workers must be >= 1, got {self.num_workers}")
        if self.executor == "process" and (self.num_workers or 1) > 1:
            raise ConfigError(
                f"workers must be 1 with executor process, got {self.num_workers}; take executor "
                "ray for several"
            )
        parse_device(self.device.removesuffix("+cpu"))
        if self.device in ("auto+cpu", "cpu+cpu"):
            raise ConfigError(f"device must name a GPU before +cpu, got {self.device!r}")
        if self.workers_per_gpu is not None and self.workers_per_gpu < 1:
            raise ConfigError(f"workers_per_gpu must be >= 1, got {self.workers_per_gpu}")
        if self.worker_memory != "auto":
            parse_memory(self.worker_memory)
        if self.segment_frames < 0:
            raise ConfigError(f"segment_frames must be >= 0, got {self.segment_frames}")
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts must be >= 1, got {self.max_attempts}")
        if not self.stall_timeout_seconds > 0:
            raise ConfigError(
                f"stall_timeout_seconds must be > 0, got {self.stall_timeout_seconds:g}"
            )


def build_spec(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Makes a dataclass from stored values. Raises ConfigError for an unknown or missing field.

    Fields that format version 1 did not have may be missing: see `VERSION_1_VALUES`.
    """
    values = {**VERSION_1_VALUES.get(kind.__name__, {}), **values}
    known = {item.name for item in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(
            f"{kind.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    # A default here would silently give the stored numbers another meaning.
    if missing := sorted(known - set(values)):
        raise ConfigError(f"{kind.__name__} needs {', '.join(missing)}; add what is missing")
    try:
        return kind(**values)
    except OverflowError as error:
        # An integer of hundreds of digits, where a float is meant.
        raise ConfigError(
            f"{kind.__name__} must have numbers that a float can hold, got a longer one; take what "
            "was stored"
        ) from error
