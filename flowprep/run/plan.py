"""Planning a run: which videos a data set holds, and which are to be added."""

from __future__ import annotations

import dataclasses
import itertools

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import (
    DATASET_FILE,
    MANIFEST_FILE,
    DatasetHeader,
    ManifestEntry,
    read_manifest,
)
from flowprep.dataset.lost_plan import lost_header, named_classes, read_lost_plan
from flowprep.dataset.plan import (
    Plan,
    assign_shards,
    extend_plan,
    merge_class_names,
    refuse_foreign_files,
)
from flowprep.dataset.unfilled import is_unfilled, unfilled_note
from flowprep.errors import ConfigMismatchError, InputError
from flowprep.inputs.manifest import Manifest
from flowprep.run.options import with_all_parameters
from flowprep.run.stored_keys import with_stored_keys
from flowprep.run.versions import Environment, compare, environment, some_are_files, version_note
from flowprep.storage import Storage
from flowprep.urls import redacted

__all__ = ["make_plan"]


def make_plan(storage: Storage, manifest: Manifest, config: ExtractConfig) -> Plan:
    """Returns the plan for `manifest` in a new data set, or for adding it to an existing one.

    One that stores no video yet begins anew if it cannot go on. Writes nothing.

    Raises ConfigMismatchError if the stored configuration gives other numbers, InputError if a
    known video now has other labels, DatasetError if the folder holds something else.
    """
    config = with_all_parameters(config)
    here = environment(config)
    try:
        return _plan(storage, manifest, config, here)
    except (ConfigMismatchError, InputError) as error:
        if not storage.exists(DATASET_FILE) or not is_unfilled(storage):
            raise
        changed = list(error.differences) if isinstance(error, ConfigMismatchError) else []
    header = DatasetHeader(config, here.implementation, manifest.class_names, here.versions)
    entries = assign_shards(manifest.videos, 0, config.encode.videos_per_shard)
    notes = (redacted(unfilled_note(storage, changed)),)
    return Plan(header, [], entries, notes, begins_anew=True)


def _plan(storage: Storage, manifest: Manifest, config: ExtractConfig, here: Environment) -> Plan:
    """Returns the plan; see `make_plan`. Raises its errors for a data set without a video too."""
    notes: list[str] = []
    if storage.exists(DATASET_FILE):
        header = DatasetHeader.read(storage)
        is_lost = False
    else:
        found = lost_header(storage, config, here.implementation)
        if found is None:
            refuse_foreign_files(storage)
            header = DatasetHeader(config, here.implementation, manifest.class_names, here.versions)
            entries = assign_shards(manifest.videos, 0, config.encode.videos_per_shard)
            return Plan(header, [], entries)
        header, is_lost = found, True
        notes.append(f"{DATASET_FILE} was lost; made anew from this command")
    per_shard = header.config.encode.videos_per_shard
    lost = None if storage.exists(MANIFEST_FILE) else read_lost_plan(storage)
    known = read_manifest(storage) if lost is None else lost.entries
    version_notes = _check_same(storage, header, known, manifest, config, here)
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
    return Plan(header, known, entries, (*map(redacted, (*notes, *key_notes)), *version_notes))


def _check_same(
    storage: Storage,
    header: DatasetHeader,
    known: list[ManifestEntry],
    manifest: Manifest,
    config: ExtractConfig,
    here: Environment,
) -> list[str]:
    """Raises ConfigMismatchError where the numbers would be others; returns notes on versions."""
    sources = itertools.chain(
        (entry.video.source for entry in known), (video.source for video in manifest.videos)
    )
    conflict, differing = compare(
        Environment.of(header), here, config.flow.algorithm, lambda: some_are_files(sources)
    )
    # What is to be installed is said alone, where nothing else has to change.
    is_known = conflict is not None and conflict.install != ""
    implementation = header.implementation if is_known else here.implementation
    header.check_same(config, implementation, storage.location)
    if conflict is not None:
        install = f"Install '{conflict.install}', or extract" if conflict.install else "Extract"
        raise ConfigMismatchError(
            f"{storage.location} was extracted with {conflict.then}, this environment has "
            f"{conflict.now}, and {conflict.why}. {install} to a new OUT.",
            {conflict.field: (conflict.then, conflict.now)},
        )
    return version_note(differing, ("in the data set", "in this run"))
