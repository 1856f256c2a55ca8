"""Figures of recent networks."""

from __future__ import annotations

from tests.learn.models.figure_row import Row

__all__ = ["RECENT"]

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


SHAPES = {
    "cls_token": (1, 1, 768),
    "pos_embed": (1, 197, 768),
    "time_embed": (1, 8, 768),
    "patch_embed.proj.weight": (768, 3, 16, 16),
    "blocks.0.attn.qkv.weight": (2304, 768),
    "blocks.11.temporal_fc.bias": (768,),
    "blocks.11.mlp.fc1.weight": (3072, 768),
}

RECENT = [
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
        shapes=SHAPES,
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
