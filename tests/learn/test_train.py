"""Training: what it computes, what it leaves behind, and that no interruption shows."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import VideoList
from flowprep.errors import (
    ConfigError,
    ConfigMismatchError,
    DatasetError,
    StorageError,
    TrainingError,
    WeightsError,
)
from flowprep.learn.checkpoint import load_checkpoint, restore_model, save_checkpoint
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions
from flowprep.learn.evaluate import score_videos
from flowprep.learn.networks import find_network, make_options
from flowprep.learn.recipes import VIEWS
from flowprep.learn.train import train
from flowprep.learn.train_setup import long_step_note
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

QUIET = TrainOptions(num_loaders=0, device="cpu", log_every=1, tensorboard=False)
SMALL = TrainConfig(
    ModelSpec("resnet18", width=0.0625, dropout=0.5),
    ClipSpec("flow", 3, crop_px=32),
    AugmentSpec(),
    OptimizationSpec(8, num_steps=6, learning_rate=0.05),
)
# Without batch norm and dropout a sample's gradient does not depend on the others.
ALONE = dataclasses.replace(
    SMALL,
    model=ModelSpec("cnn-m-2048", width=0.05, dropout=0.0),
    clip=ClipSpec("flow", 3, crop_px=42),
)
TIMINGS = ("clips_per_second", "seconds")


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


def change(config: TrainConfig, **fields: Any) -> TrainConfig:
    """Replaces fields of the configuration, wherever among its parts they are."""
    parts: dict[str, Any] = {}
    model = fields.get("model", config.model.model)
    own_options = {item.name for item in dataclasses.fields(find_network(model).options)}
    options = {name: fields.pop(name) for name in own_options & fields.keys()}
    if options:
        fields["options"] = make_options(model, options)
    for item in dataclasses.fields(config):
        part = getattr(config, item.name)
        if dataclasses.is_dataclass(part):
            own = {name: value for name, value in fields.items() if hasattr(part, name)}
            parts[item.name] = dataclasses.replace(part, **own)  # type: ignore[type-var]
        elif item.name in fields:
            parts[item.name] = fields[item.name]
    return dataclasses.replace(config, **parts)


def metrics(run: Path) -> list[dict[str, str]]:
    """Returns the lines of metrics.csv without those that tell the time."""
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]


def weights(run: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(run / name).model


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def stop_after(num_steps: int) -> Callable[[], bool]:
    """Asks to stop once so many steps are done; it is asked in the tests between them too."""
    done: list[object] = []
    hook = register_optimizer_step_post_hook(lambda *step: done.append(step))

    def is_stop_asked() -> bool:
        if len(done) < num_steps:
            return False
        hook.remove()
        return True

    return is_stop_asked


# ---- what it computes


def test_a_network_learns_what_the_flow_shows(dataset: FlowDataset, tmp_path: Path) -> None:
    config = change(
        SMALL, width=0.125, dropout=0.0, num_steps=120, learning_rate=0.1, flip=False, crop="center"
    )
    report = train([dataset], tmp_path, config, QUIET)
    rows = [row for row in metrics(tmp_path) if row["split"] == "train"]
    assert float(rows[0]["loss"]) > 1.9
    assert report.loss is not None
    assert report.loss < 1.2
    assert float(rows[-1]["top1"]) >= 0.5
    assert report.best_top1 is not None
    assert report.best_top1 >= 0.375  # of 8 classes by chance .125


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "tsn-resnet18", "num_segments": 3, "partial_bn": True, "clip_gradient_norm": 20},
        {"model": "tsn-resnet18", "num_segments": 2, "consensus": "weighted", "precision": "bf16"},
        {"model": "tsm-resnet18", "num_segments": 4, "temporal_pool": True, "num_frames": 2},
        {"model": "i3d", "num_frames": 8, "optimizer": "adamw", "label_smoothing": 0.1},
        {"model": "resnet18", "num_segments": 2, "accumulate": 4, "warmup": 0.5},
        {"model": "resnet18", "stack": "bidirectional", "num_frames": 4, "nesterov": True},
        {"model": "resnet18", "stack": "trajectory", "subtract_mean_flow": True},
        {"model": "resnet18", "stream": "rgb", "num_frames": 1, "scales": (1.0, 0.875)},
        {"model": "resnet18", "schedule": "step", "milestones": (0.5,), "test_split": "none"},
        {"model": "tsn-resnet18", "stream": "rgb-difference", "num_frames": 5, "num_segments": 2},
        {"model": "cnn-m-2048", "width": 0.05, "crop_px": 42, "stream": "rgb-difference"},
    ],
)
def test_every_kind_of_training_runs(
    dataset: FlowDataset, tmp_path: Path, fields: dict[str, Any]
) -> None:
    config = change(SMALL, num_steps=2, **fields)
    report = train([dataset], tmp_path, config, QUIET)
    assert (report.num_steps, report.num_new_steps, report.num_videos) == (2, 2, 16)
    last = load_checkpoint(tmp_path / "last.pt")
    assert (last.config, last.step) == (config, 2)
    assert all(torch.isfinite(tensor).all() for tensor in last.model.values())
    assert (report.top1 is None) == (config.test_split == "none") == (report.best_step is None)
    assert (tmp_path / "best.pt").exists() == (config.test_split != "none")


def test_parts_of_a_batch_give_the_step_of_the_whole(dataset: FlowDataset, tmp_path: Path) -> None:
    config = change(ALONE, num_steps=3, momentum=0.9, learning_rate=0.01)
    train([dataset], tmp_path / "whole", config, QUIET)
    train([dataset], tmp_path / "parts", change(config, accumulate=4), QUIET)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-5, atol=1e-7)


def test_one_step_is_that_of_plain_torch(dataset: FlowDataset, tmp_path: Path) -> None:
    from flowprep.learn.checkpoint import build_model
    from flowprep.learn.clips.training import TrainingClips

    config = change(ALONE, num_steps=1, learning_rate=0.1, weight_decay=0.0, schedule="constant")
    train([dataset], tmp_path, config, QUIET)
    torch.manual_seed(config.seed)
    model = build_model(config, [8]).train()
    clips = TrainingClips([dataset], config, model.inputs)
    items = [clips[position] for position in range(8)]
    x = torch.cat([item["clips"]["flow"] for item in items])
    labels = torch.tensor([item["label"] for item in items])
    torch.nn.functional.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_two_data_sets_train_two_heads(
    dataset: FlowDataset, other_motion: Path, tmp_path: Path
) -> None:
    config = change(ALONE, num_steps=3)
    both = [dataset, open_dataset(other_motion)]
    report = train(both, tmp_path / "both", config, QUIET)
    assert report.num_videos == 32
    last = load_checkpoint(tmp_path / "both/last.pt")
    assert [task.name for task in last.tasks] == ["motion", "other-motion"]
    outputs = restore_model(last)(torch.zeros(1, 6, 42, 42))
    assert [scores.shape for scores in outputs] == [(1, 8), (1, 8)]
    rows = metrics(tmp_path / "both")
    assert {row["data"] for row in rows if row["split"] == "train"} == {"motion+other-motion"}
    assert [row["data"] for row in rows if row["split"] == "test"] == ["motion", "other-motion"]
    # Two losses of eight classes each, summed.
    assert 3.5 < float(rows[0]["loss"]) < 5.5
    train(both, tmp_path / "parts", change(config, accumulate=2), QUIET)
    for name, tensor in weights(tmp_path / "parts").items():
        torch.testing.assert_close(tensor, last.model[name], rtol=1e-5, atol=1e-6)


def test_data_sets_of_one_name_are_told_apart(dataset: FlowDataset, tmp_path: Path) -> None:
    train([dataset, dataset], tmp_path, change(SMALL, num_steps=1, test_split="none"), QUIET)
    names = [task.name for task in load_checkpoint(tmp_path / "last.pt").tasks]
    assert names == [dataset.location, dataset.location]


# ---- what it leaves behind


def test_the_folder_says_what_happened(dataset: FlowDataset, tmp_path: Path) -> None:
    options = dataclasses.replace(QUIET, log_every=2, tensorboard=True)
    report = train([dataset], tmp_path / "run", SMALL, options)
    run = tmp_path / "run"
    values = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert TrainConfig.from_dict(values["config"]) == SMALL
    assert values["tasks"][0]["class_names"] == list(dataset.class_names)
    assert values["versions"]["torch"] == torch.__version__
    rows = metrics(run)
    assert [(row["step"], row["split"]) for row in rows] == [
        (step, split) for step in "246" for split in ("train", "test")
    ]
    assert [float(row["epoch"]) for row in rows[::2]] == [1.0, 2.0, 3.0]
    assert report.loss == pytest.approx(float(rows[-2]["loss"]), rel=1e-4)
    assert report.top1 == float(rows[-1]["top1"])
    tests = [float(row["top1"]) for row in rows[1::2]]
    best = load_checkpoint(run / "best.pt")
    assert (report.best_top1, report.best_step) == (max(tests), 2 + 2 * tests.index(max(tests)))
    assert (best.step, best.training) == (report.best_step, None)
    views = TestViews(dataset, SMALL.clip, SMALL.inputs, VIEWS["center"], split="test")
    scores = score_videos(restore_model(best), views, device="cpu")
    assert scores.metrics()["top1"] == report.best_top1

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx([float(row["loss"]) for row in rows[::2]], rel=1e-4)
    for text in ("trained: 6 steps", "16", "test top-1", f"after step {report.best_step}"):
        assert text in report.summary()


def test_a_finished_training_is_left_alone(dataset: FlowDataset, tmp_path: Path) -> None:
    first = train([dataset], tmp_path, SMALL, QUIET)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    again = train([dataset], tmp_path, SMALL, QUIET)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    assert before == after
    assert again.num_new_steps == 0
    assert (again.loss, again.best_top1) == (first.loss, first.best_top1)
    assert "before this run" in again.summary()


# ---- interruptions


def test_a_large_batch_and_a_long_step_are_said_at_the_start(
    dataset: FlowDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowprep.learn.train_setup._LONG_STEP_SECONDS", 0.0)
    told: list[tuple[str, bool]] = []
    tell = lambda note: told.append((note, (tmp_path / "last.pt").exists()))  # noqa: E731
    config = change(SMALL, batch_size=24, num_steps=2)
    report = train([dataset], tmp_path, config, QUIET, on_note=tell)
    assert [note for note, _ in told] == list(report.notes)
    (large, _), (long, is_late) = told
    assert large.startswith("a batch of 24 is larger than the training set of 16 videos: one step ")
    assert "shows each video 1.5 times" in large
    assert long.startswith("one step takes ")
    assert not is_late


def test_how_long_a_step_may_be_depends_on_who_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert long_step_note(59) is None
    note = long_step_note(95)
    assert note is not None
    assert note.startswith("one step takes 1 min 35 s.")
    assert "TORCH_ELASTIC" not in note
    # Torchrun kills its processes 30 s after SIGTERM.
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert "TORCH_ELASTIC_SHUTDOWN_TIMEOUT" in str(long_step_note(25))


def test_a_stop_within_a_test_is_heeded(dataset: FlowDataset, tmp_path: Path) -> None:
    train([dataset], tmp_path / "whole", change(SMALL, num_steps=3), QUIET)
    steps: list[object] = []
    asked: list[None] = []
    hook = register_optimizer_step_post_hook(lambda *step: steps.append(step))

    def is_stop_asked() -> bool:
        asked.append(None)
        # It is asked once after each step; one time more is within a test.
        return len(asked) > len(steps)

    try:
        with pytest.raises(KeyboardInterrupt):
            train(
                [dataset],
                tmp_path / "parts",
                change(SMALL, num_steps=3),
                QUIET,
                is_stop_asked=is_stop_asked,
            )
    finally:
        hook.remove()
    stopped = load_checkpoint(tmp_path / "parts/last.pt")
    assert stopped.training is not None
    assert stopped.training.tested_step < stopped.step == len(steps)
    train([dataset], tmp_path / "parts", change(SMALL, num_steps=3), QUIET)
    assert_equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("stops", [(1,), (2, 1, 2), (5,)])
@pytest.mark.parametrize(
    "fields", [{}, {"optimizer": "adamw", "learning_rate": 0.001, "accumulate": 2}]
)
def test_a_training_goes_on_as_if_it_had_not_been_stopped(
    dataset: FlowDataset, tmp_path: Path, stops: tuple[int, ...], fields: dict[str, Any]
) -> None:
    config = change(SMALL, **fields)
    options = dataclasses.replace(QUIET, log_every=4)
    train([dataset], tmp_path / "whole", config, options)
    done = 0
    for number in stops:
        stop = stop_after(number)
        with pytest.raises(KeyboardInterrupt):
            train([dataset], tmp_path / "parts", config, options, is_stop_asked=stop)
        done += number
        assert load_checkpoint(tmp_path / "parts/last.pt").step == done
    report = train([dataset], tmp_path / "parts", config, options)
    assert report.num_new_steps == 6 - done
    assert_equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert_equal(weights(tmp_path / "parts", "best.pt"), weights(tmp_path / "whole", "best.pt"))
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


def test_another_version_of_pytorch_is_said(
    dataset: FlowDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train([dataset], tmp_path, SMALL, QUIET, is_stop_asked=stop_after(5))
    stopped = load_checkpoint(tmp_path / "last.pt")
    assert stopped.versions["torch"] == torch.__version__
    before = dataclasses.replace(stopped, versions=stopped.versions | {"torch": "2.4.0"})
    save_checkpoint(tmp_path / "last.pt", before)
    other = train([dataset], tmp_path, SMALL, QUIET)
    (note,) = [note for note in other.notes if "goes on with" in note]
    assert f"torch {torch.__version__}, and was done with torch 2.4.0 so far" in note
    assert "install torch 2.4.0" in note


def test_what_an_older_pytorch_did_not_store_of_the_optimizer_is_not_needed(
    dataset: FlowDataset, tmp_path: Path
) -> None:
    config = change(SMALL, optimizer="adamw", learning_rate=0.001, num_steps=3)
    train([dataset], tmp_path / "whole", config, QUIET)
    with pytest.raises(KeyboardInterrupt):
        train([dataset], tmp_path / "parts", config, QUIET, is_stop_asked=stop_after(2))
    path = tmp_path / "parts/last.pt"
    stopped = load_checkpoint(path)
    assert stopped.training is not None
    for group in stopped.training.optimizer["param_groups"]:
        del group["weight_decay"], group["maximize"]
    save_checkpoint(path, stopped)
    train([dataset], tmp_path / "parts", config, QUIET)
    assert_equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


def test_dropout_matters_to_the_weights(dataset: FlowDataset, tmp_path: Path) -> None:
    # Or the test above would not see a generator that is not restored.
    train([dataset], tmp_path / "with", change(SMALL, num_steps=1), QUIET)
    train([dataset], tmp_path / "without", change(SMALL, num_steps=1, dropout=0.0), QUIET)
    with pytest.raises(AssertionError):
        assert_equal(weights(tmp_path / "with"), weights(tmp_path / "without"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint(
    dataset: FlowDataset, tmp_path: Path, number: signal.Signals
) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)

    def send() -> bool:
        os.kill(os.getpid(), number)
        return False

    try:
        with pytest.raises(KeyboardInterrupt):
            train([dataset], tmp_path, SMALL, QUIET, is_stop_asked=send)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)
    # It came after the loop had looked, so the next step was done too.
    assert load_checkpoint(tmp_path / "last.pt").step == 2


def test_kill_9_at_any_moment_does_not_show(motion: Path, tmp_path: Path) -> None:
    num_steps = 40
    command = [sys.executable, "-m", "flowprep", "train", str(motion), "--no-tensorboard"]
    command += ["--width", "0.0625", "--dropout", "0.5", "--frames", "3", "--crop", "32"]
    command += ["--batch-size", "8", "--steps", str(num_steps), "--learning-rate", "0.05"]
    # A checkpoint after every step, so that some kills meet one that is being written.
    command += ["--checkpoint-every", "0", "--log-every", "1", "--test-every", "5"]
    command += ["--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(run: Path, num_loaders: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--run", str(run), "--loaders", str(num_loaders)],
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    rng = random.Random(0)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = start(whole, 0)
    num_done = 0
    # Who reads the clips makes no difference.
    for num_loaders in (1, 0):
        process = start(killed, num_loaders)
        try:
            least = num_done + rng.randint(3, 9)
            while _last_step(killed) < least:
                assert process.poll() is None
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.03))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        num_done = load_checkpoint(killed / "last.pt").step
        assert least - 1 <= num_done < num_steps
    process = start(killed, 0)
    assert (process.wait(), undisturbed.wait()) == (0, 0)
    assert_equal(weights(killed), weights(whole))
    assert metrics(killed) == metrics(whole)
    assert not [path for path in killed.iterdir() if ".tmp-" in path.name]


def test_a_training_begins_with_the_weights_of_another(
    dataset: FlowDataset, tmp_path: Path
) -> None:
    first = change(SMALL, num_steps=2, stream="rgb", num_frames=1)
    train([dataset], tmp_path / "rgb", first, QUIET)
    config = change(SMALL, num_steps=1, learning_rate=1e-9, weights=str(tmp_path / "rgb/last.pt"))
    told: list[str] = []
    report = train([dataset], tmp_path / "flow", config, QUIET, on_note=told.append)
    assert tuple(told) == report.notes
    assert "conv1.weight mean over RGB" in told[0]
    # The file is not needed to go on.
    before, after = weights(tmp_path / "rgb"), weights(tmp_path / "flow")
    mean = before["conv1.weight"].mean(1, keepdim=True).expand(after["conv1.weight"].shape)
    torch.testing.assert_close(after["conv1.weight"], mean)
    torch.testing.assert_close(after["fc.weight"], before["fc.weight"])
    (tmp_path / "rgb/last.pt").unlink()
    assert train([dataset], tmp_path / "flow", config, QUIET).notes == ()


def _last_step(run: Path) -> int:
    try:
        lines = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
        return int(lines[-1].partition(",")[0])
    except (OSError, IndexError, ValueError):
        return 0


# ---- what is refused


def test_another_configuration_is_refused_with_both_values(
    dataset: FlowDataset, tmp_path: Path
) -> None:
    train([dataset], tmp_path, change(SMALL, num_steps=1), QUIET)
    other = change(SMALL, num_steps=9, learning_rate=0.2)
    with pytest.raises(ConfigMismatchError) as caught:
        train([dataset], tmp_path, other, QUIET)
    assert caught.value.differences == {
        "optimization.num_steps": (1, 9),
        "optimization.learning_rate": (0.05, 0.2),
    }
    for text in ("learning_rate: 0.05 so far, 0.2 now", "--run", "--weights"):
        assert text in str(caught.value)


def test_another_order_of_channels_is_refused_with_both_values(
    dataset: FlowDataset, tmp_path: Path
) -> None:
    grouped = change(SMALL, num_steps=1, channel_order="grouped")
    train([dataset], tmp_path / "grouped", grouped, QUIET)
    assert load_checkpoint(tmp_path / "grouped/last.pt").config == grouped
    usual = change(SMALL, num_steps=1)
    train([dataset], tmp_path / "usual", usual, QUIET)
    # A checkpoint from before the option does not name the order.
    content = torch.load(tmp_path / "usual/last.pt")
    stored = json.loads(content["config"])
    del stored["clip"]["channel_order"]
    torch.save({**content, "config": json.dumps(stored)}, tmp_path / "old.pt")

    begun = {"weights": str(tmp_path / "grouped/last.pt")}
    for config, run, orders in (
        (usual, "grouped", ("grouped", "interleaved")),
        (change(usual, **begun), "new", ("grouped", "interleaved")),
        (change(grouped, weights=str(tmp_path / "old.pt")), "new", ("interleaved", "grouped")),
    ):
        with pytest.raises(ConfigMismatchError) as caught:
            train([dataset], tmp_path / run, config, QUIET)
        assert caught.value.differences == {"clip.channel_order": orders}
        assert all(order in str(caught.value) for order in orders)
    # Kernels over RGB are averaged for flow, so they have no order.
    train([dataset], tmp_path / "rgb", change(usual, stream="rgb", num_frames=1), QUIET)
    for run in ("grouped", "rgb"):
        config = change(grouped, weights=str(tmp_path / run / "last.pt"))
        assert train([dataset], tmp_path / f"from-{run}", config, QUIET).num_steps == 1


def test_precisions_that_a_cpu_lacks_are_refused(dataset: FlowDataset, tmp_path: Path) -> None:
    for fields, message in (
        ({"precision": "fp16"}, "precision fp16 needs a GPU, and the device is cpu"),
        ({"precision": "bf16", "model": "i3d", "num_frames": 8}, "precision of i3d must be fp32"),
    ):
        with pytest.raises(ConfigError, match=message):
            train([dataset], tmp_path, change(SMALL, **fields), QUIET)


def test_other_data_is_refused(dataset: FlowDataset, other_motion: Path, tmp_path: Path) -> None:
    config = change(SMALL, num_steps=2, test_split="none")
    with pytest.raises(KeyboardInterrupt):
        train([dataset], tmp_path, config, QUIET, is_stop_asked=lambda: True)
    other = open_dataset(other_motion)
    with pytest.raises(
        ConfigMismatchError,
        match="other data sets:\n  data sets: motion so far, motion, other-motion now",
    ):
        train([dataset, other], tmp_path, config, QUIET)
    decode = dataclasses.replace(dataset.config.decode, fps=5.0)
    header = dataclasses.replace(
        dataset.header, config=dataclasses.replace(dataset.config, decode=decode)
    )
    slower = FlowDataset(dataset.storage, header, VideoList())
    slower.videos = dataset.videos
    with pytest.raises(ConfigMismatchError, match=r"decode\.fps: nothing in training, 5\.0"):
        train([slower], tmp_path, config, QUIET)
    fewer = FlowDataset(dataset.storage, dataset.header, VideoList())
    fewer.videos = type(dataset.videos)(dataset.videos[:-1])
    kept = [video for video in dataset.videos if video.split == "test"]
    fewer.videos = type(dataset.videos)([v for v in dataset.videos if v not in kept][1:])
    with pytest.raises(ConfigMismatchError, match=r"not those that .*--force"):
        train([fewer], tmp_path, config, QUIET)
    forced = train([fewer], tmp_path, config, dataclasses.replace(QUIET, force=True))
    assert forced.num_new_steps == 1


def test_data_without_labels_or_splits_is_refused(dataset: FlowDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no video of split val"):
        train([dataset], tmp_path, change(SMALL, train_split="val"), QUIET)
    with pytest.raises(DatasetError, match="no video of split val"):
        train([dataset], tmp_path, change(SMALL, test_split="val"), QUIET)
    nameless = FlowDataset(dataset.storage, dataset.header, VideoList())
    nameless.videos = type(dataset.videos)(
        [
            dataclasses.replace(video, labels=() if video.split == "test" else video.labels)
            for video in dataset.videos
        ]
    )
    with pytest.raises(ConfigError, match="test_split must have labeled videos"):
        train([nameless], tmp_path, SMALL, QUIET)
    with pytest.raises(ConfigError, match="datasets must be one or more"):
        train([], tmp_path, SMALL, QUIET)


def test_a_loss_that_is_no_number_ends_the_training_before_it_is_stored(
    dataset: FlowDataset, tmp_path: Path
) -> None:
    config = change(ALONE, num_steps=30, learning_rate=1e8, schedule="constant")
    options = dataclasses.replace(QUIET, checkpoint_seconds=0, test_every_epochs=100)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) after step .*--learning-rate"):
        train([dataset], tmp_path, config, options)
    for row in metrics(tmp_path):
        assert float(row["loss"]) < float("inf")


def test_options_that_cannot_be_are_refused_before_anything_is_written(
    dataset: FlowDataset, tmp_path: Path
) -> None:
    for config, message in (
        (change(SMALL, precision="fp16"), "precision fp16 needs a GPU"),
        (change(SMALL, crop_px=224), "--crop"),
    ):
        with pytest.raises(ConfigError, match=message):
            train([dataset], tmp_path, config, QUIET)
    with pytest.raises(ConfigError, match="device"):
        train([dataset], tmp_path, SMALL, dataclasses.replace(QUIET, device="tpu"))
    with pytest.raises(ConfigError, match="run must be a folder of this machine, got s3://"):
        train([dataset], "s3://bucket/run", SMALL, QUIET)
    assert not (tmp_path / "config.json").exists()


def test_two_trainings_do_not_share_a_folder(dataset: FlowDataset, tmp_path: Path) -> None:
    def meet() -> bool:
        with pytest.raises(StorageError, match=f"another training .*process {os.getpid()}"):
            train([dataset], tmp_path, SMALL, QUIET)
        return False

    train([dataset], tmp_path, change(SMALL, num_steps=1), QUIET, is_stop_asked=meet)


def test_foreign_and_damaged_folders_are_left_alone(dataset: FlowDataset, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"format": "mine"}', encoding="utf-8")
    with pytest.raises(StorageError, match="not the folder of a training"):
        train([dataset], tmp_path, SMALL, QUIET)
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == '{"format": "mine"}'
    (tmp_path / "config.json").unlink()
    (tmp_path / "last.pt").write_bytes(b"PK nothing")
    with pytest.raises(WeightsError, match="remove it to start afresh"):
        train([dataset], tmp_path, SMALL, QUIET)
