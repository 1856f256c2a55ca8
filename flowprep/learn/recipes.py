"""Published recipes: which flow a network was trained on, what it sees of it, how it is tested.

    RECIPES             every recipe by name: for published weights, and for trainings
    VIEWS               published tests by their number of views
    recipe_clip         what a network sees of a clip, by a recipe
    training_config     a training by a recipe
    default_config      a training without a recipe

A recipe is for one or more networks. Each of its streams names the preset of `flowprep.presets`
that makes its data. Facts that no source states are said to be ours. Needs no PyTorch.
"""

from __future__ import annotations

import dataclasses

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import (
    ClipForm,
    NormalizationName,
    RecipeName,
    StreamName,
    sees_flow,
)
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, ViewSpec
from flowprep.learn.fusion_recipes import FUSION_RECIPES
from flowprep.learn.history_recipes import HISTORY_RECIPES
from flowprep.learn.network_options import NetworkOptions
from flowprep.learn.networks import clip_inputs, find_network
from flowprep.learn.recent_recipes import RECENT_RECIPES
from flowprep.learn.recipe_entry import VIEWS, Recipe, StreamRecipe
from flowprep.learn.recurrent_recipes import RECURRENT_RECIPES
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from flowprep.learn.trainings import TRAININGS

__all__ = [
    "RECIPES",
    "VIEWS",
    "Recipe",
    "StreamRecipe",
    "default_config",
    "recipe_clip",
    "recipe_options",
    "stream_recipe",
    "training_config",
]


_FLOW_AND_RGB: tuple[StreamName, ...] = ("flow", "rgb")


def _stream_recipes(
    name: RecipeName, preset: str, form: ClipForm, test: ViewSpec
) -> dict[StreamName, StreamRecipe]:
    """Returns streams that are tested on the clips that they are trained on."""
    return {
        stream: StreamRecipe(preset, training.clip, form, test)
        for stream, training in TRAININGS[name].items()
    }


def _slow(num_frames: int, frame_stride: int) -> dict[StreamName, StreamRecipe]:
    """Returns mmaction2's streams of SlowOnly: tests of 10 clips x 3 crops of 256."""
    return {
        stream: StreamRecipe(
            "mmaction2-320p",
            ClipSpec(
                stream,
                num_frames,
                frame_stride,
                normalization="mmaction2",
                resize_short_px=256,
                crop_px=256,
            ),
            "volume",
            VIEWS["30"],
        )
        for stream in _FLOW_AND_RGB
    }


def _tsn_bn_inception(normalization: NormalizationName) -> dict[StreamName, StreamRecipe]:
    """Returns the streams of TSN with BN-Inception: 25 clips x 10 crops of 340x256."""
    num_frames: dict[StreamName, int] = {"flow": 5, "rgb": 1}
    return {
        stream: StreamRecipe(
            "tsn",
            ClipSpec(
                stream,
                num_frames[stream],
                num_segments=3,
                normalization=normalization,
                resize_short_px=256,
            ),
            "stack",
            VIEWS["250"],
        )
        for stream in _FLOW_AND_RGB
    }


def _slowfast(num_frames: int, frame_stride: int) -> dict[StreamName, StreamRecipe]:
    """Returns facebookresearch/SlowFast's stream of Slow: tests of 10 clips x 3 crops of 256."""
    clip = ClipSpec(
        "rgb",
        num_frames,
        frame_stride,
        normalization="slowfast",
        resize_short_px=256,
        crop_px=256,
    )
    return {"rgb": StreamRecipe("mmaction2", clip, "volume", VIEWS["30"])}


_FROM_BGR = (
    "It was trained on BGR. The first convolution of its weights is turned to RGB when they are "
    "loaded, so the network sees RGB."
)
_CROP_112 = "The network sees the center 112x112 of each frame."

_RECIPES: dict[RecipeName, Recipe] = {
    "two-stream": Recipe(
        "two-stream network",
        "Simonyan and Zisserman, Two-Stream Convolutional Networks (NIPS 2014)",
        ("cnn-m-2048", "resnet18", "resnet34", "resnet50"),
        _stream_recipes("two-stream", "two-stream-2014", "stack", VIEWS["250"]),
    ),
    "tsn": Recipe(
        "TSN with a ResNet, as in its PyTorch version",
        "Wang et al., Temporal Segment Networks (ECCV 2016); yjxiong/tsn-pytorch",
        ("tsn-resnet50", "tsn-resnet34", "tsn-resnet18"),
        _stream_recipes("tsn", "tsn", "stack", VIEWS["250"]),
    ),
    "i3d": Recipe(
        "I3D, also DeepMind's weights",
        "Carreira and Zisserman, Quo Vadis, Action Recognition? (CVPR 2017); "
        "google-deepmind/kinetics-i3d",
        ("i3d", "i3d-resnet50"),
        _stream_recipes("i3d", "i3d", "volume", ViewSpec(4, 1)),
        ("The paper tests all frames of a video at once; 4 clips of 64 are 10 s at 25 fps.",),
    ),
    "i3d-raft": Recipe(
        "DeepMind's I3D over RAFT's flow",
        "v-iashin/video_features",
        ("i3d",),
        {
            "flow": StreamRecipe(
                "i3d-raft",
                ClipSpec("flow", 64, normalization="unit", resize_short_px=256),
                "volume",
                ViewSpec(4, 1),
            )
        },
        ("The weights are those of recipe i3d. They were trained on TV-L1.",),
    ),
    "tsm": Recipe(
        "TSM, Kinetics-400",
        "mit-han-lab/temporal-shift-module",
        ("tsm-resnet50", "tsm-resnet18", "tsm-mobilenet-v2"),
        {
            "flow": StreamRecipe(
                "tsn",
                ClipSpec(
                    "flow", 5, num_segments=8, normalization="tsn-resnet", resize_short_px=256
                ),
                "stack",
                ViewSpec(8, 1),
            ),
            "rgb": StreamRecipe(
                "tsn",
                ClipSpec("rgb", 1, num_segments=8, normalization="tsn-resnet", resize_short_px=256),
                "stack",
                ViewSpec(8, 1),
            ),
        },
        ("The authors did not tune the flow network. They offer it to start others from.",),
    ),
    "mmaction2-tsn": Recipe(
        "TSN with ResNet-50, Kinetics-400",
        "open-mmlab/mmaction2, tsn_r50_320p_1x1x8_110e_kinetics400_flow",
        ("tsn-resnet50",),
        {
            "flow": StreamRecipe(
                "mmaction2-320p",
                ClipSpec("flow", 5, num_segments=8, normalization="mmaction2", resize_short_px=256),
                "stack",
                VIEWS["250"],
            ),
            "rgb": StreamRecipe(
                "mmaction2-320p",
                ClipSpec("rgb", 1, num_segments=8, normalization="mmaction2", resize_short_px=256),
                "stack",
                VIEWS["250"],
            ),
        },
        ("The model `1x1x3` has 3 segments in its training.",),
    ),
    "mmaction2-slow-4x16": Recipe(
        "SlowOnly 4x16, Kinetics-400",
        "open-mmlab/mmaction2, slowonly_r50_4x16x1_256e_kinetics400_flow",
        ("slow-4x16",),
        _slow(4, 16),
    ),
    "mmaction2-slow-8x8": Recipe(
        "SlowOnly 8x8, Kinetics-400",
        "open-mmlab/mmaction2, slowonly_r50_8x8x1_196e_kinetics400_flow",
        ("slow-8x8",),
        _slow(8, 8),
    ),
    "mmaction-tsn": Recipe(
        "TSN with BN-Inception, UCF101",
        "open-mmlab/mmaction, configs/ucf101/tsn_flow_bninception",
        ("tsn-bn-inception", "bn-inception"),
        {"flow": _tsn_bn_inception("tsn-rgb")["flow"]},
    ),
    "mmaction-i3d": Recipe(
        "I3D, UCF101 and HMDB51",
        "open-mmlab/mmaction, i3d_ucf101_split1_flow_f64s1_kinetics400ft",
        ("i3d",),
        {
            "flow": StreamRecipe(
                "tsn",
                ClipSpec("flow", 64, normalization="unit", resize_short_px=256),
                "volume",
                ViewSpec(10, 1),
            )
        },
        ("The test is ours: nobody states it.",),
    ),
    "yjxiong-tsn": Recipe(
        "TSN with BN-Inception, UCF101 and HMDB51, in Caffe",
        "yjxiong/temporal-segment-networks",
        ("tsn-bn-inception", "bn-inception"),
        _tsn_bn_inception("tsn-rgb"),
        (_FROM_BGR,),
    ),
    "tsn-pytorch": Recipe(
        "TSN with BN-Inception in PyTorch",
        "yjxiong/tsn-pytorch",
        ("tsn-bn-inception", "bn-inception", "tsm-bn-inception"),
        _tsn_bn_inception("tsn-pytorch"),
        (_FROM_BGR,),
    ),
    "yjxiong-two-stream": Recipe(
        "two-stream VGG-16, UCF101, in Caffe",
        "yjxiong/caffe, models/action_recognition",
        ("vgg16",),
        {
            "flow": StreamRecipe(
                "tsn",
                ClipSpec("flow", 10, normalization="tsn-rgb", resize_short_px=256),
                "stack",
                VIEWS["250"],
            )
        },
    ),
    "vmz": Recipe(
        "R(2+1)D-34 over Farneback's flow, Kinetics-400",
        "facebookresearch/VMZ, r2.5d_d34_l32_ft_sports1m_optical_flow",
        ("r2plus1d-34", "r2plus1d-18"),
        {
            "flow": StreamRecipe(
                "vmz",
                ClipSpec("flow", 32, normalization="vmz", crop_px=112),
                "volume",
                ViewSpec(10, 1),
            )
        },
        (
            "VMZ does not clip its flow. The bound is ours; the summary of extract says which "
            "share is clipped.",
            "VMZ trains on random crops and mirrors frames before it computes their flow. A "
            "training on stored flow sees one crop only, the center, and mirrors the flow.",
            "VMZ tests clips at many places. Their number here is ours.",
        ),
    ),
    "vmz-rgb": Recipe(
        "R(2+1)D and its relatives over frames",
        "facebookresearch/VMZ",
        ("r2plus1d-18", "r2plus1d-34", "r3d-18", "mc3-18", "r2d-18", "rmc3-18"),
        {
            "rgb": StreamRecipe(
                "vmz-rgb",
                ClipSpec("rgb", 8, normalization="vmz", crop_px=112),
                "volume",
                ViewSpec(10, 1),
            )
        },
        (_CROP_112, "r2plus1d-34 was trained on 32 frames: give --frames 32."),
    ),
    "ig65m": Recipe(
        "R(2+1)D-34, IG-65M and Kinetics-400",
        "moabitcoin/ig65m-pytorch",
        ("r2plus1d-34",),
        {
            "rgb": StreamRecipe(
                "vmz-rgb",
                ClipSpec("rgb", 32, normalization="torchvision-video", crop_px=112),
                "volume",
                ViewSpec(10, 1),
            )
        },
        (
            _CROP_112,
            "The weights `clip8` were trained on 8 frames: give --frames 8.",
            "Frame rate and test are ours: nobody states them.",
        ),
    ),
    "mars": Recipe(
        "ResNeXt-101 3D, Kinetics-400, UCF101, HMDB51 and Something-Something",
        "craston/MARS",
        ("resnext101-3d",),
        {
            stream: StreamRecipe(
                "mars",
                ClipSpec(stream, 16, normalization="mars", resize_short_px=112, crop_px=112),
                "volume",
                ViewSpec(10, 1),
            )
            for stream in _FLOW_AND_RGB
        },
        (
            "MARS truncates levels and subtracts 127.5. Counted as those of `round`, its levels "
            "are half a level higher, so the mean here is 128.",
            "The weights `64f` were trained on 64 fields or frames: give --frames 64.",
            "MARS tests all clips of 16 of a video, one after the other. Here the test is 10 clips "
            "at equal distances.",
        ),
    ),
    "torchvision-video": Recipe(
        "R3D-18, MC3-18 and R(2+1)D-18, Kinetics-400",
        "torchvision, models/video/resnet.py",
        ("r2plus1d-18", "r3d-18", "mc3-18"),
        {
            "rgb": StreamRecipe(
                "torchvision-video",
                ClipSpec("rgb", 16, normalization="torchvision-video", crop_px=112),
                "volume",
                ViewSpec(5, 1),
            )
        },
        (
            "torchvision's center crop begins one pixel further to the right, because half of an "
            "odd rest is rounded up there.",
        ),
    ),
    "slow-4x16": Recipe(
        "Slow 4x16, Kinetics-400",
        "facebookresearch/SlowFast",
        ("slow-4x16",),
        _slowfast(4, 16),
    ),
    "slow-8x8": Recipe(
        "Slow 8x8, Kinetics-400",
        "facebookresearch/SlowFast",
        ("slow-8x8",),
        _slowfast(8, 8),
    ),
    **FUSION_RECIPES,
    **RECURRENT_RECIPES,
    "lrcn": Recipe(
        "LRCN, UCF101",
        "Donahue et al., LRCN (CVPR 2015); LisaAnne/lisa-caffe-public",
        ("lrcn",),
        _stream_recipes("lrcn", "lrcn", "volume", VIEWS["250"]),
        (
            "The release's biases have twice the rate and no decay, except those of the LSTM.",
            "The release tests clips that begin every 8 frames, and not 25 clips.",
        ),
    ),
    **HISTORY_RECIPES,
    **RECENT_RECIPES,
}

RECIPES: dict[RecipeName, Recipe] = {
    name: dataclasses.replace(
        recipe,
        streams={
            stream: dataclasses.replace(one, training=TRAININGS.get(name, {}).get(stream))
            for stream, one in recipe.streams.items()
        },
    )
    for name, recipe in _RECIPES.items()
}
"""Published recipes by name, with the published trainings."""


def stream_recipe(name: RecipeName, stream: StreamName) -> StreamRecipe:
    """Returns what a recipe says for a stream. Raises ConfigError if it has no such stream."""
    streams = RECIPES[name].streams
    if stream not in streams:
        raise ConfigError(
            f"stream must be {' or '.join(streams)} for recipe {name}, got {stream!r}"
        )
    return streams[stream]


def recipe_options(name: RecipeName, stream: StreamName, model: str) -> NetworkOptions | None:
    """Returns the options with which a recipe trains the network called `model`.

    None if it does not say, or trains another network.
    """
    training = stream_recipe(name, stream).training
    return training.model.options if training and training.model.model == model else None


def recipe_clip(
    name: RecipeName, stream: StreamName, model: str, options: NetworkOptions | None = None
) -> ClipSpec:
    """Returns what the network called `model` sees of a clip in a test, by a recipe.

    A network of single clips gets one clip of a video at a time, whatever the recipe's segments.
    Options of the network that change its inputs change the clip.
    """
    clip = stream_recipe(name, stream).clip
    if find_network(model).sees == "clip":
        clip = dataclasses.replace(clip, num_segments=1)
    return _adapted_clip(clip, name, model, options)


def _adapted_clip(
    clip: ClipSpec, name: RecipeName, model: str, options: NetworkOptions | None
) -> ClipSpec:
    """Returns a clip of a recipe for a network with other options than the recipe's."""
    network = find_network(model)
    adapted = network.with_options(options)
    usual = network.with_options(recipe_options(name, clip.stream, model))
    if options is None or adapted == usual:
        return clip
    first, *_ = clip_inputs(model, clip.stream, options=options)
    resize_px = clip.resize_short_px
    return dataclasses.replace(
        clip,
        num_frames=first.num_frames,
        frame_stride=first.frame_stride,
        crop_px=adapted.crop_px,
        resize_short_px=resize_px and round(resize_px * adapted.crop_px / clip.crop_px),
    )


def training_config(
    name: RecipeName,
    stream: StreamName,
    model: str | None = None,
    options: NetworkOptions | None = None,
) -> TrainConfig:
    """Returns the training of a recipe, for its own network or for another one.

    Where no training is published, the clips are the recipe's, and the schedule is the default.
    Options of the network that change its inputs change the clips. Raises ConfigError for a stream
    that the recipe or the network does not have.
    """
    model = model or RECIPES[name].networks[0]
    config = stream_recipe(name, stream).training
    if config is None:
        config = default_config(model, stream)
        config = dataclasses.replace(config, clip=recipe_clip(name, stream, model))
    clip = _adapted_clip(config.clip, name, model, options)
    if options is None or clip == config.clip:
        return config
    spec = dataclasses.replace(config.model, model=model, options=options)
    return dataclasses.replace(config, model=spec, clip=clip)


def default_config(
    model: str, stream: StreamName, options: NetworkOptions | None = None
) -> TrainConfig:
    """Returns the default configuration of `model` if the user names no recipe.

    Its clips are the published ones for this kind of network, with these options of its own. Its
    schedule suits small data sets.
    """
    network = find_network(model).with_options(options)
    first, *_ = clip_inputs(model, stream, options=options)
    clip = ClipSpec(
        stream,
        first.num_frames,
        first.frame_stride,
        num_segments=network.num_segments,
        subtract_mean_flow=network.subtract_mean_flow and sees_flow(stream),
        normalization=network.normalization,
    )
    if network.has_one_size:
        clip = dataclasses.replace(clip, crop_px=network.crop_px)
    augment = AugmentSpec()
    if network.recipe is not None:
        streams = RECIPES[network.recipe].streams
        published = streams.get(stream, next(iter(streams.values()))).training
        augment = augment if published is None else published.augment
    spec = ModelSpec(model) if options is None else ModelSpec(model, options=options)
    return TrainConfig(spec, clip, augment, OptimizationSpec())
