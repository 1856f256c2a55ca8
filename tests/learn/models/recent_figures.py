"""The figures of recent networks: SlowFast, GSM with Inception-V3, TimeSformer."""

from __future__ import annotations

from tests.learn.models.figure_row import Row

__all__ = ["RECENT"]

R50 = (320, 267)
"""Tensors of a ResNet-50, with and without counters."""
BOTH = (2 * 318 + 4 * 6 + 2, 2 * 265 + 4 * 5 + 2)
"""Two trunks, four lateral convolutions with a batch norm each, one classifier."""
FUSED = sum(2 * channels**2 for channels in (8, 32, 64, 128))
"""Weights of the lateral convolutions for each frame that they see."""
NORMS = 2 * sum(2 * channels for channels in (8, 32, 64, 128))
"""Weights of their batch norms."""


def fast_parameters(in_channels: int, num_classes: int) -> int:
    """A ResNet-50 of 8 channels with three frames in each block, and five in the first layer."""
    count, before = in_channels * 8 * 5 * 49 + 2 * 8, 8
    for stage, depth in enumerate((3, 4, 6, 3)):
        inner, wide = 8 << stage, 32 << stage
        for block in range(depth):
            count += 3 * before * inner + 9 * inner**2 + inner * wide + 2 * (2 * inner + wide)
            if block == 0:
                count += before * wide + 2 * wide
            before = wide
    return count + 256 * num_classes + num_classes


def gate_parameters(*channels: int) -> int:
    """Sudhakaran et al. 2020, section 3.2: 27 weights for each channel, two biases, a batch norm:
    1,858 at 64 channels."""
    return sum(27 * one + 2 + 2 * one for one in channels)


BN_INCEPTION_GATES = gate_parameters(64, 64, 128, 224, 192, 160, 96, 128, 352, 352)
INCEPTION_V3_GATES = gate_parameters(64, 64, 64, 64, 192, 192, 192, 192, 320, 320)

SHAPES = {
    "slow.conv1.weight": (64, 3, 1, 7, 7),
    "fast.conv1.weight": (8, 3, 5, 7, 7),
    "slow.layer1.0.conv1.weight": (64, 80, 1, 1, 1),
    "slow.layer2.0.conv1.weight": (128, 320, 1, 1, 1),
    "slow.layer3.0.conv1.weight": (256, 640, 3, 1, 1),
    "slow.layer4.0.conv1.weight": (512, 1280, 3, 1, 1),
    "fast.layer4.0.conv1.weight": (64, 128, 3, 1, 1),
    "fc.weight": (400, 2304),
}


CHANNELS, BLOCKS = 768, 12
FRAMES, PATCHES = 8, 14 * 14

STEP = (
    3 * CHANNELS * CHANNELS + 3 * CHANNELS  # queries, keys and values
    + 2 * (CHANNELS * CHANNELS + CHANNELS)  # the heads joined, and the layer behind them
    + 2 * CHANNELS  # norm
)  # fmt: skip
"""Parameters of one more attention in a block."""

VIT = 86_106_256
"""Parameters of ViT-B/16 with 400 classes (Dosovitskiy et al. 2021: 86 M)."""


def block_gmacs(steps: int, compared: int) -> float:
    """Multiply-adds of twelve blocks over all patches and one class token.

    `steps` attentions before the last, and `compared` pairs of tokens in all attentions.
    """
    tokens = 1 + FRAMES * PATCHES
    linear = (4 + 8 + 5 * steps) * CHANNELS**2 * tokens
    return BLOCKS * (linear + 2 * compared * CHANNELS) / 1e9


def sparse_gmacs(steps: int, *neighbors: int) -> float:
    """Multiply-adds of a network whose patches attend to so many others in each attention."""
    patches = FRAMES * PATCHES
    pairs = sum(patches * (1 + count) + 1 + patches for count in neighbors)
    embedding = patches * 3 * 16**2 * CHANNELS / 1e9
    return embedding + block_gmacs(steps, pairs) + CHANNELS * 400 / 1e9


TIMESFORMER_SHAPES = {
    "cls_token": (1, 1, 768),
    "pos_embed": (1, 197, 768),
    "time_embed": (1, 8, 768),
    "patch_embed.proj.weight": (768, 3, 16, 16),
    "blocks.0.attn.qkv.weight": (2304, 768),
    "blocks.11.temporal_fc.bias": (768,),
    "blocks.11.mlp.fc1.weight": (3072, 768),
}


RECENT = [
    # facebookresearch/SlowFast, configs/Kinetics/c2/SLOWFAST_4x16_R50 and SLOWFAST_8x8_R50.
    Row(
        "slowfast-4x16",
        "rgb",
        400,
        parameters=34_480_216,
        gmacs=27.64,
        tensors=BOTH,
        shapes={**SHAPES, "laterals.layer3.conv.weight": (256, 128, 5, 1, 1)},
    ),
    Row("slowfast-4x16", "rgb", 400, 256, parameters=34_480_216, gmacs=36.10),
    Row(
        "slowfast-8x8",
        "rgb",
        400,
        parameters=34_566_488,
        gmacs=50.31,
        tensors=BOTH,
        shapes={**SHAPES, "laterals.conv1.conv.weight": (16, 8, 7, 1, 1)},
    ),
    Row("slowfast-8x8", "rgb", 400, 256, parameters=34_566_488, gmacs=65.71),
    # Five frames in place of seven.
    Row(
        "slowfast-8x8",
        "rgb",
        400,
        parameters=34_566_488 - 2 * FUSED,
        options={"lateral_frames": 5},
    ),
    # mmaction2's, without the norms: 640 tensors in the trunk.
    Row(
        "slowfast-8x8",
        "rgb",
        400,
        parameters=34_566_488 - NORMS,
        tensors=(640 + 2, 640 + 2 - 2 * 53),
        options={"lateral_norm": False},
    ),
    # Flow has two channels where frames have three.
    Row(
        "slowfast-4x16",
        "flow",
        400,
        parameters=34_480_216 - 49 * (64 + 5 * 8),
        tensors=BOTH,
    ),
    Row("fast", "rgb", 400, parameters=fast_parameters(3, 400), tensors=R50),
    Row("fast", "flow", 101, parameters=fast_parameters(2, 101), tensors=R50),
    # swathikirans/GSM at 174 classes, as built from its yaml files.
    Row(
        "gsm-bn-inception",
        "rgb",
        174,
        parameters=10_499_650,
        gmacs=16.34,
        tensors=(555, 476),
        shapes={
            "base.gates.inception_3a_1x1.conv.weight": (2, 32, 3, 3, 3),
            "base.gates.inception_3c_3x3_reduce.conv.weight": (2, 64, 3, 3, 3),
            "base.gates.inception_5b_1x1.bn.weight": (352,),
        },
    ),
    Row("gsm-bn-inception", "rgb", 174, gmacs=32.68, num_segments=16),
    Row(
        "gsm-bn-inception",
        "flow",
        174,
        parameters=10_448_590 + BN_INCEPTION_GATES + 7 * 64 * 49,
        tensors=(555, 476),
    ),
    Row("inception-v3", "rgb", 174, 229, parameters=22_159_310, tensors=(660, 566)),
    Row(
        "gsm-inception-v3",
        "rgb",
        174,
        229,
        parameters=22_207_586,
        gmacs=26.69,
        tensors=(730, 626),
        shapes={
            "base.gates.mixed_3_tower_conv.conv.weight": (2, 32, 3, 3, 3),
            "base.gates.mixed_10_conv.conv.weight": (2, 160, 3, 3, 3),
            "base.mixed_9_tower_1_mixed_conv.weight": (384, 384, 3, 1),
        },
    ),
    Row("gsm-inception-v3", "rgb", 174, 229, gmacs=53.39, num_segments=16),
    # Five fields have ten channels where a frame has three.
    Row(
        "gsm-inception-v3",
        "flow",
        174,
        229,
        parameters=22_159_310 + INCEPTION_V3_GATES + 7 * 32 * 9,
        tensors=(730, 626),
    ),
    # facebookresearch/TimeSformer, built with each configuration. The paper's table 1, without
    # embeddings of time: 85.9 M, 121.4 M and 156.8 M parameters, with 174 classes.
    Row(
        "timesformer",
        "rgb",
        400,
        parameters=VIT,
        gmacs=140.50,
        tensors=(152, 152),
        options={"attention": "space"},
    ),
    Row("timesformer", "rgb", 174, millions=85.9, digits=1, options={"attention": "space"}),
    Row(
        "timesformer",
        "rgb",
        400,
        parameters=VIT + FRAMES * CHANNELS,
        gmacs=179.56,
        tensors=(153, 153),
        options={"attention": "joint"},
    ),
    Row(
        "timesformer",
        "rgb",
        400,
        parameters=121_566_352,
        gmacs=195.83,
        tensors=(249, 249),
        shapes=TIMESFORMER_SHAPES,
    ),
    Row("timesformer", "rgb", 174, millions=121.4, digits=1),
    Row(
        "timesformer",
        "rgb",
        400,
        448,
        parameters=122_024_080,
        gmacs=1702.69,
        tensors=(249, 249),
        options={"size": "hr"},
    ),
    Row(
        "timesformer",
        "rgb",
        400,
        parameters=121_633_936,
        gmacs=2379.86,
        options={"size": "long"},
    ),
    Row(
        "timesformer",
        "flow",
        400,
        parameters=121_369_744,
        gmacs=195.52,
        tensors=(249, 249),
        shapes={"patch_embed.proj.weight": (768, 2, 16, 16)},
    ),
    # L+G and T+W+H by arithmetic, and by table 1.
    Row(
        "timesformer",
        "rgb",
        400,
        parameters=VIT + FRAMES * CHANNELS + BLOCKS * STEP,
        gmacs=sparse_gmacs(1, FRAMES * 7 * 7, FRAMES // 2 * 7 * 7),
        tensors=(249, 249),
        shapes={"blocks.3.local_attn.qkv.weight": (2304, 768)},
        options={"attention": "local-global"},
    ),
    Row("timesformer", "rgb", 174, millions=121.4, digits=1, options={"attention": "local-global"}),
    Row(
        "timesformer",
        "rgb",
        400,
        parameters=VIT + FRAMES * CHANNELS + 2 * BLOCKS * STEP,
        gmacs=sparse_gmacs(2, FRAMES, 14, 14),
        tensors=(345, 345),
        shapes={"blocks.3.width_fc.weight": (768, 768)},
        options={"attention": "axial"},
    ),
    Row("timesformer", "rgb", 174, millions=156.8, digits=1, options={"attention": "axial"}),
]
