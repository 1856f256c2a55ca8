"""Planning a run: which videos a data set holds, and which are to be added."""

from __future__ import annotations

import dataclasses

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import DATASET_FILE, MANIFEST_FILE, DatasetHeader, read_manifest
from flowprep.dataset.lost_plan import lost_header, named_classes, read_lost_plan
from flowprep.dataset.plan import (
    Plan,
    assign_shards,
    extend_plan,
    merge_class_names,
    refuse_foreign_files,
)
from flowprep.flow.estimators import implementation_of, parse_parameters
from flowprep.flow.parameters import OwnParameters
from flowprep.inputs.manifest import Manifest
from flowprep.run.extract import library_versions
from flowprep.run.stored_keys import with_stored_keys
from flowprep.storage import Storage
from flowprep.urls import redacted

__all__ = ["make_plan", "with_all_parameters"]


def with_all_parameters(config: ExtractConfig) -> ExtractConfig:
    """Returns the configuration with the defaults of a user's own estimator filled in.

    Raises ConfigError for an estimator that cannot be loaded, and for parameters that it refuses.
    """
    flow = config.flow
    if not isinstance(flow.parameters, OwnParameters):
        return config
    parameters = parse_parameters(flow.algorithm, flow.parameters.values)
    return dataclasses.replace(config, flow=dataclasses.replace(flow, parameters=parameters))


def make_plan(storage: Storage, manifest: Manifest, config: ExtractConfig) -> Plan:
    """Returns the plan for `manifest` in a new data set, or for adding it to an existing one.

    Writes nothing. Raises ConfigMismatchError if the stored configuration gives other numbers,
    InputError if a known video now has other labels, DatasetError if the folder holds something
    else.
    """
    config = with_all_parameters(config)
    implementation = implementation_of(config.flow.algorithm, config.flow.parameters)
    notes: list[str] = []
    if storage.exists(DATASET_FILE):
        header = DatasetHeader.read(storage)
        header.check_same(config, implementation, storage.location)
        is_lost = False
    else:
        found = lost_header(storage, config, implementation)
        if found is None:
            refuse_foreign_files(storage)
            header = DatasetHeader(
                config, implementation, manifest.class_names, library_versions(config)
            )
            entries = assign_shards(manifest.videos, 0, config.encode.videos_per_shard)
            return Plan(header, [], entries)
        header, is_lost = found, True
        notes.append(f"{DATASET_FILE} was lost; made anew from this command")
    per_shard = header.config.encode.videos_per_shard
    lost = None if storage.exists(MANIFEST_FILE) else read_lost_plan(storage)
    known = read_manifest(storage) if lost is None else lost.entries
    videos, key_notes = with_stored_keys(known, manifest.videos)
    if is_lost:
        names = named_classes(known, videos, manifest.class_names)
        header = dataclasses.replace(header, class_names=names)
    class_names, labels = merge_class_names(header.class_names, manifest.class_names)
    if labels is not None:
        videos = tuple(
            dataclasses.replace(video, labels=tuple(labels[label] for label in video.labels))
            for video in videos
        )
    if lost is not None:
        known = lost.known(videos, per_shard)
        if known:
            notes.append(f"{MANIFEST_FILE} was lost; made anew from the shards and the inputs")
    header = dataclasses.replace(header, class_names=class_names)
    stored_names = dict(enumerate(class_names))
    entries = extend_plan(known, videos, config.encode.videos_per_shard, stored_names)
    return Plan(header, known, entries, tuple(map(redacted, (*notes, *key_notes))))
