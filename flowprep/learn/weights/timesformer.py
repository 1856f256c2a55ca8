"""Weights of TimeSformer, and of the ViT for images that it begins with.

facebookresearch/TimeSformer holds `model_state`, whose names begin with `model.` (models/vit.py).
They are those of timm's ViT, with `time_embed` and with `temporal_norm1`, `temporal_attn` and
`temporal_fc` of divided attention. transformers (models/timesformer) and mmaction2
(models/backbones/timesformer.py, over PyTorch's MultiheadAttention) have names of their own. Their
configurations call the kinds of attention space_only, joint_space_time and divided_space_time.
"""

from __future__ import annotations

from flowprep.learn.clip_inputs import RecipeName
from flowprep.learn.weights.foreign import IMAGE_KERNEL, ForeignFormat, Hint, Mark, Rule

__all__ = ["TIMESFORMER"]

_NETWORKS = ("timesformer",)
_RECIPES: tuple[RecipeName, ...] = (
    "timesformer",
    "timesformer-hr",
    "timesformer-long",
    "timesformer-ssv2",
    "timesformer-ssv2-hr",
    "timesformer-ssv2-long",
)


def _attention_hint(mark: Mark, attention: str) -> Hint:
    return Hint(
        mark,
        f"Its attention is {attention}: make the network with --attention {attention}.",
        {"attention": attention},
    )


def _size_hints(position: str, time: str) -> tuple[Hint, ...]:
    """Returns what the embeddings of places and of time tell: 28 x 28 patches, or 96 frames."""
    return (
        Hint(
            Mark(time, (1, 96, None)),
            "It sees 96 frames: make the network with --size long.",
            {"size": "long"},
        ),
        Hint(
            Mark(position, (1, 1 + 28**2, None)),
            "It sees crops of 448 px: make the network with --size hr.",
            {"size": "hr"},
        ),
    )


# ---- facebookresearch/TimeSformer and timm

_BEFORE = r"(?:model\.)?"
_RULES = (
    Rule(_BEFORE + r"(cls_token|pos_embed|time_embed)", r"\1"),
    Rule(_BEFORE + r"((?:patch_embed\.proj|norm)\.\w+)", r"\1"),
    Rule(
        _BEFORE + r"(blocks\.\d+\.(?:(?:temporal|local|width)_)?"
        r"(?:norm[12]|attn\.(?:qkv|proj)|fc|mlp\.fc[12])\.\w+)",
        r"\1",
    ),
    Rule(_BEFORE + r"(?:head|fc)\.(\w+)", r"fc.\1"),
)
_PATCHES = Mark(_BEFORE + r"patch_embed\.proj\.weight", IMAGE_KERNEL)
_QKV = Mark(_BEFORE + r"blocks\.0\.attn\.qkv\.weight", (None, None))
_TIME = Mark(_BEFORE + "time_embed")
_DIVIDED = Mark(_BEFORE + r"blocks\.0\.temporal_attn\.qkv\.weight")
_OF_VIDEOS = Mark(r"model\.patch_embed\.proj\.weight")
_SIZES = _size_hints(_BEFORE + "pos_embed", _BEFORE + "time_embed")

_VIT = {
    "timm-vit": ForeignFormat(
        "huggingface/pytorch-image-models",
        "ViT-B/16 for images",
        (_PATCHES, _QKV),
        _RULES,
        _NETWORKS,
        hints=(
            Hint(
                _QKV,
                "It is a network for images, which --attention space averages over the frames; "
                "any other attention begins with it.",
                {"attention": "space"},
            ),
            *_SIZES,
        ),
        absent=(_TIME, _OF_VIDEOS),
    ),
}


# ---- transformers

_LAYER = r"timesformer\.encoder\.layer\.(\d+)\."
_HUGGING_FACE_RULES = (
    Rule(r"timesformer\.embeddings\.cls_token", "cls_token"),
    Rule(r"timesformer\.embeddings\.position_embeddings", "pos_embed"),
    Rule(r"timesformer\.embeddings\.time_embeddings", "time_embed"),
    Rule(r"timesformer\.embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    *(
        Rule(_LAYER + theirs + r"\.(\w+)", rf"blocks.\1.{ours}.\2")
        for theirs, ours in {
            "layernorm_before": "norm1",
            r"attention\.attention\.qkv": "attn.qkv",
            r"attention\.output\.dense": "attn.proj",
            "temporal_layernorm": "temporal_norm1",
            r"temporal_attention\.attention\.qkv": "temporal_attn.qkv",
            r"temporal_attention\.output\.dense": "temporal_attn.proj",
            "temporal_dense": "temporal_fc",
            "layernorm_after": "norm2",
            r"intermediate\.dense": "mlp.fc1",
            r"output\.dense": "mlp.fc2",
        }.items()
    ),
    Rule(r"timesformer\.layernorm\.(\w+)", r"norm.\1"),
    Rule(r"classifier\.(\w+)", r"fc.\1"),
)
_HF_PATCHES = Mark(r"timesformer\.embeddings\.patch_embeddings\.projection\.weight", IMAGE_KERNEL)
_HF_TIME = Mark(r"timesformer\.embeddings\.time_embeddings")
_HF_DIVIDED = Mark(r"timesformer\.encoder\.layer\.0\.temporal_dense\.weight")
_HF_SIZES = _size_hints(
    r"timesformer\.embeddings\.position_embeddings", r"timesformer\.embeddings\.time_embeddings"
)

# ---- mmaction2

_MM_BEFORE = r"(?:backbone\.)?"
_MM_LAYER = _MM_BEFORE + r"transformer_layers\.layers\.(\d+)\."
_MM_PATCHES = Mark(_MM_BEFORE + r"patch_embed\.projection\.weight", IMAGE_KERNEL)
_MM_TIME = Mark(_MM_BEFORE + "time_embed")
_MM_DIVIDED = Mark(_MM_BEFORE + r"transformer_layers\.layers\.0\.attentions\.1\..+")
_MM_SIZES = _size_hints(_MM_BEFORE + "pos_embed", _MM_BEFORE + "time_embed")


def _mmaction2_attention(number: int, ours: str) -> tuple[Rule, ...]:
    """Returns the rules of an attention with PyTorch's names."""
    theirs = rf"{_MM_LAYER}attentions\.{number}\.attn\."
    return (
        Rule(theirs + r"in_proj_(weight|bias)", rf"blocks.\1.{ours}.qkv.\2"),
        Rule(theirs + r"out_proj\.(\w+)", rf"blocks.\1.{ours}.proj.\2"),
    )


_MMACTION2_RULES = (
    Rule(_MM_BEFORE + r"(cls_token|pos_embed|time_embed)", r"\1"),
    Rule(_MM_BEFORE + r"patch_embed\.projection\.(\w+)", r"patch_embed.proj.\1"),
    Rule(_MM_BEFORE + r"norm\.(\w+)", r"norm.\1"),
    Rule(_MM_LAYER + r"ffns\.0\.layers\.0\.0\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    Rule(_MM_LAYER + r"ffns\.0\.layers\.1\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    Rule(r"cls_head\.fc_cls\.(\w+)", r"fc.\1"),
    Rule(r"data_preprocessor\..+", None),
)
_MMACTION2_DIVIDED = (
    *_MMACTION2_RULES,
    *_mmaction2_attention(0, "temporal_attn"),
    *_mmaction2_attention(1, "attn"),
    Rule(_MM_LAYER + r"attentions\.0\.norm\.(\w+)", r"blocks.\1.temporal_norm1.\2"),
    Rule(_MM_LAYER + r"attentions\.0\.temporal_fc\.(\w+)", r"blocks.\1.temporal_fc.\2"),
    Rule(_MM_LAYER + r"attentions\.1\.norm\.(\w+)", r"blocks.\1.norm1.\2"),
    Rule(_MM_LAYER + r"ffns\.0\.norm\.(\w+)", r"blocks.\1.norm2.\2"),
)
_MMACTION2_ONE = (
    *_MMACTION2_RULES,
    *_mmaction2_attention(0, "attn"),
    Rule(_MM_LAYER + r"norms\.0\.(\w+)", r"blocks.\1.norm1.\2"),
    Rule(_MM_LAYER + r"norms\.1\.(\w+)", r"blocks.\1.norm2.\2"),
)


def _formats(
    name: str,
    project: str,
    marks: tuple[tuple[Mark, ...], Mark, Mark],
    rules: tuple[tuple[Rule, ...], tuple[Rule, ...]],
    sizes: tuple[Hint, ...],
    recipes: tuple[RecipeName, ...],
) -> dict[str, ForeignFormat]:
    """Returns the formats of a project for its three kinds of attention.

    `marks` are those of any file, of one with embeddings of time, and of divided attention. `rules`
    are those of divided attention, and those of the others.
    """
    any_file, time, divided = marks
    return {
        name: ForeignFormat(
            project,
            "TimeSformer with divided attention",
            (*any_file, time, divided),
            rules[0],
            _NETWORKS,
            recipes,
            hints=sizes,
        ),
        f"{name}-joint": ForeignFormat(
            project,
            "TimeSformer with joint attention",
            (*any_file, time),
            rules[1],
            _NETWORKS,
            recipes,
            hints=(_attention_hint(any_file[0], "joint"), *sizes),
            absent=(divided,),
        ),
        f"{name}-space": ForeignFormat(
            project,
            "TimeSformer with attention over space, or its ViT for images",
            any_file,
            rules[1],
            _NETWORKS,
            recipes,
            hints=(_attention_hint(any_file[0], "space"), *sizes),
            absent=(time,),
        ),
    }


TIMESFORMER = {
    # Its names are those of the release for attention over space, which comes behind it.
    **_VIT,
    **_formats(
        "facebook-timesformer",
        "facebookresearch/TimeSformer",
        ((_PATCHES, _QKV), _TIME, _DIVIDED),
        (_RULES, _RULES),
        _SIZES,
        _RECIPES,
    ),
    **_formats(
        "huggingface-timesformer",
        "huggingface/transformers",
        ((_HF_PATCHES,), _HF_TIME, _HF_DIVIDED),
        (_HUGGING_FACE_RULES, _HUGGING_FACE_RULES),
        _HF_SIZES,
        _RECIPES,
    ),
    **_formats(
        "mmaction2-timesformer",
        "open-mmlab/mmaction2",
        ((_MM_PATCHES,), _MM_TIME, _MM_DIVIDED),
        (_MMACTION2_DIVIDED, _MMACTION2_ONE),
        _MM_SIZES,
        ("mmaction2-timesformer",),
    ),
}
"""The formats of four projects, by name."""
