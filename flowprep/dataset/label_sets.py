"""Writes the label sets of an annotation, such as verb and noun, as named labels of a data set.

    publish_label_sets(storage, manifest.label_sets, plan.entries) -> OUT/labels/verb.jsonl, ...

A run that adds videos adds their lines. Labels that somebody made under the same name stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flowprep.dataset.labels import (
    LabelsHeader,
    VideoLabels,
    labels_content,
    labels_file,
    publish_labels,
    read_labels,
)
from flowprep.dataset.layout import ManifestEntry
from flowprep.errors import InputError
from flowprep.inputs.label_sets import NamedSet
from flowprep.storage import Storage

__all__ = ["publish_label_sets"]


def publish_label_sets(
    storage: Storage, sets: Iterable[NamedSet], entries: Sequence[ManifestEntry]
) -> list[str]:
    """Writes each label set for the videos of the plan that have labels in it; returns notes.

    Raises InputError if the data set holds the set with other class names, DatasetError if its file
    is damaged.
    """
    notes = []
    for one in sets:
        known, lines = _known(storage, one.name)
        if known is not None and known.source != one.source:
            notes.append(
                f"left the labels {one.name} as they are, because they are of another source, "
                f"{known.source}; remove {labels_file(one.name)} to have those of {one.source}"
            )
            continue
        class_names = one.class_names
        if known is not None and known.class_names != class_names:
            # A list without names of classes says nothing against names that are there.
            if known.class_names and class_names:
                raise InputError(
                    f"classes of the labels {one.name} must be those that {storage.location} has, "
                    f"got others; put the same file of classes beside the list, or remove "
                    f"{labels_file(one.name)}"
                )
            class_names = known.class_names or class_names
        for entry in entries:
            video = entry.video
            if video.named_labels is not None and one.name in video.named_labels:
                labels = video.named_labels[one.name]
                lines[video.key] = VideoLabels(video.key, labels, video.split)
        ordered = [lines[e.video.key] for e in entries if e.video.key in lines]
        content = labels_content(class_names, one.source, ordered)
        publish_labels(storage, one.name, content, replace=True)
    return notes


def _known(storage: Storage, name: str) -> tuple[LabelsHeader | None, dict[str, VideoLabels]]:
    if not storage.exists(labels_file(name)):
        return None, {}
    header, parts = read_labels(storage, name)
    return header, {one.key: one for part in parts for one in part}
