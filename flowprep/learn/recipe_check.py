"""Finds what data, or a clip, has otherwise than a published recipe.

recipe_notes     for a training by a recipe, which goes on all the same
check_recipe     for weights of others, which other data would mislead
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from flowprep.config import VERSION_1_VALUES, ExtractConfig
from flowprep.dataset.read import FlowDataset
from flowprep.differences import (
    Differences,
    describe_differences,
    find_differences,
    find_extraction_differences,
    flatten,
    mismatch,
)
from flowprep.learn.clip_inputs import RecipeName, StreamName, sees_flow
from flowprep.learn.config import ClipSpec, ModelSpec
from flowprep.learn.recipes import stream_recipe, training_config

__all__ = ["check_extraction", "check_recipe", "data_differences", "recipe_notes"]

_CLIP_FIELDS = (
    *("num_frames", "frame_stride", "num_segments", "normalization", "subtract_mean_flow"),
    *("resize_short_px", "crop_px", "channel_order"),
)
"""What of a clip a recipe decides."""


def data_differences(
    name: RecipeName, stream: StreamName, config: ExtractConfig, unknown: Collection[str] = ()
) -> Differences:
    """Returns what an extraction has otherwise than a recipe says for a stream.

    The values are those of the data and those of the recipe. `unknown` are fields, or groups of
    them such as `decode`, whose values nobody knows: they do not count.
    """
    before = {f"decode.{field}": value for field, value in VERSION_1_VALUES["DecodeSpec"].items()}
    given = before | flatten(config.to_dict())
    wanted = before | flatten(stream_recipe(name, stream).extract.to_dict())
    found = find_extraction_differences(given, wanted, sees_flow=sees_flow(stream), is_exact=True)
    return {
        field: values
        for field, values in found.items()
        if not any(f"{field}.".startswith(f"{group}.") for group in unknown)
    }


def _clip_differences(clip: ClipSpec, wanted: ClipSpec) -> Differences:
    """Returns what a clip has otherwise than another one: frames, segments, range, crop."""
    one, other = dataclasses.asdict(clip), dataclasses.asdict(wanted)
    return find_differences(one, other, _CLIP_FIELDS)


def recipe_notes(
    name: RecipeName, clip: ClipSpec, model: ModelSpec, datasets: Collection[FlowDataset]
) -> list[str]:
    """Returns a note for each difference between a training by a recipe and the recipe."""
    wanted = training_config(name, clip.stream, model.model, model.options).clip
    notes = [
        f"not as in recipe {name}: {line.strip()}"
        for line in describe_differences(_clip_differences(clip, wanted), ("here", "in the recipe"))
    ]
    for dataset in datasets:
        unknown = _unknown(dataset)
        found = data_differences(name, clip.stream, dataset.config, unknown)
        places = (f"in {dataset.location}", "in the recipe")
        notes += [
            f"not as in recipe {name}: {line.strip()}"
            for line in describe_differences(found, places)
        ]
        notes += _unknown_notes(name, dataset, unknown)
    return list(dict.fromkeys(notes))


def check_recipe(
    name: RecipeName, dataset: FlowDataset, *, stream: StreamName, force: bool = False
) -> list[str]:
    """Checks that a data set is as the recipe of foreign weights says. Returns notes for the user.

    Raises ConfigMismatchError with both values of every difference, unless `force` is set.
    """
    unknown = _unknown(dataset)
    notes = check_extraction(
        name, dataset.config, dataset.location, stream=stream, force=force, unknown=unknown
    )
    return notes + _unknown_notes(name, dataset, unknown)


def check_extraction(
    name: RecipeName,
    config: ExtractConfig,
    what: str,
    *,
    stream: StreamName,
    force: bool = False,
    unknown: Collection[str] = (),
) -> list[str]:
    """Checks an extraction as `check_recipe` does. `what` names the data."""
    differences = data_differences(name, stream, config, unknown)
    if not differences:
        return []
    if force:
        lines = describe_differences(differences, ("here", "in the recipe"))
        return [f"not as in recipe {name}: {line.strip()}" for line in lines]
    preset = stream_recipe(name, stream).preset
    raise mismatch(
        f"{what} is not like the data of recipe {name}, by which the weights were trained",
        differences,
        ("here", "in the recipe"),
        f"Extract the videos with --preset {preset}, name another recipe with --recipe, or add "
        "--force to go on all the same.",
    )


def _unknown(dataset: FlowDataset) -> tuple[str, ...]:
    """Returns the fields that nobody knows of an imported data set."""
    return tuple(dataset.header.origin.get("unknown", ()))


def _unknown_notes(name: RecipeName, dataset: FlowDataset, unknown: Collection[str]) -> list[str]:
    fields = [field for field in unknown if not field.startswith("encode.")]
    if not fields:
        return []
    return [
        f"{dataset.location} was imported, and nobody knows its {', '.join(fields)}; recipe {name} "
        "is compared with the rest; check these yourself"
    ]
