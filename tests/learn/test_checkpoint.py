"""Checkpoints come back whole or not at all, and know the data they were trained on."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import VideoList
from flowprep.errors import ConfigMismatchError, StorageError, WeightsError
from flowprep.learn.checkpoint import (
    Checkpoint,
    Task,
    build_model,
    check_data,
    describe_task,
    load_checkpoint,
    restore_model,
    save_checkpoint,
)
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.train_state import TrainState

CONFIG = TrainConfig(ModelSpec("resnet18", width=0.0625), ClipSpec("flow", 2, crop_px=32))


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


@pytest.fixture
def checkpoint(dataset: FlowDataset) -> Checkpoint:
    torch.manual_seed(0)
    task = describe_task(dataset)
    model = build_model(CONFIG, [len(task.class_names)])
    optimizer = torch.optim.SGD(model.parameters()).state_dict()
    training = TrainState("abc", best=(0.5, 3), optimizer=optimizer)
    return Checkpoint(CONFIG, (task,), 7, model.state_dict(), training, {"flowprep": "1"})


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert (one.config, one.tasks, one.step) == (other.config, other.tasks, other.step)
    assert (repr(one.training), one.versions) == (repr(other.training), other.versions)
    assert one.model.keys() == other.model.keys()
    for name, tensor in one.model.items():
        assert torch.equal(tensor, other.model[name]), name


def test_a_checkpoint_comes_back_whole(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", checkpoint)
    assert_same(load_checkpoint(tmp_path / "last.pt"), checkpoint)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (content["format"], content["format_version"]) == ("flowprep-checkpoint", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_the_old_file_stays_when_writing_fails(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    training = TrainState("abc", optimizer={"file": open(__file__)})  # noqa: SIM115
    unwritable = dataclasses.replace(checkpoint, training=training)
    with pytest.raises(TypeError):
        save_checkpoint(path, unwritable)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert_same(load_checkpoint(path), checkpoint)
    with pytest.raises(StorageError, match="cannot write"):
        save_checkpoint(tmp_path / "last.pt" / "under.pt", checkpoint)


def test_a_damaged_byte_is_seen_or_does_no_harm(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    data = path.read_bytes()
    places = np.random.default_rng(0).integers(len(data), size=60).tolist()
    # The end holds the zip's directory, where a date may change unseen.
    places += list(range(len(data) - 400, len(data), 7))
    num_seen = 0
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            assert_same(load_checkpoint(path), checkpoint)
        except WeightsError:
            num_seen += 1
    assert num_seen > 60


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_file_is_refused(checkpoint: Checkpoint, tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match="cut off"):
        load_checkpoint(path)


class Malice:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Malice(touched)))
    torch.save({"format": "flowprep-checkpoint", "model": Malice(touched)}, tmp_path / "zip.pt")
    for name in ("plain.pt", "zip.pt"):
        with pytest.raises(WeightsError, match="is not a checkpoint of flowprep"):
            load_checkpoint(tmp_path / name)
    assert not touched.exists()


def test_foreign_new_and_missing_files_are_told_apart(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "other.pt"
    torch.save({"state_dict": checkpoint.model}, path)
    with pytest.raises(WeightsError, match=r"PyTorch file but not a checkpoint.*--weights"):
        load_checkpoint(path)
    torch.save({"format": "flowprep-checkpoint", "format_version": 2}, path)
    with pytest.raises(WeightsError, match=r"format version 2, .* newer flowprep"):
        load_checkpoint(path)
    torch.save({"format": "flowprep-checkpoint", "format_version": 1, "config": "{}"}, path)
    with pytest.raises(WeightsError, match="not a whole checkpoint"):
        load_checkpoint(path)
    with pytest.raises(WeightsError, match=r"cannot read .*No such file"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_restored_network_gives_the_same_scores(checkpoint: Checkpoint) -> None:
    model = build_model(CONFIG, [8])
    model.load_state_dict(checkpoint.model)
    # The file that the first weights came from is not needed any more.
    spec = dataclasses.replace(CONFIG.model, weights="gone.safetensors")
    config = dataclasses.replace(CONFIG, model=spec)
    restored = restore_model(dataclasses.replace(checkpoint, config=config))
    clip = torch.randn(2, 4, 32, 32)
    assert not restored.training
    assert torch.equal(model.eval()(clip), restored(clip))
    wrong = dataclasses.replace(checkpoint, model={"weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="not those of its own resnet18"):
        restore_model(wrong)


OLD = json.loads((Path(__file__).parents[1] / "data/configurations.json").read_text("utf-8"))
"""Configurations as commit 69247d8 stored them, when options stood among those of all networks; and
the logits of its networks, drawn and shown noise by the configuration's seed."""


@pytest.mark.parametrize("old", OLD, ids=lambda old: old["config"]["model"]["model"])
@torch.no_grad()
def test_an_old_checkpoint_gives_the_same_scores(old: dict[str, Any], tmp_path: Path) -> None:
    stored = old["config"]
    config = TrainConfig.from_dict(stored)
    torch.manual_seed(stored["seed"])
    drawn = build_model(config, [3]).state_dict()
    if "segment_weight" in drawn:
        drawn["segment_weight"] = torch.tensor([0.5, 0, -0.5])
    content = {
        "format": "flowprep-checkpoint",
        "format_version": 1,
        "config": json.dumps(stored),
        "tasks": json.dumps([Task("x", ("a", "b", "c"), {}, "x").to_dict()]),
        "versions": "{}",
        "step": 3,
        "model": drawn,
        "training": None,
    }
    torch.save(content, tmp_path / "old.pt")

    checkpoint = load_checkpoint(tmp_path / "old.pt")
    model = restore_model(checkpoint)
    generator = torch.Generator().manual_seed(stored["seed"])
    logits = model(torch.randn(*old["shape"], generator=generator))

    torch.testing.assert_close(logits, torch.tensor(old["logits"]), rtol=1e-4, atol=1e-7)
    options = dataclasses.asdict(checkpoint.config.model.options)
    # An option that came later has its default, which is what the network did before.
    defaults = dataclasses.asdict(type(checkpoint.config.model.options)())
    assert options == {name: stored["model"].get(name, defaults[name]) for name in options}
    # What is stored now comes back as it is.
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == checkpoint.config


def test_several_tasks_have_several_heads(dataset: FlowDataset) -> None:
    tasks = (describe_task(dataset), Task("other", ("a", "b", "c"), {}, "x"))
    model = build_model(CONFIG, [8, 3])
    assert isinstance(model, MultiTask)
    restored = restore_model(Checkpoint(CONFIG, tasks, 0, model.state_dict()))
    assert [scores.shape for scores in restored(torch.zeros(2, 4, 32, 32))] == [(2, 8), (2, 3)]


def test_a_task_describes_its_data_set(dataset: FlowDataset) -> None:
    task = describe_task(dataset)
    assert task.name == "motion"
    assert task.class_names == dataset.class_names
    assert task.config == dataset.config
    assert Task.from_dict(task.to_dict()) == task


def test_classes_without_names_are_called_by_their_numbers(dataset: FlowDataset) -> None:
    header = dataclasses.replace(dataset.header, class_names=())
    nameless = FlowDataset(dataset.storage, header, VideoList())
    nameless.videos = dataset.videos
    task = describe_task(nameless)
    assert task.class_names == tuple("01234567")
    assert check_data(task, nameless, stream="flow") == []
    assert check_data(describe_task(dataset), nameless, stream="flow") == []


@pytest.mark.parametrize(
    ("section", "values", "streams"),
    [
        ("decode", {"fps": 12.5}, {"flow", "rgb"}),
        ("decode", {"resize": "short:128"}, {"flow", "rgb"}),
        ("flow", {"bound_px": 15.0}, {"flow"}),
        ("flow", {"step": 2}, {"flow"}),
        ("flow", {"algorithm": "tvl1"}, {"flow"}),
        ("flow", {"parameters": {"preset": "fast"}}, {"flow"}),
        ("flow", {"quantizer": "floor", "center_level": 127.0}, set()),
        ("encode", {"jpeg_quality": 50, "videos_per_shard": 7}, set()),
        ("decode", {"decoder": "decord"}, set()),
    ],
)
@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_data_of_another_kind_is_refused_unless_forced(
    dataset: FlowDataset, section: str, values: dict[str, Any], streams: set[str], stream: Any
) -> None:
    task = describe_task(dataset)
    changed = {**task.extract, section: task.extract[section] | values}
    trained = dataclasses.replace(task, extract=changed)
    assert check_data(trained, dataset, stream=stream, force=True) == []
    if stream not in streams:
        assert check_data(trained, dataset, stream=stream) == []
        return
    with pytest.raises(ConfigMismatchError) as caught:
        check_data(trained, dataset, stream=stream)
    name, value = next(iter(values.items()))
    assert any(field.startswith(f"{section}.{name}") for field in caught.value.differences)
    for part in ("in training", "here", "--force", "motion"):
        assert part in str(caught.value)
    if not isinstance(value, dict):
        assert f"{section}.{name}: {value} in training" in str(caught.value)


def test_classes_in_another_order_are_refused_whatever_is_forced(dataset: FlowDataset) -> None:
    task = describe_task(dataset)
    names = list(task.class_names)
    names[0], names[1] = names[1], names[0]
    reordered = dataclasses.replace(task, class_names=tuple(names))
    for force in (False, True):
        with pytest.raises(ConfigMismatchError, match=r"class 0: .* in training") as caught:
            check_data(reordered, dataset, stream="flow", force=force)
        assert set(caught.value.differences) == {"class 0", "class 1"}
    assert check_data(reordered, dataset, stream="flow", labels=False) == []


def test_one_class_more_is_one_difference(dataset: FlowDataset) -> None:
    task = describe_task(dataset)
    more = dataclasses.replace(task, class_names=("a new one", *task.class_names))
    with pytest.raises(ConfigMismatchError) as caught:
        check_data(more, dataset, stream="flow")
    assert caught.value.differences == {"classes that only one has": (["a new one"], [])}
    assert "a new one in training, nothing here" in str(caught.value)
    turned = dataclasses.replace(task, class_names=task.class_names[1:] + task.class_names[:1])
    with pytest.raises(ConfigMismatchError, match="the order of 8 classes, such as class 0"):
        check_data(turned, dataset, stream="flow")


def test_another_implementation_is_noted(dataset: FlowDataset) -> None:
    task = dataclasses.replace(describe_task(dataset), implementation="opencv-99")
    (note,) = check_data(task, dataset, stream="flow")
    assert "opencv-99" in note
    assert dataset.header.implementation in note
    assert check_data(task, dataset, stream="rgb") == []


def test_a_forged_checkpoint_is_refused_before_anything_is_made_of_it(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Each of these once ended in a traceback, in a network of many gigabytes, or in no end."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    sound = torch.load(path, weights_only=True)
    name = next(iter(sound["model"]))
    forgeries: list[dict[str, Any]] = [
        {"step": "7"},
        {"step": -1},
        {"format_version": torch.ones(2)},
        {"model": {**sound["model"], name: 3}},
        {"model": {**sound["model"], name: torch.eye(3).to_sparse()}},
        {"model": {**sound["model"], name: torch.zeros(1).expand(1 << 40)}},
        {"model": {**sound["model"], name: torch.full_like(sound["model"][name], torch.nan)}},
        {"config": "[" * 100_000},
        {"config": sound["config"].replace('"width": 0.0625', '"width": 8.0')},
        {"config": sound["config"].replace('"num_frames": 2', '"num_frames": 2.5')},
        {"tasks": "[]"},
        {"tasks": sound["tasks"].replace('"class_names": [', '"class_names": [7, ')},
        {"training": {**sound["training"], "best": (0.5, 1 << 40)}},
        {"training": {**sound["training"], "totals": torch.zeros(1).expand(1 << 40)}},
        {"training": {**sound["training"], "seconds": float("nan")}},
    ]
    for forged in forgeries:
        torch.save({**sound, **forged}, path)
        with pytest.raises(WeightsError):
            restore_model(load_checkpoint(path))


def test_a_packed_checkpoint_is_not_unpacked(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    with zipfile.ZipFile(path) as file:
        parts = {part.filename: file.read(part) for part in file.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(name, data)
    with pytest.raises(WeightsError, match="is packed, which PyTorch's never are"):
        load_checkpoint(path)
