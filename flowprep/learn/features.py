"""Features of whole videos, window by window, for tools downstream.

a data set   -> clips, as in a test                  -> networks -> files
raw videos   -> decode, flow, levels -> the same     -> networks -> files, on workers

extract_features("flow/", "features/", checkpoint="runs/flow")
for video in open_features("features/"): ...
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowprep.config import ExecutorName, ExtractConfig, RunOptions
from flowprep.dataset.layout import (
    DATASET_FILE,
    FAILURES_FILE,
    LOGS_FOLDER,
    PARTS_FOLDER,
    Failure,
    read_failures,
    write_failures,
)
from flowprep.dataset.lease import locked_dataset
from flowprep.dataset.plan import merge_class_names
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.differences import find_differences, flatten, mismatch
from flowprep.errors import ConfigError, DatasetError, InputError
from flowprep.extras import extra_needed
from flowprep.inputs.manifest import Manifest, collect_videos
from flowprep.inputs.video import Video
from flowprep.learn.checkpoint import average_note, check_data, library_versions
from flowprep.learn.clip_inputs import RecipeName, StreamName
from flowprep.learn.clips.select import check_clip
from flowprep.learn.evaluate import checkpoint_notes
from flowprep.learn.features_config import CLIP_OPTIONS, POOL, FeatureSpec
from flowprep.learn.features_files import FeatureSet, VideoFeatures, open_features, read_config
from flowprep.learn.features_network import NetworkSource, check_layer, load_networks
from flowprep.learn.features_notes import FeatureReport
from flowprep.learn.features_run import DatasetRun, RawRun
from flowprep.learn.features_sources import (
    Trained,
    checkpoint_sources,
    extraction,
    stored_extraction,
    weights_sources,
    with_window,
)
from flowprep.learn.features_work import FeatureWork, windows_of
from flowprep.learn.features_write import finished_videos, join_videos, write_config
from flowprep.learn.placement import default_loaders, resolve_device
from flowprep.learn.recipe_check import check_extraction, check_recipe
from flowprep.run.driver import run_extract
from flowprep.run.options import check_options, with_all_parameters
from flowprep.run.run_log import run_log
from flowprep.run.versions import environment
from flowprep.storage import Storage
from flowprep.urls import redacted
from flowprep.words import format_count

__all__ = [
    "FeatureReport",
    "FeatureSet",
    "FeatureSpec",
    "VideoFeatures",
    "extract_features",
    "is_dataset",
    "open_features",
]

Names = str | os.PathLike[str]


def extract_features(
    videos: Names | Sequence[Names] | Manifest | FlowDataset,
    to: Names,
    spec: FeatureSpec | None = None,
    *,
    checkpoint: Names | Sequence[Names] = (),
    model: str | None = None,
    weights: Names | Sequence[Names] = (),
    stream: StreamName | None = None,
    recipe: RecipeName | None = None,
    clip: Mapping[str, Any] | None = None,
    task: str | None = None,
    config: ExtractConfig | None = None,
    decode: Mapping[str, Any] | None = None,
    labels: str | None = None,
    keep_dataset: Names | None = None,
    force: bool = False,
    executor: ExecutorName | None = None,
    options: RunOptions | None = None,
    num_loaders: int | None = None,
    urls: bool = True,
    follow_links: bool = True,
) -> FeatureReport:
    """Writes the features of each window of each video to the folder `to`.

    `videos` is a data set of flowprep (folder, URL, or opened), or raw videos as `extract` takes
    them. The networks are checkpoints of flowprep (one, or one for flow and one for RGB), or the
    network `model` with foreign `weights`, one file for each stream. `stream` chooses among
    checkpoints, and must be given for weights. `recipe` is the published recipe of the weights; by
    default the names in the file tell it. `clip` has fields of ClipSpec for weights: what the
    network sees of a picture. `task` names the data set of a checkpoint of several, whose
    extraction to take.

    Raw videos are extracted as the data of the checkpoint was, or as `config` says for weights. The
    default is that of their recipe, or that of `extract` if no recipe is known. `decode` overrides
    its fields `on_damage`, `on_gaps`, `decoder`, `video_stream` and `image_fps`. Each video goes in
    one pass through one worker, and its flow is not stored, unless `keep_dataset` names a place for
    a data set. `options` and `executor` are as for `extract`. `labels` names labels of a data set.
    `num_loaders` processes read a data set; the default is the number of cores minus one. `force`
    takes data that was extracted with other options than the checkpoint's own, or than the recipe
    of weights says. `urls` and `follow_links` are those of `extract`.

    A second call goes on where the first one stopped. A video that fails is listed in
    `failures.jsonl`, and stops nothing. Raises ConfigError for options that do not fit,
    ConfigMismatchError if `to` holds features that were made with others, and WeightsError for
    weights that cannot be read.
    """
    spec = spec or FeatureSpec()
    options = options or RunOptions()
    if executor is not None:
        options = dataclasses.replace(options, executor=executor)
    began = time.monotonic()
    if spec.format == "h5":
        with extra_needed("--format h5", "export", otherwise="choose --format npy"):
            import h5py  # noqa: F401
    chosen = _networks(
        *(spec, _listed(checkpoint), model, _listed(weights), stream, clip or {}, task, recipe)
    )
    run = _FeatureRun(Storage(to), spec, chosen, options, num_loaders, force)
    if isinstance(videos, FlowDataset):
        report = run.of_dataset(videos)
    elif not isinstance(videos, Manifest) and is_dataset(videos):
        _refuse_raw_options(config, decode, keep_dataset)
        (place,) = _listed(videos)
        report = run.of_dataset(open_dataset(place, labels=labels))
    else:
        if labels is not None:
            raise ConfigError(
                "labels are those that `flowprep label` gave a data set, got raw videos; leave "
                "--labels out"
            )
        extract = extraction(chosen.sources, chosen.trained, config, decode or {})
        extract = with_all_parameters(extract)
        check_options(options, extract.flow.algorithm)
        if not isinstance(videos, Manifest):
            videos = collect_videos(
                videos,
                out=to,
                image_fps=extract.decode.image_fps,
                urls=urls,
                follow_links=follow_links,
            )
        report = run.of_videos(videos, extract, keep_dataset)
    report.wall_seconds = time.monotonic() - began
    return report


def is_dataset(videos: Names | Sequence[Names]) -> bool:
    """Whether the only name that the user gave is that of a data set of flowprep."""
    names = _listed(videos)
    if len(names) != 1:
        return False
    place = os.fspath(names[0])
    if "://" not in place and not os.path.isdir(place):
        return False
    return Storage(place).exists(DATASET_FILE)


def _listed(names: Names | Sequence[Names]) -> list[Names]:
    return [names] if isinstance(names, (str, os.PathLike)) else list(names)


def _refuse_raw_options(
    config: ExtractConfig | None, decode: Mapping[str, Any] | None, keep_dataset: Names | None
) -> None:
    for name, value in (("config", config), ("decode", decode), ("keep_dataset", keep_dataset)):
        if value:
            raise ConfigError(
                f"{name} is for raw videos, and VIDEOS is a data set, which was extracted before; "
                "leave it out"
            )


@dataclass(frozen=True)
class _Networks:
    sources: tuple[NetworkSource, ...]
    trained: tuple[Trained, ...]
    """For checkpoints of flowprep: what each was trained on."""
    notes: tuple[str, ...]

    @property
    def streams(self) -> list[str]:
        return [source.stream for source in self.sources]


def _networks(
    spec: FeatureSpec,
    checkpoints: Sequence[Names],
    model: str | None,
    weights: Sequence[Names],
    stream: StreamName | None,
    clip: Mapping[str, Any],
    task: str | None,
    recipe: RecipeName | None,
) -> _Networks:
    """Returns the networks that the options name. Raises ConfigError if they name none."""
    if bool(checkpoints) == bool(model or weights):
        raise ConfigError(
            "checkpoint must be given, or a model with its weights, got "
            f"{'both' if checkpoints else 'neither'}; give --checkpoint RUN, or --model NAME "
            "--weights FILE"
        )
    trained: list[Trained] = []
    if checkpoints:
        if recipe is not None:
            raise ConfigError(
                f"recipe is for foreign weights, because a checkpoint says how its videos are "
                f"extracted, got {recipe}; leave it out"
            )
        if clip:
            raise ConfigError(
                f"{next(iter(clip))} is for foreign weights, because a checkpoint says what its "
                "network sees; leave it out"
            )
        notes = [note for path in checkpoints for note in checkpoint_notes(path)]
        sources, trained = checkpoint_sources(checkpoints, stream, task)
        notes += [note for checkpoint, _ in trained for note in average_note(checkpoint)]
    else:
        if model is None or not weights:
            raise ConfigError(
                f"weights and a model need each other, got {model or 'weights'} alone; give both"
            )
        unknown = sorted(set(clip) - set(CLIP_OPTIONS))
        if unknown:
            raise ConfigError(f"clip takes {', '.join(CLIP_OPTIONS)}, got {', '.join(unknown)}")
        sources, notes = weights_sources(model, weights, stream, clip, recipe)
    return _Networks(tuple(with_window(sources, spec.window)), tuple(trained), tuple(notes))


class _FeatureRun:
    """One call: what the networks are, and where the features go."""

    def __init__(
        self,
        storage: Storage,
        spec: FeatureSpec,
        networks: _Networks,
        options: RunOptions,
        num_loaders: int | None,
        force: bool,
    ) -> None:
        self._storage = storage
        self._spec = spec
        self._networks = networks
        self._options = options
        self._num_loaders = default_loaders() if num_loaders is None else num_loaders
        self._force = force
        self._notes = list(networks.notes)
        # Weights that cannot be read stop the run before any worker starts.
        for source in networks.sources:
            network, _ = source.load()
            if spec.layer != POOL:
                check_layer(network, spec.layer)

    def of_dataset(self, dataset: FlowDataset) -> FeatureReport:
        """Makes the features of all videos of a data set."""
        sources = self._networks.sources
        self._notes += dataset.notes
        for source, trained in zip(sources, self._networks.trained, strict=False):
            check = check_data(
                trained[1], dataset, stream=source.stream, force=self._force, labels=False
            )
            self._notes += [note for note in check if note not in self._notes]
        for source in sources:
            if source.recipe is not None:
                self._notes += check_recipe(
                    source.recipe, dataset, stream=source.stream, force=self._force
                )
        for source in sources:
            check_clip(dataset, source.clip, source.inputs)
        clips = windows_of(sources, self._spec, dataset.config)
        content = self._content(dataset.config, dataset.header.implementation, dataset.class_names)
        content["data"] = redacted(dataset.location)
        content["config"]["labels"] = dataset.labels_name
        self._storage.make_folder()
        with locked_dataset(self._storage) as lease, run_log(lease.storage):
            content, _ = _agreed(lease.storage, content)
            keys = [video.key for video in dataset.videos]
            where = {key: redacted(dataset.location) for key in keys}
            report, failures, todo = _plan(
                lease.storage, content, where, self._options.retry_failed
            )
            if todo:
                name = self._options.device.removesuffix("+cpu")
                networks = load_networks(sources, self._spec, str(resolve_device(name)))
                run = DatasetRun(
                    lease.storage,
                    report,
                    failures,
                    content=content,
                    networks=networks,
                    clips=clips,
                    num_loaders=self._num_loaders,
                )
                run.go(dataset, [key for key in keys if key in todo], self._options.progress)
            return self._finish(lease.storage, content, report, failures)

    def of_videos(
        self, manifest: Manifest, config: ExtractConfig, keep_dataset: Names | None
    ) -> FeatureReport:
        """Makes the features of raw videos."""
        for source in self._networks.sources:
            if source.recipe is not None:
                self._notes += check_extraction(
                    source.recipe,
                    config,
                    "this extraction",
                    stream=source.stream,
                    force=self._force,
                )
        if keep_dataset is not None:
            return self._of_kept(manifest, config, os.fspath(keep_dataset))
        content = self._content(config, environment(config).implementation, manifest.class_names)
        self._storage.make_folder()
        with locked_dataset(self._storage) as lease, run_log(lease.storage) as log_name:
            content, numbers = _agreed(lease.storage, content)
            videos = {video.key: _numbered(video, numbers) for video in manifest.videos}
            where = {key: redacted(video.source) for key, video in videos.items()}
            report, failures, todo = _plan(
                lease.storage, content, where, self._options.retry_failed
            )
            report.notes += [note for note in manifest.notes if note not in report.notes]
            if todo:
                run = RawRun(
                    lease.storage,
                    report,
                    failures,
                    work=FeatureWork(self._networks.sources, self._spec, content["config"]),
                    config=config,
                    options=self._options,
                    log_name=log_name,
                )
                run.go([video for key, video in videos.items() if key in todo])
            return self._finish(lease.storage, content, report, failures)

    def _of_kept(self, manifest: Manifest, config: ExtractConfig, out: str) -> FeatureReport:
        """Extracts a data set that stays, and makes the features of its videos."""
        extracted = run_extract(manifest, out, config, self._options)
        report = self.of_dataset(open_dataset(out))
        if extracted.num_failed:
            report.num_videos += extracted.num_failed
            report.notes.append(
                f"{format_count(extracted.num_failed, 'video')} gave no flow; see {FAILURES_FILE} "
                f"of {out}, and run again with --retry-failed"
            )
        return report

    def _content(
        self, config: ExtractConfig, implementation: str, class_names: tuple[str, ...]
    ) -> dict[str, Any]:
        """Returns what features.json says of this run."""
        spec, sources = self._spec, self._networks.sources
        windows = windows_of(sources, spec, config).windows
        streams = self._networks.streams
        has_flow = bool(set(streams) & {"flow", "both"})
        return {
            "config": {
                "networks": {
                    source.stream: {
                        "model": source.model,
                        "weights_sha256": source.sha256,
                        "clip": dataclasses.asdict(source.clip),
                    }
                    for source in sources
                },
                **dataclasses.asdict(spec),
                "window": windows.length,
                "stride": windows.stride,
                "extract": stored_extraction(config, streams),
                "implementation": implementation if has_flow else None,
                "labels": None,
            },
            "streams": streams,
            "class_names": list(class_names),
            "files": {source.stream: source.file for source in sources},
            "versions": library_versions(),
        }

    def _finish(
        self,
        storage: Storage,
        content: Mapping[str, Any],
        report: FeatureReport,
        failures: Mapping[str, Failure],
    ) -> FeatureReport:
        """Joins what is finished, and lists what failed."""
        join_videos(storage, content)
        # Of npy nothing is left here but the traces of workers that were ended.
        storage.remove(PARTS_FOLDER)
        if failures or storage.exists(FAILURES_FILE):
            write_failures(storage, failures.values())
        storage.remove_empty_folder(LOGS_FOLDER)
        report.notes[:0] = self._notes
        return report


def _agreed(storage: Storage, content: dict[str, Any]) -> tuple[dict[str, Any], list[int] | None]:
    """Writes features.json, or checks that this run agrees with it.

    Returns the content, and the stored number of each class of this run (None: the same). Raises
    ConfigMismatchError with both values of each difference.
    """
    stored = read_config(storage)
    if stored is None:
        _refuse_other_files(storage)
        write_config(storage, content)
        return content, None
    differences = find_differences(flatten(stored["config"]), flatten(content["config"]))
    if differences:
        raise mismatch(
            f"{storage.location} holds features that were made in another way",
            differences,
            ("in features.json", "in this run"),
            "Run with the same values, or choose another folder with --to.",
        )
    names, numbers = merge_class_names(tuple(stored["class_names"]), tuple(content["class_names"]))
    merged = stored | {"class_names": list(names)}
    if list(names) != stored["class_names"]:
        write_config(storage, merged)
    return merged, numbers


def _refuse_other_files(storage: Storage) -> None:
    if storage.exists(DATASET_FILE):
        raise DatasetError(
            f"{storage.location} is a data set; choose another folder for its features, with --to"
        )


def _numbered(video: Video, numbers: list[int] | None) -> Video:
    if numbers is None:
        return video
    return dataclasses.replace(video, labels=tuple(numbers[label] for label in video.labels))


def _plan(
    storage: Storage, content: Mapping[str, Any], sources: Mapping[str, str], retry_failed: bool
) -> tuple[FeatureReport, dict[str, Failure], set[str]]:
    """Returns the report so far, the failures that stay, and the keys of the videos to do.

    `sources` has the source of each video by key. Raises InputError for a key whose features are of
    another source.
    """
    finished = finished_videos(storage, content)
    for key, source in sources.items():
        if finished.get(key, source) != source:
            raise InputError(
                f"{storage.location} holds features of {key} from {finished[key]}, and this run "
                f"names {source}; choose another folder with --to"
            )
    failures = read_failures(storage) if storage.exists(FAILURES_FILE) else {}
    stay = {
        key: failure
        for key, failure in failures.items()
        if key not in finished
        and not (key in sources and (retry_failed or failure.fault == "node"))
    }
    todo = {key for key in sources if key not in finished and key not in stay}
    report = FeatureReport(storage.location, len(sources))
    report.num_done_before = sum(key in finished for key in sources)
    report.num_failed = report.num_failed_before = len(stay)
    report.failures.update(failure.reason for failure in stay.values())
    return report, dict(stay), todo
