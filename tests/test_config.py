"""Configurations check themselves, survive JSON, and the presets are the published recipes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.config import (
    INTERCHANGEABLE_FIELDS,
    CenterCrop,
    DecodeSpec,
    EncodeSpec,
    ExtractConfig,
    FlowSpec,
    Resize,
    RunOptions,
    parse_memory,
)
from flowprep.dataset.layout import flatten
from flowprep.dataset.quantize import quantize
from flowprep.errors import ConfigError
from flowprep.flow.parameters import (
    PARAMETERS,
    BroxParameters,
    DISParameters,
    FarnebackParameters,
    OpenCVTVL1Parameters,
    RAFTParameters,
    TVL1Parameters,
)
from flowprep.frame_size import MAX_SIDE_PX
from flowprep.presets import PRESETS


def message_of(build: Callable[[], Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build()
    return str(caught.value)


# ---- round trips


sides = st.integers(8, MAX_SIDE_PX)
positive = st.floats(1e-6, 1e6)
counts = st.integers(1, 1000)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)

resizes = st.one_of(
    st.just(Resize("none", short_px=None)),
    st.builds(Resize, mode=st.just("short"), short_px=sides),
    st.builds(Resize, mode=st.just("height"), height_px=sides, short_px=st.none()),
    st.builds(Resize, st.just("exact"), sides, sides, st.none()),
)
decodes = st.builds(
    DecodeSpec,
    decoder=st.sampled_from(["pyav", "decord"]),
    fps=st.none() | st.floats(0, 1000, exclude_min=True),
    resize=resizes,
    interpolation=st.sampled_from(["area", "bilinear", "bicubic"]),
    allow_upscale=st.booleans(),
    # As small as the smallest frames.
    crop=st.sampled_from([None, CenterCrop(8, 8)]),
)
opencv_tvl1 = st.builds(
    OpenCVTVL1Parameters,
    tau=positive,
    lambda_=positive,
    theta=positive,
    nscales=counts,
    warps=counts,
    epsilon=positive,
    inner_iterations=counts,
    outer_iterations=counts,
    scale_step=shares,
    gamma=st.floats(0, 10),
    median_filtering=st.sampled_from([1, 3, 5]),
)


def native_tvl1(opencv: OpenCVTVL1Parameters, stop: str) -> TVL1Parameters:
    return TVL1Parameters(**{**dataclasses.asdict(opencv), "gamma": 0.0, "stop": stop})


tvl1 = st.builds(native_tvl1, opencv_tvl1, st.sampled_from(["predicted", "exact"]))
farneback = st.builds(
    FarnebackParameters,
    pyr_scale=shares,
    levels=counts,
    winsize=counts,
    iterations=counts,
    poly_n=st.sampled_from([5, 7]),
    poly_sigma=positive,
    gaussian=st.booleans(),
)
dis = st.builds(
    DISParameters,
    dis_preset=st.sampled_from(["ultrafast", "fast", "medium"]),
    finest_scale=st.none() | st.integers(0, 9),
    patch_size=st.none() | st.integers(8, 99),
    patch_stride=st.none() | st.integers(1, 8),
    gradient_descent_iterations=st.none() | counts,
    variational_refinement_iterations=st.none() | st.integers(0, 99),
)


def flow_specs(algorithm: str, parameters: st.SearchStrategy[Any]) -> st.SearchStrategy[FlowSpec]:
    return st.builds(
        FlowSpec,
        algorithm=st.just(algorithm),
        parameters=st.none() | parameters,
        step=counts,
        bound_px=st.floats(0, 10000, exclude_min=True),
        quantizer=st.sampled_from(["round", "floor", "centered"]),
    )


encodes = st.builds(
    EncodeSpec,
    directions=st.sampled_from(
        [("forward",), ("backward",), ("forward", "backward"), ("backward", "forward")]
    ),
    keep_rgb=st.booleans(),
    jpeg_quality=st.integers(1, 100),
    rgb_jpeg_quality=st.integers(1, 100),
    videos_per_shard=counts,
)
configs = st.builds(
    ExtractConfig,
    decodes,
    st.one_of(
        flow_specs("tvl1", tvl1),
        flow_specs("tvl1-opencv", opencv_tvl1),
        flow_specs("farneback", farneback),
        flow_specs("dis", dis),
    ),
    encodes,
)


@settings(deadline=None)
@given(config=configs)
def test_a_configuration_survives_json(config: ExtractConfig) -> None:
    values = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    again = ExtractConfig.from_dict(values)
    assert again == config
    assert again.to_dict() == values
    assert hash(again) == hash(config)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_survives_json(name: str) -> None:
    config = PRESETS[name]
    assert ExtractConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@settings(deadline=None)
@given(resize=resizes)
def test_a_resize_reads_what_it_writes(resize: Resize) -> None:
    assert Resize.parse(str(resize)) == resize


@given(width=sides, height=sides)
def test_a_crop_reads_what_it_writes(width: int, height: int) -> None:
    crop = CenterCrop(width, height)
    assert CenterCrop.parse(str(crop)) == CenterCrop.parse(f"{width}x{height}") == crop
    assert str(CenterCrop.parse("112")) == "112"


def test_a_configuration_without_a_crop_is_stored_as_before_there_were_crops() -> None:
    values = ExtractConfig().to_dict()
    assert "crop" not in values["decode"]
    cropped = dataclasses.replace(
        ExtractConfig(), decode=DecodeSpec(resize=Resize.parse("171x128"), crop=CenterCrop(112, 96))
    ).to_dict()
    assert cropped["decode"].pop("crop") == "112x96"
    assert cropped["decode"] == {**values["decode"], "resize": "171x128"}
    assert list(cropped["decode"]) == list(values["decode"])


@pytest.mark.parametrize(
    ("resize", "crop", "fits"),
    [
        *(("none", "4000", True), ("short:256", "256x900", True), ("short:256", "257", False)),
        *(("height:128", "200x128", True), ("height:128", "129", False)),
        *(("171x128", "171x128", True), ("171x128", "129", False), ("171x128", "172x8", False)),
    ],
)
def test_a_crop_that_no_frame_can_hold_is_refused(resize: str, crop: str, fits: bool) -> None:
    if fits:
        DecodeSpec(resize=Resize.parse(resize), crop=CenterCrop.parse(crop))
        return
    with pytest.raises(ConfigError, match=f"crop must lie .* got {crop} with resize {resize}; "):
        DecodeSpec(resize=Resize.parse(resize), crop=CenterCrop.parse(crop))


@pytest.mark.parametrize("text", ["", "112x", "x112", "112 x 96", "112x96x3", "-112", "7", "20000"])
def test_a_crop_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^crop .*got"):
        CenterCrop.parse(text)


def test_a_configuration_holds_every_parameter_and_the_centre() -> None:
    values = ExtractConfig(flow=FlowSpec("tvl1", quantizer="floor")).to_dict()
    assert values["flow"]["center_level"] == 127
    assert values["flow"]["parameters"]["lambda_"] == 0.15
    assert set(values["flow"]["parameters"]) == set(TVL1Parameters.__dataclass_fields__)
    assert values["decode"]["resize"] == "short:256"
    assert values["encode"]["directions"] == ["forward", "backward"]


def test_interchangeable_fields_exist() -> None:
    assert set(flatten(ExtractConfig().to_dict())) >= INTERCHANGEABLE_FIELDS
    assert not any(name.startswith("flow.") for name in INTERCHANGEABLE_FIELDS)


def test_every_specification_is_frozen() -> None:
    config = ExtractConfig()
    for item in (config, config.decode, config.flow, config.encode, config.decode.resize):
        name = dataclasses.fields(item)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(item, name, None)


def test_unknown_fields_and_a_wrong_centre_are_refused() -> None:
    def edited(room: str, **values: Any) -> dict[str, Any]:
        stored = ExtractConfig(flow=FlowSpec("dis")).to_dict()
        stored[room] |= values
        return stored

    assert message_of(lambda: ExtractConfig.from_dict(edited("decode", zoom=3))) == (
        "DecodeSpec has no field zoom; it has allow_upscale, crop, decoder, fps, image_fps, "
        "interpolation, on_damage, on_gaps, resize, square_pixels, video_stream"
    )
    assert message_of(lambda: ExtractConfig.from_dict(edited("flow", center_level=128))) == (
        "center_level of quantizer round must be 127.5, got 128"
    )
    assert message_of(lambda: ExtractConfig.from_dict(edited("flow", algorithm="pwc"))) == (
        f"algorithm must be one of {', '.join(PARAMETERS)}, got 'pwc'"
    )
    assert message_of(lambda: ExtractConfig.from_dict(edited("decode", resize="256"))).startswith(
        "resize must be none, "
    )


# ---- rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", Resize("none", None, None, None)),
        ("short:256", Resize("short", None, None, 256)),
        ("short:8", Resize("short", None, None, 8)),
        ("height:16384", Resize("height", None, 16384, None)),
        ("340x256", Resize("exact", 340, 256, None)),
    ],
)
def test_a_resize_is_parsed(text: str, expected: Resize) -> None:
    assert Resize.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    ["", "256", "short", "short:", "short:-1", "short:2.5", "width:3", "3x", "3x4x5", " none"],
)
def test_a_resize_that_says_nothing_is_refused(text: str) -> None:
    assert message_of(lambda: Resize.parse(text)) == (
        "resize must be none, short:PX, height:PX or WIDTHxHEIGHT (such as short:256 or 340x256), "
        f"got {text!r}"
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Resize.parse("short:7"),
            "resize short: short_px must be an integer from 8 to 16384, got 7",
        ),
        (
            lambda: Resize.parse("340x16385"),
            "resize exact: height_px must be an integer from 8 to 16384, got 16385",
        ),
        (
            lambda: Resize("height", short_px=None),
            "resize height: height_px must be an integer from 8 to 16384, got None",
        ),
        (
            lambda: Resize("short", short_px=25.6),  # type: ignore[arg-type]
            "resize short: short_px must be an integer from 8 to 16384, got 25.6",
        ),
        (lambda: Resize("none"), "resize none takes no short_px, got 256"),
        (lambda: Resize("short", width_px=3), "resize short takes no width_px, got 3"),
        (
            lambda: Resize("long"),  # type: ignore[arg-type]
            "resize mode must be one of none, short, height, exact, got 'long'",
        ),
        (
            lambda: DecodeSpec(decoder="opencv"),  # type: ignore[arg-type]
            "decoder must be one of pyav, decord, got 'opencv'",
        ),
        (
            lambda: DecodeSpec(interpolation="cubic"),  # type: ignore[arg-type]
            "interpolation must be one of area, bilinear, bicubic, got 'cubic'",
        ),
        (lambda: DecodeSpec(fps=0), "fps must be > 0 and <= 1000, got 0"),
        (lambda: DecodeSpec(fps=-25.0), "fps must be > 0 and <= 1000, got -25.0"),
        (lambda: DecodeSpec(fps=1000.5), "fps must be > 0 and <= 1000, got 1000.5"),
        (lambda: DecodeSpec(fps=float("nan")), "fps must be > 0 and <= 1000, got nan"),
        (
            lambda: FlowSpec("pwc"),
            f"algorithm must be one of {', '.join(PARAMETERS)}, got 'pwc'",
        ),
        (
            lambda: FlowSpec(quantizer="log"),  # type: ignore[arg-type]
            "quantizer must be one of round, floor, centered, got 'log'",
        ),
        (lambda: FlowSpec(step=0), "step must be an integer >= 1, got 0"),
        (
            lambda: FlowSpec(step=1.5),  # type: ignore[arg-type]
            "step must be an integer >= 1, got 1.5",
        ),
        (lambda: FlowSpec(bound_px=0), "bound_px must be > 0, got 0"),
        (lambda: FlowSpec(bound_px=-20.0), "bound_px must be > 0, got -20"),
        (lambda: FlowSpec(bound_px=float("nan")), "bound_px must be > 0, got nan"),
        (lambda: FlowSpec(bound_px=10001), "bound_px must be <= 10000, got 10001"),
        (lambda: FlowSpec(bound_px=float("inf")), "bound_px must be <= 10000, got inf"),
        (
            lambda: FlowSpec("dis", TVL1Parameters()),
            "algorithm dis takes DISParameters, got TVL1Parameters",
        ),
        (
            lambda: EncodeSpec(directions=()),
            "directions must name forward, backward or both, got ()",
        ),
        (
            lambda: EncodeSpec(directions=("up",)),  # type: ignore[arg-type]
            "directions must name forward, backward or both, got ('up',)",
        ),
        (lambda: EncodeSpec(jpeg_quality=0), "jpeg_quality must be from 1 to 100, got 0"),
        (lambda: EncodeSpec(jpeg_quality=101), "jpeg_quality must be from 1 to 100, got 101"),
        (lambda: EncodeSpec(rgb_jpeg_quality=0), "rgb_jpeg_quality must be from 1 to 100, got 0"),
        (
            lambda: EncodeSpec(jpeg_quality=95.5),  # type: ignore[arg-type]
            "jpeg_quality must be an integer, got 95.5",
        ),
        (lambda: EncodeSpec(videos_per_shard=0), "videos_per_shard must be >= 1, got 0"),
        (
            lambda: EncodeSpec(videos_per_shard=2.5),  # type: ignore[arg-type]
            "videos_per_shard must be an integer, got 2.5",
        ),
        (
            lambda: RunOptions(executor="slurm"),  # type: ignore[arg-type]
            "executor must be one of auto, ray, process, inline, got 'slurm'",
        ),
        (lambda: RunOptions(num_workers=0), "workers must be >= 1, got 0"),
        (
            lambda: RunOptions(executor="process", num_workers=4),
            "workers must be 1 with executor process, got 4; take executor ray for several",
        ),
        (
            lambda: RunOptions(device="gpu"),
            "device must be auto, cpu, cuda, cuda:N, cuda!, cuda:N!, mps or torch-cpu, got 'gpu'",
        ),
        (
            lambda: RunOptions(device="auto+cpu"),
            "device must name a GPU before +cpu, got 'auto+cpu'",
        ),
        (lambda: RunOptions(workers_per_gpu=0), "workers_per_gpu must be >= 1, got 0"),
        (lambda: RunOptions(max_attempts=0), "max_attempts must be >= 1, got 0"),
        (lambda: RunOptions(stall_timeout_seconds=0), "stall_timeout_seconds must be > 0, got 0"),
        (
            lambda: RunOptions(stall_timeout_seconds=float("nan")),
            "stall_timeout_seconds must be > 0, got nan",
        ),
        (
            lambda: RunOptions(worker_memory="lots"),
            "worker_memory must be auto, none or an amount such as 2GB or 512MB, got 'lots'",
        ),
        (
            lambda: RunOptions(worker_memory="20MB"),
            "worker_memory must be at least 200MB, because an idle worker holds half of it; got "
            "'20MB'",
        ),
    ],
)
def test_a_broken_rule_is_named_with_its_value(build: Callable[[], Any], message: str) -> None:
    assert message_of(build) == message


def test_directions_have_one_order() -> None:
    spec = EncodeSpec(directions=("backward", "forward"))
    assert spec.directions == ("forward", "backward")
    assert EncodeSpec(directions=("backward", "backward")).directions == ("backward",)


@pytest.mark.parametrize("algorithm", list(PARAMETERS))
def test_missing_parameters_become_the_defaults(algorithm: str) -> None:
    assert FlowSpec(algorithm).parameters == PARAMETERS[algorithm]()
    assert FlowSpec(algorithm) == FlowSpec(algorithm, PARAMETERS[algorithm]())


@pytest.mark.parametrize(
    ("quantizer", "center", "zero", "px_per_level"),
    [
        ("round", 127.5, 128, 40 / 255),
        ("floor", 127.0, 127, 40 / 255),
        ("centered", 128.0, 128, 20 / 128),
    ],
)
def test_the_levels_of_a_quantizer(
    quantizer: Any, center: float, zero: int, px_per_level: float
) -> None:
    spec = FlowSpec(quantizer=quantizer)
    assert (spec.center_level, spec.zero_level) == (center, zero)
    assert spec.px_per_level == pytest.approx(px_per_level)


# ---- presets


OPENCV_TVL1 = {
    "tau": 0.25,
    "lambda_": 0.15,
    "theta": 0.3,
    "nscales": 5,
    "warps": 5,
    "epsilon": 0.01,
    "inner_iterations": 30,
    "outer_iterations": 10,
    "scale_step": 0.8,
    "gamma": 0.0,
    "median_filtering": 5,
}
TVL1_CPU = OPENCV_TVL1 | {"stop": "predicted"}
# OpenCV's CUDA class: 300 iterations a warp, and no median filter (1 is off).
TVL1_CUDA = TVL1_CPU | {"median_filtering": 1}


def test_the_defaults_are_the_published_ones() -> None:
    assert dataclasses.asdict(OpenCVTVL1Parameters()) == OPENCV_TVL1
    assert dataclasses.asdict(TVL1Parameters()) == TVL1_CPU
    assert TVL1_CUDA["inner_iterations"] * TVL1_CUDA["outer_iterations"] == 300
    assert dataclasses.asdict(FarnebackParameters()) == {
        "pyr_scale": 0.5,
        "levels": 3,
        "winsize": 15,
        "iterations": 3,
        "poly_n": 5,
        "poly_sigma": 1.2,
        "gaussian": False,
    }


@pytest.mark.parametrize(
    ("name", "fps", "resize", "parameters", "quantizer", "jpeg_quality"),
    [
        ("tsn", None, "340x256", TVL1_CUDA, "round", 95),
        ("mmaction2", None, "short:256", TVL1_CUDA, "round", 95),
        ("i3d", 25.0, "height:256", TVL1_CPU, "floor", 100),
        ("i3d-readme", 25.0, "short:256", TVL1_CPU, "round", 95),
        ("feichtenhofer", None, "short:256", TVL1_CUDA, "round", 95),
    ],
)
def test_a_preset_is_the_published_recipe(
    name: str,
    fps: float | None,
    resize: str,
    parameters: dict[str, Any],
    quantizer: str,
    jpeg_quality: int,
) -> None:
    config = PRESETS[name]
    assert config.decode.fps == fps
    assert str(config.decode.resize) == resize
    assert config.decode.interpolation == "bilinear"
    assert config.flow.algorithm == "tvl1"
    assert dataclasses.asdict(config.flow.parameters) == parameters  # type: ignore[arg-type]
    assert (config.flow.step, config.flow.bound_px) == (1, 20.0)
    assert config.flow.quantizer == quantizer
    assert config.encode.jpeg_quality == jpeg_quality
    assert config.encode.keep_rgb


@pytest.mark.parametrize(
    ("name", "resize", "bound_px", "quantizer"),
    [("two-stream-2014", "short:256", 20.0, "round"), ("lrcn", "320x240", 8.0, "centered")],
)
def test_the_presets_with_brox_flow(
    name: str, resize: str, bound_px: float, quantizer: str
) -> None:
    config = PRESETS[name]
    assert (config.decode.fps, str(config.decode.resize)) == (None, resize)
    assert config.flow == FlowSpec("brox", BroxParameters(), 1, bound_px, quantizer)  # type: ignore[arg-type]
    assert dataclasses.asdict(BroxParameters()) == {
        "alpha": 0.197,
        "gamma": 50.0,
        "scale_factor": 0.8,
        "inner_iterations": 5,
        "outer_iterations": 150,
        "solver_iterations": 10,
        "pyramid_filter": "ncv",
    }


def test_lrcns_levels_are_16_times_the_flow_plus_128() -> None:
    flow = np.array([[[-9.0, -8.0, -1.03, 0.0, 0.5, 7.9, 9.0]]], np.float32)
    levels = quantize(flow, PRESETS["lrcn"].flow)
    assert levels.ravel().tolist() == [0, 0, 112, 128, 136, 254, 255]


def test_video_features_preset() -> None:
    config = PRESETS["i3d-raft"]
    assert (config.decode.fps, str(config.decode.resize)) == (None, "short:256")
    parameters = RAFTParameters("raft_large", "C_T_SKHT_V1", 20)
    assert config.flow == FlowSpec("raft", parameters, 1, 20.0, "floor")
    flow = np.linspace(-24, 24, 9001, dtype=np.float32)
    levels = quantize(np.stack([flow, flow], -1)[None], config.flow)[0, :, 0].astype(int)
    # models/transforms.py: Clamp and ToUInt8.
    theirs = np.rint(128 + 255 / 40 * np.clip(flow, -20, 20)).astype(int)
    # Not where rounding decides.
    inside = (flow > -19.99) & (np.abs((127.5 + 6.375 * flow + 0.5) % 1 - 0.5) > 1e-3)
    assert inside.mean() > 0.8
    assert set(theirs[inside] - levels[inside]) == {1}
    # Both stand for the same px.
    px = (levels - config.flow.center_level) * config.flow.px_per_level
    np.testing.assert_allclose(px[inside], (theirs[inside] - 128) * 40 / 255, atol=1e-9)


def test_the_presets_are_these() -> None:
    assert list(PRESETS) == [
        *("tsn", "mmaction2", "i3d", "two-stream-2014", "lrcn", "i3d-readme", "i3d-raft"),
        *("feichtenhofer", "mmaction2-320p", "mars", "vmz", "vmz-rgb", "torchvision-video"),
        "deepvideo",
    ]


def test_only_mmaction2_keeps_small_videos_at_their_size() -> None:
    # UCF101 and HMDB51 are taken at their native size there.
    assert [name for name, preset in PRESETS.items() if not preset.decode.allow_upscale] == [
        *("mmaction2", "mmaction2-320p")
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("2GB", 2 * 10**9), ("512 mb", 512 * 10**6), ("1.5GiB", 3 << 29), ("4G", 4 * 10**9)),
        *(("223456789", 223456789), ("none", None), ("0", None)),
    ],
)
def test_amounts_of_memory(text: str, size: int | None) -> None:
    assert parse_memory(text) == size
    assert RunOptions(worker_memory=text).worker_memory == text
