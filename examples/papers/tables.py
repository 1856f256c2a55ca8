"""What the scripts beside this one share: the data, the trainings with their tests, the table.

Each script names its trainings and the rows of its paper's table, and calls `main`. Every step is a
`flowprep` command, which is printed before it runs. After an interruption, the same command line
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowprep.cli import main as flowprep_command
from flowprep.dataset.read import open_dataset
from flowprep.learn.networks import NETWORKS
from flowprep.learn.scores import Scores

__all__ = ["Paper", "Row", "Training", "main"]

SMALL_CLIPS = "--frames 16 --width 80 --height 64"
SMALL_EXTRACTION = "--resize none --algorithm farneback --executor inline"
SMALL_TRAINING = (
    "--crop 56 --no-flip --crop-place random --scales 1 --optimizer adamw --learning-rate .004 "
    "--warmup .2 --schedule cosine --batch-size 16 --steps 40 --test-split none --loaders 0 "
    "--no-tensorboard --label-smoothing 0 --precision fp32"
)
"""Classes of the clips are directions, and a mirror makes left into right: no flips."""


@dataclass(frozen=True)
class Training:
    """One network: how it is trained, on the paper's data or small, and tested."""

    options: str
    """Options of `flowprep train` in both cases."""
    full: str = ""
    """More of them for the paper's data."""
    small: str = ""
    """More of them with --small."""
    starts_from: str = ""
    """`weights`: ImageNet's, which --weights names. With --small, or for another name, the weights
    of the training of that name."""
    on: tuple[str, ...] = ("main",)
    """The data sets that it is trained on together: main, other. It is tested on the first."""
    has_train_scores: bool = False
    """Whether the training videos are scored as well, for the SVM that fuses."""


@dataclass(frozen=True)
class Row:
    """A row of the table: a training's name, or several to fuse, and what the paper states."""

    label: str
    trainings: tuple[str, ...]
    paper: str = ""
    """The paper's accuracy in percent. Empty if no source at hand confirms it."""
    method: str = "mean"
    """How `flowprep fuse` joins several."""


@dataclass(frozen=True)
class Paper:
    """A paper's table: its data, its trainings and its rows."""

    title: str
    data: str
    """The data set, its split and the measure of the paper's numbers."""
    split_options: str
    """Options of `flowprep extract` for the paper's videos."""
    trainings: dict[str, Training]
    rows: tuple[Row, ...]
    test: str
    """Options of `flowprep evaluate` for the paper's test."""
    pretraining: Training | None = None
    """With --small, the training whose weights stand for ImageNet's: on frames of clips of which
    color tells the class."""
    absent: tuple[str, ...] = field(default=())
    """Rows of the paper that are not here, and why."""


def main(paper: Paper, arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Runs what the command line asks for. Prints the table; returns the accuracies by row."""
    options = _read_options(paper, arguments)
    work = Path(options.folders[-1])
    run = _Run(paper, work, options.small, options.weights, options.other)
    run.prepare(options.folders[:-1])
    measured = {}
    for row in paper.rows:
        if options.rows and row.label not in options.rows:
            continue
        if (problem := run.problem(row)) is not None:
            print(f"\n== {row.label}: not run: {problem}", flush=True)
            continue
        print(f"\n== {row.label}", flush=True)
        measured[row.label] = run.accuracy(row)
    _print_table(paper, measured, options.small, run.num_classes())
    return measured


def _read_options(paper: Paper, arguments: Sequence[str] | None) -> argparse.Namespace:
    labels = "\n".join(f"  {row.label}" for row in paper.rows)
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{paper.title}: the paper's table, on {paper.data}.\n\nRows:\n{labels}",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="VIDEOS ANNOTATIONS WORK",
        help="the paper's videos, their split files, and the folder for all results; with --small "
        "only the last",
    )
    parser.add_argument(
        "--small", action="store_true", help="small networks on made clips, in under 3 minutes"
    )
    parser.add_argument("--weights", metavar="FILE", help="ImageNet's weights of the network")
    parser.add_argument(
        "--other",
        nargs=2,
        metavar=("VIDEOS", "ANNOTATIONS"),
        help="a second data set, for rows that train on two, such as HMDB51 beside UCF101",
    )
    parser.add_argument(
        "--row", action="append", dest="rows", metavar="LABEL", help="run only this row"
    )
    options = parser.parse_args(arguments)
    if len(options.folders) != (1 if options.small else 3):
        parser.error(
            "give WORK alone with --small, and VIDEOS ANNOTATIONS WORK without; "
            f"got {len(options.folders)} folders"
        )
    for label in options.rows or ():
        if label not in {row.label for row in paper.rows}:
            parser.error(f"--row must be a label of the table, got {label!r}; --help lists them")
    return options


class _Run:
    """The commands of one table. Each training runs once, when a row first needs it."""

    def __init__(
        self, paper: Paper, work: Path, is_small: bool, weights: str | None, other: Sequence[str]
    ) -> None:
        self._paper = paper
        self._work = work
        self._is_small = is_small
        self._weights = weights
        self._other = other
        self._done: set[str] = set()

    def prepare(self, folders: Sequence[str]) -> None:
        """Extracts the data set, or with --small makes clips first."""
        if not self._is_small:
            self._extract("main", *folders, self._paper.split_options)
            if self._other:
                self._extract("other", *self._other, self._paper.split_options)
            return
        self._make_clips("main", "--seed 0")

    def problem(self, row: Row) -> str | None:
        """Says why a row cannot be run, or None."""
        for training in map(self._training, row.trainings):
            words = shlex.split(training.options)
            model = words[words.index("--model") + 1]
            if model not in NETWORKS:
                return f"this version has no network {model}"
            if self._is_small:
                continue
            if training.starts_from == "weights" and not self._weights:
                return "name ImageNet's weights with --weights"
            if "other" in training.on and not self._other:
                return "name the second data set with --other"
        return None

    def accuracy(self, row: Row) -> float:
        """Trains and tests what a row needs. Returns its top-1 accuracy in percent."""
        for name in row.trainings:
            self._train(name)
        tests = [self._work / name / "test" for name in row.trainings]
        if len(tests) == 1:
            return _top1(tests[0])
        fused = self._work / f"{'-'.join(row.trainings)}-{row.method}"
        command = ["fuse", *map(str, tests), "--method", row.method, "--to", str(fused)]
        if row.method == "svm":
            for name in row.trainings:
                command += ["--train-scores", str(self._work / name / "train")]
        _flowprep(command)
        return _top1(fused)

    def num_classes(self) -> int:
        """Returns how many classes the videos of the table have."""
        return len(open_dataset(self._work / "main").class_names)

    def _training(self, name: str) -> Training:
        if name == "pretraining":
            assert self._paper.pretraining is not None
            return self._paper.pretraining
        return self._paper.trainings[name]

    def _train(self, name: str) -> None:
        if name in self._done:
            return
        training = self._training(name)
        weights = []
        if training.starts_from:
            weights = ["--weights", self._weights_file(training.starts_from)]
        sets = [self._data(one) for one in training.on]
        run = self._work / name
        options = shlex.split(training.options)
        options += shlex.split(
            f"{SMALL_TRAINING} {training.small}" if self._is_small else training.full
        )
        _flowprep(["train", *sets, "--run", str(run), *options, *weights])
        task = ["--task", training.on[0]] if len(sets) > 1 else []
        for split in ("test", "train") if training.has_train_scores else ("test",):
            self._test(run, sets[0], split, task)
        self._done.add(name)

    def _weights_file(self, source: str) -> str:
        if source == "weights" and not self._is_small:
            assert self._weights is not None
            return self._weights
        name = "pretraining" if source == "weights" else source
        self._train(name)
        return str(self._work / name / "last.pt")

    def _test(self, run: Path, data: str, split: str, task: Sequence[str]) -> None:
        scores = run / split / "scores.npz"
        checkpoint = run / "last.pt"
        if scores.exists() and scores.stat().st_mtime > checkpoint.stat().st_mtime:
            return
        views = "--clips 3 --crops 1 --loaders 0" if self._is_small else self._paper.test
        command = ["evaluate", data, "--checkpoint", str(checkpoint), "--split", split, *task]
        _flowprep([*command, "--to", str(run / split), *shlex.split(views)])

    def _data(self, name: str) -> str:
        if self._is_small and name != "main":
            # Frames of the first tell the class, as those of ImageNet do.
            looks = "--looks red,blue,green,yellow --actions move_left"
            self._make_clips(name, f"--seed 1 {looks}" if name == "looks" else "--seed 1")
        return str(self._work / name)

    def _make_clips(self, name: str, options: str) -> None:
        clips = self._work / f"{name}-clips"
        if not (self._work / name / "dataset.json").exists():
            _flowprep(["synthetic", str(clips), *shlex.split(f"{SMALL_CLIPS} {options}")])
        self._extract(name, str(clips / "videos"), str(clips / "annotations"), SMALL_EXTRACTION)

    def _extract(self, name: str, videos: str, annotations: str, options: str) -> None:
        command = ["extract", videos, str(self._work / name), "--annotations", annotations]
        _flowprep([*command, *shlex.split(options)])


def _flowprep(command: Sequence[str]) -> None:
    """Prints a command and runs it in this process, which saves its start. Exits if it fails."""
    print(f"$ {shlex.join(['flowprep', *command])}", flush=True)
    run: Callable[[Sequence[str]], None] = flowprep_command
    try:
        run(command)
    except SystemExit as ended:
        if ended.code:
            raise


def _top1(folder: Path) -> float:
    return 100 * Scores.load(folder / "scores.npz").metrics()["top1"]


def _print_table(
    paper: Paper, measured: dict[str, float], is_small: bool, num_classes: int
) -> None:
    print(f"\n{paper.title}")
    if is_small:
        print(f"Small networks on made clips. Chance is {100 / num_classes:.1f} %.\n")
        print("| row | ours |\n|---|---|")
    else:
        print(f"{paper.data}\n")
        print("| row | paper | ours |\n|---|---|---|")
    for row in paper.rows:
        ours = f"{measured[row.label]:.1f}" if row.label in measured else ""
        cells = [row.label, ours] if is_small else [row.label, row.paper or "not known here", ours]
        print(f"| {' | '.join(cells)} |")
    for text in paper.absent:
        print(f"Not here: {text}")
