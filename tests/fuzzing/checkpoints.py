"""A checkpoint that is damaged or forged, taken in every way: it is refused, or is what it was.

fuzz_checkpoints -> children.run_cases -> forged -> load, restore, evaluate, --weights -> outcome
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import FlowprepError
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.video import Video
from flowprep.learn.checkpoint import build_model, check_data, load_checkpoint, restore_model
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions
from flowprep.learn.train import train
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from flowprep.learn.weights.load import load_weights_into
from flowprep.synthetic import Layer, Motion, Scene, write_video
from tests.fuzzing.children import child, run_cases
from tests.fuzzing.forged import FORGERIES, MAY_BE_BELIEVED
from tests.fuzzing.mutations import Random, case_random
from tests.fuzzing.outcomes import Outcomes

__all__ = ["CONFIG", "DATA", "NUM_STEPS", "OPTIONS", "chosen", "fuzz_checkpoints", "make_training"]

DATA = "data"
NUM_STEPS, STOPPED_AFTER = 4, 2
CONFIG = TrainConfig(
    ModelSpec("resnet18", width=0.0625),
    ClipSpec("flow", 2, resize_short_px=24, crop_px=24),
    AugmentSpec(),
    OptimizationSpec(num_steps=NUM_STEPS, batch_size=2, optimizer="adamw"),
    train_split="train",
    test_split="none",
)
OPTIONS = TrainOptions(device="cpu", num_loaders=0, log_every=1, tensorboard=False, progress=False)


def make_training(folder: Path) -> Path:
    """Makes a data set, and a training of it that was stopped half-way; returns its folder."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    videos = []
    for number in range(3):
        path = clips / f"{number}.mp4"
        scene = Scene(32, 24, (Layer(number, (Motion(velocity_px=(1.5, -0.7)),)),))
        write_video(path, map(scene.frame, range(5)))
        videos.append(Video(f"{number}", str(path), (number % 2,), "train"))
    config = ExtractConfig(
        DecodeSpec(resize=Resize("none", short_px=None)), FlowSpec("dis"), EncodeSpec()
    )
    flowprep.extract(
        Manifest(tuple(videos), ("run", "walk"), 0, ()), folder / DATA, config, executor="inline"
    )
    run = folder / "run"
    # As in the children: sums of several threads are not the same to the bit.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    asked = iter(range(1, NUM_STEPS))
    try:
        train(
            [open_dataset(folder / DATA)],
            run,
            CONFIG,
            OPTIONS,
            is_stop_asked=lambda: next(asked) == STOPPED_AFTER,
        )
    except KeyboardInterrupt:
        return run
    finally:
        torch.set_num_threads(num_threads)
    raise AssertionError("the training was not stopped")


def chosen(random: Random, kinds: dict[str, tuple[int, Any]]) -> str:
    """Returns one of the kinds, as often as they say."""
    weights = np.array([weight for weight, _ in kinds.values()], float)
    return list(kinds)[int(random.choice(len(kinds), p=weights / weights.sum()))]


def damage(template: Path, path: Path, seed: int, index: int) -> str:
    """Makes the case's checkpoint at `path`, and returns the kind of damage."""
    random = case_random(seed, index)
    kind = chosen(random, FORGERIES)
    shutil.copy(template / "last.pt", path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        FORGERIES[kind][1](random, path)
    return kind


# ---- a case

REFUSED = "refused"


def readings(path: Path, dataset: FlowDataset) -> dict[str, str]:
    """Takes a checkpoint in every way; returns a digest of what it gave each time, or REFUSED."""
    ways: dict[str, Callable[[], Any]] = {
        "restore": lambda: _restored(path, dataset),
        "weights": lambda: _loaded(path),
    }
    found = {}
    for name, way in ways.items():
        try:
            found[name] = way()
        except FlowprepError:
            found[name] = REFUSED
    return found


def _restored(path: Path, dataset: FlowDataset) -> str:
    checkpoint = load_checkpoint(path)
    model = restore_model(checkpoint)
    notes = [
        [*check_data(task, dataset, stream=checkpoint.config.clip.stream), repr(task.config)]
        for task in checkpoint.tasks
    ]
    said = (checkpoint.config, checkpoint.tasks, checkpoint.step, checkpoint.versions, notes)
    training = repr(checkpoint.training)
    torch.manual_seed(0)
    with torch.no_grad():
        scores = model(*[torch.randn(1, *one.shape(24)) for one in model.inputs])
    return _digest(repr(said), training, repr(scores))


def _loaded(path: Path) -> str:
    torch.manual_seed(0)
    model = build_model(CONFIG, [2])
    report = load_weights_into(model, path)  # type: ignore[arg-type]
    state = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    return _digest(repr(report.missing), repr(state))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode(errors="backslashreplace")).hexdigest()


def carry_out(
    template: Path, sound: dict[str, str], dataset: FlowDataset, place: Path, seed: int, index: int
) -> tuple[str, str, list[str]]:
    """Carries a case out; returns its kind, its outcome and the rules that it broke."""
    path = place / "case.pt"
    kind = damage(template, path, seed, index)
    broken = []
    found: dict[str, str] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = readings(path, dataset)
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        broken.append(f"{type(error).__name__} at {where}: {str(error)[:200]}")
    differs = any(value not in (REFUSED, sound[name]) for name, value in found.items())
    if differs and kind not in MAY_BE_BELIEVED:
        broken.append("it is read otherwise")
    if broken:
        return kind, "RULE BROKEN", broken
    if found.get("restore") == REFUSED:
        return kind, "refused", broken
    return kind, "believed" if differs else "equal", broken


def _child(template: Path, folder: Path, seed: int, indices: list[int]) -> None:
    torch.set_num_threads(1)
    dataset = open_dataset(template.parent / DATA)
    # Twice, so that what this imports does not count as a case's.
    sound = readings(template / "last.pt", dataset)
    assert REFUSED not in sound.values()
    child(folder, seed, indices, lambda *case: carry_out(template, sound, dataset, *case))


def fuzz_checkpoints(
    *, folder: Path, keep: Path, count: int, seed: int, only: int | None = None
) -> Outcomes:
    """Takes `count` damaged checkpoints, and returns what became of them.

    `folder` is for all that is made meanwhile. `only` carries out a single case.
    """
    outcomes = Outcomes("checkpoints", seed, keep)
    template = make_training(folder / "template")

    def keep_case(index: int, rule: str) -> str:
        path = template.parent / "kept.pt"
        kind = damage(template, path, seed, index)
        outcomes.break_rule(str(index), f"{kind}: {rule}", path)
        return kind

    waiting = [i for i in range(count) if only in (None, i)]
    run_cases("tests.fuzzing.checkpoints", template, outcomes, waiting, keep_case)
    return outcomes


if __name__ == "__main__":
    _child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), list(map(int, sys.argv[4:])))
