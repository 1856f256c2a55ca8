"""TimeSformer: Bertasius, Wang and Torresani, "Is Space-Time Attention All You Need for Video
Understanding?" (ICML 2021), with the five kinds of attention of its section 3.

A ViT-B/16 (Dosovitskiy et al., ICLR 2021) over the patches of all frames. `space`, `joint` and
`divided`, their first weights and the names of all tensors but fc's are those of the release
(facebookresearch/TimeSformer, models/vit.py). It differs from the paper in one point: the attention
over time of `divided` leaves out the class token.

The release has no `local-global` (L+G) and no `axial` (T+W+H). They follow the paper: each step has
its own queries, keys and values, and the class token is among the tokens that each patch attends
to. Section 3, figures 2 and 3, and the parameters of table 1 give the rest: each step before the
last has a norm, an attention and a layer that begins at zero, as the attention over time of
`divided` has. L+G: H/2 x W/2 patches of all frames, then every second patch in time, height and
width. T+W+H: time, width, height. The paper leaves open what the class token does there: here it
attends to all tokens. Odd halves are rounded up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.drop_path import DropPath, spread_rates
from flowprep.learn.layers.neighborhood_attention import (
    Attention,
    Neighborhood,
    lattices,
    lines,
    windows,
)
from flowprep.learn.models.base import ClipModel
from flowprep.learn.network_options import AttentionName, TimeSformerSize

__all__ = ["TimeSformer"]

PATCH_PX = 16
CHANNELS, NUM_HEADS, NUM_BLOCKS = 768, 12, 12
"""Of ViT-B (Dosovitskiy et al. 2021, table 1)."""
EPSILON = 1e-6
DROP_PATH = 0.1
"""The rate of the last block (facebookresearch/TimeSformer, models/vit.py)."""

STEPS: dict[AttentionName, tuple[str, ...]] = {
    "space": (),
    "joint": (),
    "divided": ("temporal",),
    "local-global": ("local",),
    "axial": ("temporal", "width"),
}
"""The names of the attentions before the last one."""


class TimeSformer(ClipModel):
    """A network over (N, C, L, H, W) with H = W = `crop_px`, whose patches its embeddings count.

    `width` multiplies the channels, and with them the heads of 64 channels.
    """

    time_embed: nn.Parameter

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        width: float = 1.0,
        dropout: float = 0.0,
        crop_px: int = 224,
        attention: AttentionName = "divided",
        size: TimeSformerSize = "base",
    ) -> None:
        """`dropout` applies to the features. `size` only names the published clip, which `inputs`
        and `crop_px` describe. Raises ConfigError for a crop that has no patch.
        """
        super().__init__(inputs)
        (clip,) = self.inputs
        self.attention, self.size = attention, size
        side = crop_px // PATCH_PX
        if side < 1:
            raise ConfigError(f"crop_px must be at least {PATCH_PX} for timesformer, got {crop_px}")
        self.grid = (clip.num_frames, side, side)
        heads = max(1, round(NUM_HEADS * width))
        channels = heads * max(1, round(CHANNELS * width / heads))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side**2, channels))
        if attention != "space":
            self.time_embed = nn.Parameter(torch.zeros(1, clip.num_frames, channels))
        self.patch_embed = PatchEmbedding(clip.num_channels, channels)
        kind = DividedBlock if attention == "divided" else Block
        self.blocks = nn.ModuleList(
            kind(channels, heads, STEPS[attention], rate)
            for rate in spread_rates(DROP_PATH, NUM_BLOCKS)
        )
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        embeddings = [name for name, _ in self.named_parameters(recurse=False)]
        *blocks, last = (f"blocks.{number}" for number in range(NUM_BLOCKS))
        self.stages = (
            ("patch_embed", *embeddings),
            *((block,) for block in blocks),
            (last, "norm"),
        )
        # What the class token attends to at last.
        self.map_layers = (f"{last}.norm1",)
        # facebookresearch/TimeSformer, models/helpers.py, load_pretrained.
        self.begins_as = {
            name: name.replace(f"{step}_", "")
            for step in STEPS[attention]
            for name, _ in self.named_parameters()
            if re.search(rf"\.{step}_(norm1|attn)\.", name)
        }
        if attention != "space":
            self.frames_at = ("time_embed", 1)
        self._init_weights()

    def _init_weights(self) -> None:
        """Draws the first weights as the release does. Embeddings of time begin at zero."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                _init_linear(layer)
        for block in self.blocks:
            for step in STEPS[self.attention]:
                nn.init.zeros_(block.get_parameter(f"{step}_fc.weight"))

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the class token after the last norm, (N, 768 * width)."""
        num_clips, frames = len(x), x.shape[2]
        x = self.patch_embed(x.transpose(1, 2).flatten(0, 1))  # (N T, H W, D)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        if self.attention != "space":
            patches = x[:, 1:].reshape(num_clips, frames, -1, x.shape[2])
            patches = patches + self.time_embed.unsqueeze(2)
            # The class tokens of all frames are equal.
            x = torch.cat([x[::frames, :1], patches.flatten(1, 2)], 1)  # (N, 1 + T H W, D)
        near = self._neighborhoods(x.device)
        for block in self.blocks:
            x = block(x, frames, near)
        if self.attention == "space":
            x = x.view(num_clips, frames, *x.shape[1:]).mean(1)
        features: torch.Tensor = self.norm(x[:, 0])
        return features

    def _neighborhoods(self, device: torch.device) -> tuple[Neighborhood | None, ...]:
        """Returns what the patches attend to in each step of a block; None for all tokens."""
        _, height, width = self.grid
        near: Sequence[Neighborhood] = ()
        if self.attention == "local-global":
            half = (-(-height // 2), -(-width // 2))
            near = (windows(self.grid, half), lattices(self.grid, (2, 2, 2)))
        elif self.attention == "axial":
            near = [lines(self.grid, axis) for axis in (0, 2, 1)]
        return tuple(one.to(device) for one in near) or (None,)

    def resize(self, name: str, value: torch.Tensor) -> torch.Tensor | None:
        """Returns embeddings for other places or frames: those of the nearest ones.

        As the release does for clips of another size. Before a training it resizes the places of an
        image as one line; here they are always a square.
        """
        if value.dim() != 3 or len(value) != 1:
            return None
        if name == "time_embed" and value.shape[1] not in (0, self.grid[0]):
            return F.interpolate(value.mT.float(), self.grid[0], mode="nearest").mT
        side = math.isqrt(max(0, value.shape[1] - 1))
        if name != "pos_embed" or side in (0, self.grid[1]) or 1 + side**2 != value.shape[1]:
            return None
        square = value[:, 1:].mT.float().reshape(1, -1, side, side)
        places = F.interpolate(square, self.grid[1:], mode="nearest").flatten(2).mT
        return torch.cat([value[:, :1].float(), places], 1)

    def arrange_maps(self, output: torch.Tensor) -> torch.Tensor:
        """Returns the patches among tokens (B, 1 + L, D) as maps (B, D, h, w) or (B, D, T, h, w).

        Some attentions see each frame by itself, and others a whole clip.
        """
        # (B, D, T, h, w)
        places = torch.unflatten(output[:, 1:].mT, 2, (-1, *self.grid[1:]))
        return places[:, :, 0] if places.shape[2] == 1 else places

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        _init_linear(self.fc)


class PatchEmbedding(nn.Module):
    """Turns images (N, C, H, W) into the vectors of their patches, (N, H/16 W/16, D)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, PATCH_PX, PATCH_PX)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches: torch.Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return patches


class Block(nn.Module):
    """One or more attentions, and a perceptron: (N, L, D) to (N, L, D).

    `steps` are the names of the attentions before the last, each with a layer of its own behind it.
    """

    def __init__(self, channels: int, num_heads: int, steps: Sequence[str], rate: float) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.norm1 = nn.LayerNorm(channels, EPSILON)
        self.attn = Attention(channels, num_heads)
        for step in steps:
            self.add_module(f"{step}_norm1", nn.LayerNorm(channels, EPSILON))
            self.add_module(f"{step}_attn", Attention(channels, num_heads))
            self.add_module(f"{step}_fc", nn.Linear(channels, channels))
        self.drop_path = DropPath(rate)
        self.norm2 = nn.LayerNorm(channels, EPSILON)
        self.mlp = Perceptron(channels)

    def forward(
        self, x: torch.Tensor, num_frames: int, near: Sequence[Neighborhood | None]
    ) -> torch.Tensor:
        """Takes the frames of a clip, and what the patches attend to in each attention."""
        x = self.attend(x, num_frames, near)
        done: torch.Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return done

    def attend(
        self, x: torch.Tensor, num_frames: int, near: Sequence[Neighborhood | None]
    ) -> torch.Tensor:
        """Returns the tokens after all attentions."""
        for step, own in zip(self.steps, near, strict=False):
            x = x + self.before_last(step, x, own)
        done: torch.Tensor = x + self.drop_path(self.attn(self.norm1(x), near[-1]))
        return done

    def before_last(
        self, step: str, x: torch.Tensor, near: Neighborhood | None = None
    ) -> torch.Tensor:
        """Returns the branch of an attention before the last one."""
        y = self.get_submodule(f"{step}_norm1")(x)
        y = self.drop_path(self.get_submodule(f"{step}_attn")(y, near))
        branch: torch.Tensor = self.get_submodule(f"{step}_fc")(y)
        return branch


class DividedBlock(Block):
    """Attention over time at each place, then over each frame: the release's divided attention.

    The class token takes part in the second. Each frame has its own result for it; their mean
    counts.
    """

    def attend(
        self, x: torch.Tensor, num_frames: int, near: Sequence[Neighborhood | None]
    ) -> torch.Tensor:
        """Returns the tokens after both attentions."""
        token = x[:, :1]
        patches = x[:, 1:].reshape(len(x), num_frames, -1, x.shape[2])  # (N, T, H W, D)
        along_time = patches.transpose(1, 2)  # (N, H W, T, D)
        branch = self.before_last("temporal", along_time.flatten(0, 1))
        patches = patches + branch.view_as(along_time).transpose(1, 2)
        tokens = token.unsqueeze(1).expand(-1, num_frames, -1, -1)
        frames = torch.cat([tokens, patches], 2)  # (N, T, 1 + H W, D)
        branch = self.drop_path(self.attn(self.norm1(frames.flatten(0, 1)))).view_as(frames)
        token = token + branch[:, :, 0].mean(1, keepdim=True)
        return torch.cat([token, (patches + branch[:, :, 1:]).flatten(1, 2)], 1)


class Perceptron(nn.Module):
    """Two linear layers with four times the channels between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


def _init_linear(layer: nn.Linear) -> None:
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
