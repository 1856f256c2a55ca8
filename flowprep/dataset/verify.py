"""Proves that a data set is whole: no video or flow is missing, and every byte is right."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from tqdm import tqdm

from flowprep.config import ExtractConfig
from flowprep.dataset.failures import failed_in, is_same_failure, stored_failures
from flowprep.dataset.foreign import foreign_notes, list_shards
from flowprep.dataset.labels import verify_labels
from flowprep.dataset.layout import (
    DATASET_FILE,
    FAILURES_FILE,
    LABELS_FOLDER,
    LEASE_FILE,
    LOCK_FILE,
    LOGS_FOLDER,
    MANIFEST_FILE,
    PARTS_FOLDER,
    SHARDS_FOLDER,
    DatasetHeader,
    Failure,
    ManifestEntry,
    Sidecar,
    header_problem,
    read_manifest,
    read_sidecar,
    shard_name,
    sidecar_name,
    write_failures,
)
from flowprep.dataset.lease import locked_dataset
from flowprep.dataset.parts import holds_published_alone
from flowprep.dataset.problems import EqualProblems, sum_up
from flowprep.dataset.rebuild import rebuild_sidecar
from flowprep.dataset.sources import SourceCheck
from flowprep.dataset.verify_video import HashingReader, check_video
from flowprep.errors import DatasetError
from flowprep.printable import bar_stream
from flowprep.storage import Storage

__all__ = ["VerifyReport", "verify_dataset"]


@dataclass
class VerifyReport:
    """The result of `verify_dataset`."""

    location: str
    num_videos: int = 0
    """Number of videos in the manifest."""
    num_stored: int = 0
    num_partial: int = 0
    num_failed: int = 0
    num_concealed: int = 0
    """Number of stored videos with damaged pictures that the decoder concealed."""
    num_flows: int = 0
    """Number of flow fields in one direction."""
    num_jpegs: int = 0
    num_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    """One sentence per problem: where it is, what it is, and what to do."""
    repaired: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """One sentence for each fact that is worth knowing but not wrong."""
    keys: frozenset[str] = field(default=frozenset(), repr=False)
    """The keys of the manifest's videos."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong.

        A video may fail by its own fault, and is then listed as failed. An internal error is not
        the fault of a video, so it makes a data set not whole. A data set that stores none of its
        videos is not whole either.
        """
        return not self.problems

    def summed_up(self) -> list[EqualProblems]:
        """Returns the problems, and those together that differ only in what they name."""
        return sum_up(self.problems, self.keys)


def verify_dataset(
    out: str | os.PathLike[str],
    *,
    deep: bool = False,
    repair: bool = False,
    sources: bool = False,
    hash_sources: bool = False,
    progress: bool | None = False,
) -> VerifyReport:
    """Checks a data set against its own plan, index and checksums.

    Reads every byte once; `deep` also decodes every JPEG. `repair` rebuilds lost or damaged
    sidecars from their tars, and `failures.jsonl` from the sidecars. `sources` compares the size
    and the time of each source with those of the file that was extracted. `hash_sources` also
    compares the contents, if there is a checksum. Raises DatasetError if there is no readable data
    set at all, and StorageError if a run writes to a data set that needs repair.
    """
    storage = Storage(out)
    check = SourceCheck(hash_sources) if sources or hash_sources else None
    with ExitStack() as stack:
        repairer = _Repairer(storage, stack) if repair else None
        return _verified(storage, deep, repairer, check, progress)


class _Repairer:
    """Writes what is repaired. It keeps runs out from the first repair on."""

    def __init__(self, storage: Storage, stack: ExitStack) -> None:
        self._storage = storage
        self._stack = stack
        self._is_locked = False

    def lock(self) -> Storage:
        """Takes the lease on the data set, and returns the storage that writes under this lease.

        Raises StorageError if a run is writing to the data set.
        """
        if not self._is_locked:
            self._storage = self._stack.enter_context(locked_dataset(self._storage)).storage
            self._is_locked = True
        return self._storage


def _verified(
    storage: Storage,
    deep: bool,
    repairer: _Repairer | None,
    check: SourceCheck | None,
    progress: bool | None,
) -> VerifyReport:
    header = DatasetHeader.read(storage)
    entries = read_manifest(storage)
    stored = stored_failures(storage)
    report = VerifyReport(storage.location, num_videos=len(entries))
    if (problem := header_problem(storage)) is not None:
        report.problems.append(problem)
    by_shard: dict[int, list[ManifestEntry]] = {}
    for entry in entries:
        by_shard.setdefault(entry.shard, []).append(entry)
    duplicates = [key for key, n in Counter(e.video.key for e in entries).items() if n > 1]
    report.problems += [f"{MANIFEST_FILE} names {key} more than once" for key in duplicates]
    _check_stray_files(storage, set(by_shard), report)

    placed: Counter[str] = Counter()
    recorded: dict[str, Failure] = {}
    unread = set(by_shard)
    bar = tqdm(
        sorted(by_shard),
        unit="shard",
        file=bar_stream(),
        disable=None if progress is None else not progress,
    )
    for shard in bar:
        sidecar = _load_sidecar(storage, shard, header, by_shard[shard], stored, repairer, report)
        if sidecar is not None:
            _check_shard(storage, sidecar, header.config, by_shard[shard], deep, check, report)
            placed.update(video.key for video in sidecar.videos if video.status != "failed")
            planned = {entry.video.key: entry.video for entry in by_shard[shard]}
            recorded |= {one.key: one for one in failed_in(sidecar, planned, stored or {})}
            unread.remove(shard)
    # Of a shard whose sidecar cannot be read it is what failures.jsonl says that counts.
    keys = [entry.video.key for entry in entries if entry.shard in unread]
    failures = recorded | {key: stored[key] for key in keys if stored and key in stored}
    known = report.keys = frozenset(entry.video.key for entry in entries)
    if found := _wrong_failures(storage, stored, failures, known, placed):
        if repairer is not None:
            leased = repairer.lock()
            if stored_failures(leased) != stored:
                raise DatasetError(
                    f"{storage.location}: a run wrote {FAILURES_FILE} meanwhile; run `flowprep "
                    "verify --repair` again"
                )
            write_failures(leased, failures.values())
            report.repaired.append(FAILURES_FILE)
        else:
            remedy = f"`flowprep verify --repair` makes {FAILURES_FILE} anew from the indexes"
            report.problems += [f"{what}; {remedy}" for what in found]
    for entry in entries:
        key = entry.video.key
        if placed[key] > 1:
            report.problems.append(f"{key} is in {placed[key]} shards")
        if not placed[key] and key not in failures:
            report.problems.append(
                f"{key} is in no shard and not in {FAILURES_FILE}; run the same extract again"
            )
        if not placed[key] and key in failures and failures[key].reason == "internal-error":
            report.problems.append(
                f"{key} is not stored, because of an error in flowprep itself "
                f"({failures[key].message}); run `flowprep doctor`, and then the same extract "
                "with --retry-failed"
            )
        if not placed[key] and key in failures and failures[key].fault == "node":
            report.problems.append(
                f"{key} is not stored, by no fault of its own ({failures[key].message}); run the "
                "same extract again"
            )
    if entries and not report.problems and not report.num_stored:
        report.problems.append(
            f"none of the {len(entries)} videos in {MANIFEST_FILE} is stored; {FAILURES_FILE} says "
            "why: correct it, and run the same extract with --retry-failed"
        )
    problems, notes = verify_labels(storage, known)
    report.problems += problems
    report.notes += notes
    if check is not None:
        report.problems += check.problems()
        report.notes += check.notes()
    report.num_failed = len(failures)
    return report


def _wrong_failures(
    storage: Storage,
    stored: dict[str, Failure] | None,
    failures: dict[str, Failure],
    known: Set[str],
    placed: Counter[str],
) -> list[str]:
    """Says where `failures.jsonl` is not what the sidecars say, which count."""
    if stored is None:
        is_there = storage.exists(FAILURES_FILE)
        return [f"{FAILURES_FILE} is {'damaged' if is_there else 'missing'}"]
    found = []
    for key in sorted(stored.keys() - failures.keys()):
        if key not in known:
            found.append(f"{FAILURES_FILE} names {key}, which is not in {MANIFEST_FILE}")
        elif placed[key]:
            found.append(f"{key} is in a shard and in {FAILURES_FILE}")
        else:
            found.append(f"{FAILURES_FILE} names {key}, which the index of its shard does not")
    for key, failure in failures.items():
        if key not in stored:
            found.append(f"{FAILURES_FILE} does not name {key}, which failed")
        elif not is_same_failure(failure, stored[key]):
            found.append(f"{FAILURES_FILE} says of {key} what the index of its shard does not")
    return found


def _check_stray_files(storage: Storage, shards: set[int], report: VerifyReport) -> None:
    ours = {DATASET_FILE, MANIFEST_FILE, FAILURES_FILE, SHARDS_FOLDER, LOGS_FOLDER}
    ours |= {LOCK_FILE, LEASE_FILE, LABELS_FOLDER}
    foreign = list_shards(storage).foreign
    report.notes += foreign_notes(storage, foreign)
    for name in storage.list_names():
        if name == PARTS_FOLDER:
            if holds_published_alone(storage):
                continue
            report.problems.append(
                f"{PARTS_FOLDER} holds videos of an unfinished run; run the same extract again"
            )
        elif name not in ours:
            report.problems.append(f"{name} does not belong to the data set; remove it")
    wanted = {os.path.basename(name(s)) for s in shards for name in (shard_name, sidecar_name)}
    for name in storage.list_names(SHARDS_FOLDER):
        if name not in wanted and name not in foreign:
            report.problems.append(
                f"{SHARDS_FOLDER}/{name} does not belong to the data set; remove it"
            )


def _load_sidecar(
    storage: Storage,
    shard: int,
    header: DatasetHeader,
    entries: list[ManifestEntry],
    failures: dict[str, Failure] | None,
    repairer: _Repairer | None,
    report: VerifyReport,
) -> Sidecar | None:
    if not storage.exists(shard_name(shard)):
        report.problems.append(
            f"{shard_name(shard)} is missing; run the same extract command again"
        )
        return None
    try:
        return _read_sidecar(storage, shard)
    except DatasetError as error:
        if repairer is None:
            report.problems.append(str(error))
            return None
    leased = repairer.lock()
    with suppress(DatasetError):
        # A run may have published the shard until then.
        return _read_sidecar(storage, shard)
    try:
        sidecar = rebuild_sidecar(storage, shard, header.config, entries, failures)
    except DatasetError as error:
        report.problems.append(f"{sidecar_name(shard)} cannot be rebuilt: {error}")
        return None
    leased.write_bytes(sidecar_name(shard), sidecar.to_json())
    report.repaired.append(sidecar_name(shard))
    return sidecar


def _read_sidecar(storage: Storage, shard: int) -> Sidecar:
    if not storage.exists(sidecar_name(shard)):
        raise DatasetError(
            f"{sidecar_name(shard)} is missing; `flowprep verify --repair` rebuilds it"
        )
    return read_sidecar(storage, shard)


def _check_shard(
    storage: Storage,
    sidecar: Sidecar,
    config: ExtractConfig,
    entries: list[ManifestEntry],
    deep: bool,
    check: SourceCheck | None,
    report: VerifyReport,
) -> None:
    name = shard_name(sidecar.shard)
    problems = report.problems
    size = storage.size(name)
    report.num_bytes += size
    if size != sidecar.size:
        problems.append(
            f"{name} has {size} bytes, but its sidecar says {sidecar.size}; it is damaged"
        )
        return
    # A failed video may have moved to a later shard, in which it was tried again.
    stored = [video for video in sidecar.videos if video.status != "failed"]
    planned = {entry.video.key for entry in entries}
    for video in stored:
        if video.key not in planned:
            problems.append(f"{name} holds {video.key}, which the manifest does not put there")
    listed = {video.key for video in sidecar.videos}
    problems += [
        f"{name} has no {key}, which the manifest puts there" for key in sorted(planned - listed)
    ]
    by_key = {entry.video.key: entry.video for entry in entries}
    with storage.open_read(name) as file:
        tar = HashingReader(file)
        for video in stored:
            places = sorted(video.members.values())
            begins = [offset for offset, _ in places]
            ends = [offset + length for offset, length in places]
            if not places or any(
                a > b for a, b in zip([tar.position, *ends], [*begins, size], strict=True)
            ):
                problems.append(f"{name}: the index of {video.key} points outside of its place")
                return
            planned_video = by_key.get(video.key)
            looks = None if check is None else functools.partial(check.add, video=planned_video)
            found = check_video(video, tar, config, deep, looks, report)
            if planned_video is not None:
                found += [
                    f"{what} is {stored_value}, but the manifest says {planned_value}"
                    for what, stored_value, planned_value in (
                        ("labels", video.labels, planned_video.labels),
                        ("split", video.split, planned_video.split),
                    )
                    if stored_value != planned_value
                ]
            problems += [f"{name}: {video.key}: {problem}" for problem in found]
            report.num_stored += 1
            report.num_partial += video.status == "partial"
            report.num_concealed += video.num_damaged > 0
            report.num_flows += video.num_flows
        tar.skip_to(size)
    if tar.digest.hexdigest() != sidecar.sha256:
        problems.append(f"{name} has another SHA-256 than its sidecar says; it is damaged")
