"""Writes the table of docs/recipes.md: `python -m tests.learn.recipes_table`.

Everything in it follows from `flowprep.learn.recipes`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from flowprep.config import ExtractConfig
from flowprep.flow.parameters import PARAMETERS
from flowprep.learn.clip_inputs import StreamName, sees_flow
from flowprep.learn.config import ClipSpec
from flowprep.learn.normalizations import Normalization
from flowprep.learn.recipes import RECIPES, Recipe, StreamRecipe

__all__ = ["PAGE", "table", "written_table"]

PAGE = Path(__file__).parents[2] / "docs/recipes.md"

BEGIN = "<!-- recipes -->"
END = "<!-- end of recipes -->"


def table() -> str:
    """Returns a section for each recipe, as it must stand in the page."""
    return "\n\n".join("\n".join(_section(name, recipe)) for name, recipe in RECIPES.items())


def written_table() -> str:
    """Returns what the page has between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def _section(name: str, recipe: Recipe) -> Iterator[str]:
    yield f"### `{name}`: {recipe.title}"
    yield ""
    models = ", ".join(f"`{one}`" for one in recipe.networks)
    words = " ".join((f"Source: {recipe.source}. `--model`: {models}.", *recipe.remarks))
    yield from textwrap.wrap(words, 120, break_on_hyphens=False, break_long_words=False)
    yield ""
    streams = list(recipe.streams)
    yield f"| | {' | '.join(f'`--stream {stream}`' for stream in streams)} |"
    yield "|---" * (1 + len(streams)) + "|"
    rows = [dict(_rows(stream, one)) for stream, one in recipe.streams.items()]
    for title in dict.fromkeys(title for row in rows for title in row):
        yield f"| {title} | {' | '.join(row.get(title, '') for row in rows)} |"


def _rows(stream: StreamName, recipe: StreamRecipe) -> Iterator[tuple[str, str]]:
    extract = recipe.extract
    decode = extract.decode
    yield "extract", f"`--preset {recipe.preset}`"
    yield "rate", "the source's" if decode.fps is None else f"{decode.fps:g} fps"
    yield "resize", f"{decode.resize}, {decode.interpolation}"
    if decode.crop is not None:
        yield "crop before the flow", f"{decode.crop}, center"
    if sees_flow(stream):
        yield "flow", _flow(extract)
        yield "bound and quantizer", f"{extract.flow.bound_px:g} px, `{extract.flow.quantizer}`"
    yield "clip", _clip(recipe.clip, recipe.form)
    yield "numbers", _numbers(stream, recipe.clip, recipe.normalization)
    resize = recipe.clip.resize_short_px
    crop = f"{recipe.clip.crop_px} x {recipe.clip.crop_px}"
    yield "crop of the network", crop if resize is None else f"{crop} of short side {resize}"
    yield (
        "test",
        f"{recipe.test.num_clips} clips x {recipe.test.num_crops} crops".replace(
            "1 crops", "1 crop"
        ),
    )
    yield "training", "published" if recipe.training is not None else "not known, or none"


def _flow(extract: ExtractConfig) -> str:
    flow = extract.flow
    usual = PARAMETERS[flow.algorithm]()
    changed = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in vars(flow.parameters).items()
        if value != getattr(usual, name)
    ]
    return f"`{flow.algorithm}`" + (f": {', '.join(changed)}" if changed else "")


def _clip(clip: ClipSpec, form: str) -> str:
    nouns = {"flow": "field", "rgb": "frame", "rgb-difference": "difference", "both": "moment"}
    noun = nouns[clip.stream]
    words = f"{form} of {clip.num_frames} {noun}{'s' * (clip.num_frames > 1)}"
    if clip.frame_stride > 1:
        words += f", every {clip.frame_stride}th"
    if clip.num_segments > 1:
        words += f", from {clip.num_segments} segments"
    return words


def _numbers(stream: StreamName, clip: ClipSpec, numbers: Normalization | None) -> str:
    assert numbers is not None
    name = f"`{clip.normalization}`"
    if stream == "rgb-difference":
        return f"{name}: differences of {numbers.rgb_order}"
    colors = f"{numbers.rgb_order} 0 to 255, mean {_each(numbers.rgb_mean)}"
    colors += f", std {_each(numbers.rgb_std)}"
    if stream == "rgb":
        return f"{name}: {colors}"
    unit = "px" if numbers.flow_unit == "px" else "levels of `round`"
    shown = f"x, y as {unit}, mean {_each(numbers.flow_mean)}, std {_each(numbers.flow_std)}"
    without = ", without the mean vector of each field" if clip.subtract_mean_flow else ""
    beside = f"; {colors}" if stream == "both" else ""
    return f"{name}: {shown}{without}{beside}"


def _each(values: tuple[float, ...]) -> str:
    shown = [f"{value:.6g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)


if __name__ == "__main__":
    old = PAGE.read_text(encoding="utf-8")
    head, _, rest = old.partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}", encoding="utf-8")
