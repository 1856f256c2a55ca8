"""Loader processes: their memory, their errors, and what they are sent."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowprep.dataset.layout import shard_name
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import VideoList
from flowprep.errors import ConfigError, DatasetError, TrainingError
from flowprep.learn.clips.loader import loader_options
from flowprep.learn.clips.streaming import StreamedClips, streaming_loader
from flowprep.learn.clips.training import TrainingClips, training_loader
from flowprep.learn.config import TrainConfig
from flowprep.machine import usable_cores
from tests.learn.clips.samples import CONFIG, FLOW, batches, taken


def test_more_loaders_than_cores_are_nothing_to_warn_of(dataset: FlowDataset) -> None:
    # A warning would be an error here. Without a look at the batches no process starts.
    number = 1 + max(usable_cores(), os.cpu_count() or 1)
    samples = TrainingClips([dataset], CONFIG, [taken(FLOW, "stack")])
    for loader in (
        training_loader(samples, batch_size=2, first_step=0, num_steps=5, num_loaders=number),
        streaming_loader(
            StreamedClips(dataset, CONFIG, [taken(FLOW)]), batch_size=2, num_loaders=number
        ),
    ):
        assert loader.num_workers == number


def test_what_is_kept_of_batches_stays_as_it_is(motion: Path) -> None:
    samples = TrainingClips([open_dataset(motion)], CONFIG, [taken(FLOW, "stack")])
    expected = batches(samples, num_steps=14, batch_size=4)
    kept = []
    loader = training_loader(samples, batch_size=4, first_step=0, num_steps=14, num_loaders=1)
    for step, batch in enumerate(loader):
        # Of some all, of some a part, and of some nothing.
        kept.append((batch["clips"]["flow"], batch["clips"]["flow"][1:, :, 3], None)[step % 3])
        del batch
    for step, (found, wanted) in enumerate(zip(kept, expected, strict=True)):
        if found is not None:
            assert torch.equal(
                found, (wanted["clips"]["flow"], wanted["clips"]["flow"][1:, :, 3])[step % 3]
            )
    # Whoever keeps nothing gets the same few places again and again.
    kept.clear()
    places = {batch["clips"]["flow"].data_ptr() for batch in loader}
    assert len(places) <= 4


class Surroundings(torch.utils.data.Dataset[str]):
    """What a loader process finds in its environment."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> str:
        return os.environ.get("FLOWPREP_TEST_SECRET", "nothing")


def test_loaders_have_the_environment_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that they are forked from was started with another one."""
    for value in ("first", "second"):
        monkeypatch.setenv("FLOWPREP_TEST_SECRET", value)
        loader = torch.utils.data.DataLoader(Surroundings(), **loader_options(1))
        assert list(loader) == [value]


def test_more_shared_memory_than_there_is_is_refused(motion: Path) -> None:
    clip = dataclasses.replace(FLOW, num_frames=64, num_segments=100)
    samples = TrainingClips([open_dataset(motion)], TrainConfig(clip=clip), [taken(clip)])
    with pytest.raises(ConfigError, match=r"^2 loaders need \d+ MB of shared memory, but /dev/shm"):
        training_loader(samples, batch_size=8000, first_step=0, num_steps=1, num_loaders=2)


@pytest.mark.parametrize("num_loaders", [0, 1])
def test_an_error_in_a_loader_arrives_in_its_own_words(motion: Path, num_loaders: int) -> None:
    samples = TrainingClips([open_dataset(motion)], CONFIG, [taken(FLOW, "stack")])
    key = samples.find(2)[1].key
    videos = [
        dataclasses.replace(video, shard=7) if video.key == key else video
        for video in samples.datasets[0].videos
    ]
    samples.datasets[0].videos = VideoList(videos)
    loader = iter(
        training_loader(samples, batch_size=2, first_step=0, num_steps=2, num_loaders=num_loaders)
    )
    next(loader)
    with pytest.raises(DatasetError) as caught:
        next(loader)
    assert str(caught.value) == (
        f"cannot read {shard_name(7)}: No such file or directory; run `flowprep verify`"
    )


def resident_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if "VmRSS" in line)


def test_a_loader_s_memory_does_not_grow(motion: Path) -> None:
    samples = TrainingClips([open_dataset(motion)], CONFIG, [taken(FLOW, "stack")])
    before = set(multiprocessing.active_children())
    loader = iter(
        training_loader(samples, batch_size=4, first_step=0, num_steps=600, num_loaders=1)
    )
    sizes: list[int] = []
    for step in range(600):
        next(loader)
        (worker,) = set(multiprocessing.active_children()) - before
        if step in (100, 599):
            assert worker.pid is not None
            sizes.append(resident_kb(worker.pid))
    # 2000 samples of 32 kB went by.
    assert sizes[1] - sizes[0] < 4000


def test_what_loaders_are_sent_is_small(dataset: FlowDataset) -> None:
    videos = [
        dataclasses.replace(dataset.videos[n % 24], key=f"class/v_name_g01_c{n:06d}", split="train")
        for n in range(20000)
    ]
    dataset.videos = VideoList(videos)
    samples = TrainingClips([dataset], CONFIG, [taken(FLOW, "stack")])
    sent = pickle.dumps(samples)
    # Keys of 25 bytes, 11 places of members and ten numbers: no objects.
    assert len(sent) < 320 * len(videos)
    again = pickle.loads(sent)
    for position in (0, 7, 31234):
        assert again.find(position) == samples.find(position)
    assert again.datasets[0].videos["class/v_name_g01_c012345"] == videos[12345]


def test_a_loader_process_that_is_killed_is_told_in_a_sentence(dataset: FlowDataset) -> None:
    samples = TrainingClips([dataset], CONFIG, [taken(FLOW, "stack")])
    loader = training_loader(samples, batch_size=2, first_step=0, num_steps=10_000, num_loaders=1)
    read = iter(loader)
    next(read)
    (worker,) = (
        child for child in multiprocessing.active_children() if child.name != "SyncManager"
    )
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"was ended from outside.*fewer --loaders"):
        for _ in read:
            pass


HELD = """
import sys
from flowprep.learn.clips.loader import PlainLoader, loader_options

if __name__ == "__main__":
    # What an error holds on to is there until the process ends.
    held = iter(PlainLoader(range(8), **loader_options(1)))
    next(held)
    print("began", flush=True)
    raise SystemExit(1)
"""


def test_loaders_that_are_still_held_do_not_keep_a_process_from_ending(tmp_path: Path) -> None:
    script = tmp_path / "held.py"
    script.write_text(HELD)
    done = subprocess.run(
        [sys.executable, script], timeout=100, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "began\n"), done.stderr
