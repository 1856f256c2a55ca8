"""The folder of a stopped training with one damage at a time, and the same command again.

It is refused, and then the folder is left as it was; or the training ends in the weights of one
that nothing happened to.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import FlowprepError
from flowprep.learn.checkpoint import load_checkpoint
from flowprep.learn.train import train
from tests.fuzzing.checkpoints import CONFIG, DATA, NUM_STEPS, OPTIONS, chosen, make_training
from tests.fuzzing.children import child, run_cases
from tests.fuzzing.forged import FORGERIES, MAY_BE_BELIEVED, change_bytes
from tests.fuzzing.hostile_json import change_json
from tests.fuzzing.mutations import Random, case_random
from tests.fuzzing.outcomes import Outcomes

__all__ = ["KINDS", "fuzz_runs"]


def _last(kind: str) -> Callable[[Random, Path], None]:
    return lambda random, run: FORGERIES[kind][1](random, run / "last.pt")


def _bytes(name: str) -> Callable[[Random, Path], None]:
    return lambda random, run: change_bytes(random, run / name)


def _config(random: Random, run: Path) -> None:
    path = run / "config.json"
    path.write_bytes(change_json(random, path.read_bytes()))


def _lost(random: Random, run: Path) -> None:
    """One file is gone, or a folder stands in its place, or another file of the folder."""
    names = ("config.json", "metrics.csv", "last.pt", ".lock")
    name = names[int(random.integers(len(names)))]
    (run / name).unlink(missing_ok=True)
    how = int(random.integers(3))
    if how == 1:
        (run / name).mkdir()
    elif how == 2:
        others = [path for path in sorted(run.iterdir()) if path.is_file()]
        shutil.copy(others[int(random.integers(len(others)))], run / name)


def _strangers(random: Random, run: Path) -> None:
    """Files that no training wrote."""
    for name in (".DS_Store", "best.pt", "last.pt.bak", "config.json.tmp-0123456789ab", ".ray"):
        if random.random() < 0.5:
            (run / name).write_bytes(random.bytes(100))
    if random.random() < 0.5:
        (run / "tensorboard").write_bytes(b"")


KINDS: dict[str, tuple[int, Callable[[Random, Path], None]]] = {
    **{f"last.pt, {kind}": (weight, _last(kind)) for kind, (weight, _) in FORGERIES.items()},
    "config.json: bytes": (6, _bytes("config.json")),
    "config.json: values": (6, _config),
    "metrics.csv: bytes": (12, _bytes("metrics.csv")),
    "a file is lost": (6, _lost),
    "strangers": (3, _strangers),
}
"""Kind -> how often it comes, and what it does to the folder of a training."""


def damage(template: Path, run: Path, seed: int, index: int) -> str:
    """Makes the case's folder at `run`, and returns the kind of damage."""
    random = case_random(seed, index)
    kind = chosen(random, KINDS)
    shutil.copytree(template, run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        KINDS[kind][1](random, run)
    return kind


def _contents(run: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.iterdir()
        if path.is_file() and path.name != ".lock"
    }


def _ended(dataset: FlowDataset, run: Path) -> str:
    """Goes on with a training; returns a digest of the weights that it ends in."""
    train([dataset], run, CONFIG, OPTIONS)
    checkpoint = load_checkpoint(run / "last.pt")
    assert checkpoint.step == NUM_STEPS
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert len({len(row) for row in rows}) == 1, "metrics.csv has lines of several lengths"
    assert rows[-1][0] == str(NUM_STEPS), "metrics.csv lacks the last step"
    digest = hashlib.sha256()
    for name, value in checkpoint.model.items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def carry_out(
    template: Path, sound: str, dataset: FlowDataset, place: Path, seed: int, index: int
) -> tuple[str, str, list[str]]:
    """Carries a case out; returns its kind, its outcome and the rules that it broke."""
    run = place / "run"
    kind = damage(template, run, seed, index)
    before = _contents(run)
    broken = []
    outcome = "equal"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _ended(dataset, run) != sound:
                outcome = "believed"
    except FlowprepError as error:
        outcome = "refused"
        if not str(error) or _contents(run) != before:
            broken.append(f"refused, and the folder is another: {error}")
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        broken.append(f"{type(error).__name__} at {where}: {str(error)[:200]}")
    if outcome == "believed" and kind.partition(", ")[2] not in MAY_BE_BELIEVED:
        broken.append("it ended in other weights")
    return kind, "RULE BROKEN" if broken else outcome, broken


def _child(template: Path, folder: Path, seed: int, indices: list[int]) -> None:
    torch.set_num_threads(1)
    dataset = open_dataset(template.parent / DATA)
    shutil.copytree(template, folder / "sound")
    sound = _ended(dataset, folder / "sound")
    child(folder, seed, indices, lambda *case: carry_out(template, sound, dataset, *case))


def fuzz_runs(
    *, folder: Path, keep: Path, count: int, seed: int, only: int | None = None
) -> Outcomes:
    """Goes on with `count` damaged trainings, and returns what became of them.

    `folder` is for all that is made meanwhile. `only` carries out a single case.
    """
    outcomes = Outcomes("runs", seed, keep)
    template = make_training(folder / "template")

    def keep_case(index: int, rule: str) -> str:
        place = template.parent / "kept"
        shutil.rmtree(place, ignore_errors=True)
        kind = damage(template, place, seed, index)
        outcomes.break_rule(str(index), f"{kind}: {rule}", place)
        return kind

    waiting = [i for i in range(count) if only in (None, i)]
    run_cases("tests.fuzzing.runs", template, outcomes, waiting, keep_case)
    return outcomes


if __name__ == "__main__":
    _child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), list(map(int, sys.argv[4:])))
