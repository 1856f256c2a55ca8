"""What the scripts beside this one share: the data, the trainings with their tests, the table.

Each script names its trainings and the rows of its paper's table, and calls `main`. Every step is a
`flowprep` command, which is printed before it runs. After an interruption the same command line
goes on where it stopped: a training from its last checkpoint, and what is done is not done again.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowprep.cli import main as flowprep_command
from flowprep.dataset.read import open_dataset
from flowprep.learn.scores import Scores

__all__ = ["Paper", "Row", "Training", "main"]

SMALL_CLIPS = {
    "main": "--looks red,blue --actions zoom_in,zoom_out --videos-per-class 16",
    # In place of ImageNet: a frame tells the class.
    "looks": "--looks red,blue --actions move_left --videos-per-class 8 --seed 1",
    # In place of a second data set: other classes, and only motion tells them apart.
    "other": "--actions move_up,move_down --videos-per-class 8 --seed 2",
}
"""Name of a data set -> options of `flowprep synthetic` with --small."""
SMALL_FRAMES = "--frames 16 --width 80 --height 64"
SMALL_EXTRACTION = "--resize none --algorithm farneback --executor inline"
SMALL_TRAINING = (
    "--crop 56 --crop-place random --scales 1 --optimizer adamw --warmup .2 --batch-size 16 "
    "--test-split none --loaders 0 --no-tensorboard"
)
SMALL_TEST = "--clips 3 --crops 1 --loaders 0"
SMALL_NOTE = (
    "A frame tells the color, flow tells whether the camera comes nearer, and a class is both. So "
    "networks of one stream find about 50 %, and those of both up to 100 %. Frames in their order "
    "tell both as well, but in so few steps a network learns the color alone."
)


@dataclass(frozen=True)
class Training:
    """One network: how it is trained, on the paper's data or small, and tested."""

    options: str
    """Options of `flowprep train` in both cases."""
    full: str = ""
    """More of them for the paper's data."""
    small: str = ""
    """More of them with --small."""
    starts_from: tuple[str, ...] = ()
    """Where the first weights are from: another training, or a network of `Paper.imagenet`. Two
    for a network with two towers, frames first."""
    on: tuple[str, ...] = ("main",)
    """The data sets that it is trained on together: main, other. It is tested on the first."""
    test: str = ""
    """Options of `flowprep evaluate` for the paper's data, in place of `Paper.test`."""
    has_train_scores: bool = False
    """Whether the training videos are scored as well, for the SVM that fuses."""


@dataclass(frozen=True)
class Row:
    """A row of the table: a training's name, or several to fuse, and what the paper states."""

    label: str
    trainings: tuple[str, ...]
    paper: str = ""
    """The paper's accuracy in percent, perhaps with a mark that `Paper.notes` explains. Empty if
    the paper has no such row."""
    method: str = "mean"
    """How `flowprep fuse` joins several."""


@dataclass(frozen=True)
class Paper:
    """A paper's table: its data, its trainings and its rows."""

    title: str
    data: str
    """The data set, its split and the measure of the paper's numbers."""
    extraction: str
    """Options of `flowprep extract` for the paper's videos."""
    trainings: Mapping[str, Training]
    rows: tuple[Row, ...]
    test: str
    """Options of `flowprep evaluate` for the paper's test."""
    imagenet: Mapping[str, Training] = field(default_factory=dict)
    """The networks whose weights the paper takes from ImageNet: --weights NAME=FILE names them.
    With --small, these trainings stand for ImageNet's, on frames of clips of which color tells the
    class."""
    notes: tuple[str, ...] = ()
    """What differs from the paper, and rows of it that are not here."""
    small_notes: tuple[str, ...] = ()
    """What small networks on made clips do not show."""


def main(paper: Paper, arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Runs what the command line asks for. Prints the table; returns the accuracies by row."""
    options = _read_options(paper, arguments)
    run = _Run(paper, options)
    run.prepare()
    measured = {}
    for row in paper.rows:
        if options.rows and row.label not in options.rows:
            continue
        if (problem := run.problem(row)) is not None:
            print(f"\n== {row.label}: not run: {problem}", flush=True)
            continue
        print(f"\n== {row.label}", flush=True)
        scores = run.scores(row)
        if not options.dry_run:
            measured[row.label] = 100 * Scores.load(scores).metrics()["top1"]
    if not options.dry_run:
        _print_table(paper, measured, options.small, run.num_classes())
    return measured


def _read_options(paper: Paper, arguments: Sequence[str] | None) -> argparse.Namespace:
    labels = "\n".join(f"  {row.label}" for row in paper.rows)
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{paper.title}: the paper's table. {paper.data}\n\nRows:\n{labels}",
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
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help=f"ImageNet's weights of a network: {', '.join(paper.imagenet) or 'none here'}",
    )
    parser.add_argument(
        "--other",
        nargs=2,
        metavar=("VIDEOS", "ANNOTATIONS"),
        help="a second data set, for rows that train on two, such as HMDB51 beside UCF101",
    )
    parser.add_argument(
        "--row", action="append", dest="rows", metavar="LABEL", help="run only this row"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    more = "more options of each `flowprep {}`, such as '{}'"
    parser.add_argument(
        "--extract", default="", metavar="OPTIONS", help=more.format("extract", "--address auto")
    )
    parser.add_argument(
        "--train",
        default="",
        metavar="OPTIONS",
        help=more.format("train", "--workers 8 --precision bf16"),
    )
    parser.add_argument(
        "--evaluate",
        default="",
        metavar="OPTIONS",
        help=more.format("evaluate", "--precision bf16"),
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
    options.weights = dict(one.partition("=")[::2] for one in options.weights)
    for name, file in options.weights.items():
        if name not in paper.imagenet or not file:
            known = " or ".join(f"{name}=FILE" for name in paper.imagenet) or "left out here"
            parser.error(f"--weights must be {known}, got {name!r}")
    return options


class _Run:
    """The commands of one table. Each training runs once, when a row first needs it."""

    def __init__(self, paper: Paper, options: argparse.Namespace) -> None:
        self._paper = paper
        self._options = options
        self._is_small: bool = options.small
        self._work = Path(options.folders[-1])
        self._trained: set[str] = set()
        self._made: set[str] = set()

    def prepare(self) -> None:
        """Extracts the data set, or with --small makes clips first."""
        if self._is_small:
            self._data("main")
            return
        videos, annotations, _ = self._options.folders
        self._extract("main", videos, annotations, self._paper.extraction)
        if self._options.other:
            self._extract("other", *self._options.other, self._paper.extraction)

    def problem(self, row: Row) -> str | None:
        """Says why a row cannot be run, or None."""
        if self._is_small:
            return None
        for name in self._needed(row.trainings):
            if name in self._paper.imagenet and name not in self._options.weights:
                return f"give ImageNet's weights with --weights {name}=FILE"
            if "other" in self._training(name).on and not self._options.other:
                return "name the second data set with --other"
        return None

    def scores(self, row: Row) -> Path:
        """Trains and tests what a row needs. Returns the file of its scores."""
        tests = [self._train(name) for name in row.trainings]
        if len(tests) == 1:
            return tests[0]
        sources = list(tests)
        command = ["fuse", *(str(test.parent) for test in tests), "--method", row.method]
        if row.method == "svm":
            for name in row.trainings:
                sources.append(self._work / name / "train" / "scores.npz")
                command += ["--train-scores", str(sources[-1].parent)]
        return self._score(command, self._work / f"{'-'.join(row.trainings)}-{row.method}", sources)

    def num_classes(self) -> int:
        """Returns how many classes the videos of the table have."""
        return len(open_dataset(self._work / "main").class_names)

    def _training(self, name: str) -> Training:
        return self._paper.trainings.get(name) or self._paper.imagenet[name]

    def _needed(self, names: Sequence[str]) -> list[str]:
        """Returns these trainings and those whose weights they start from."""
        sources = [self._needed(self._training(name).starts_from) for name in names]
        return [*names, *(name for several in sources for name in several)]

    def _train(self, name: str) -> Path:
        """Trains and tests a network. Returns the file of its scores of the test videos."""
        training, run = self._training(name), self._work / name
        checkpoint, test = run / "last.pt", run / "test" / "scores.npz"
        if name in self._trained:
            return test
        sets = [self._data(one) for one in training.on]
        command = ["train", *sets, "--run", str(run), *shlex.split(training.options)]
        if self._is_small:
            command += shlex.split(f"{SMALL_TRAINING} {training.small}")
        else:
            command += shlex.split(training.full)
        if training.starts_from:
            command += ["--weights", ",".join(map(self._weights_file, training.starts_from))]
        # A training that was stopped goes on, and one that is complete ends at once.
        self._flowprep([*command, *shlex.split(self._options.train)])
        if name not in self._paper.imagenet:
            views = SMALL_TEST if self._is_small else training.test or self._paper.test
            for split in ("test", "train") if training.has_train_scores else ("test",):
                command = ["evaluate", sets[0], "--checkpoint", str(checkpoint), "--split", split]
                command += ["--task", training.on[0]] if len(sets) > 1 else []
                command += shlex.split(f"{views} {self._options.evaluate}")
                self._score(command, run / split, [checkpoint])
        self._trained.add(name)
        return test

    def _weights_file(self, source: str) -> str:
        if source in self._paper.imagenet and not self._is_small:
            return str(self._options.weights[source])
        self._train(source)
        return str(self._work / source / "last.pt")

    def _score(self, command: list[str], folder: Path, sources: Sequence[Path]) -> Path:
        """Runs a command that writes scores, unless they are there and newer than its sources."""
        scores = folder / "scores.npz"
        if not scores.exists() or any(
            source.stat().st_mtime >= scores.stat().st_mtime for source in sources
        ):
            self._flowprep([*command, "--to", str(folder)])
        return scores

    def _data(self, name: str) -> str:
        """Returns the folder of a data set. With --small, makes it first."""
        out = self._work / name
        if self._is_small and name not in self._made:
            clips = self._work / f"{name}-clips"
            if not (out / "dataset.json").exists():
                options = shlex.split(f"{SMALL_FRAMES} {SMALL_CLIPS[name]}")
                self._flowprep(["synthetic", str(clips), *options])
            self._extract(name, str(clips / "videos"), str(clips / "annotations"), SMALL_EXTRACTION)
            self._made.add(name)
        return str(out)

    def _extract(self, name: str, videos: str, annotations: str, options: str) -> None:
        command = ["extract", videos, str(self._work / name), "--annotations", annotations]
        self._flowprep([*command, *shlex.split(f"{options} {self._options.extract}")])

    def _flowprep(self, command: Sequence[str]) -> None:
        """Prints a command and runs it in this process, which saves its start.

        Ends the script if the command fails.
        """
        print(f"$ {shlex.join(['flowprep', *command])}", flush=True)
        if self._options.dry_run:
            return
        try:
            flowprep_command(command)
        except SystemExit as ended:
            if ended.code:
                raise


def _print_table(
    paper: Paper, measured: dict[str, float], is_small: bool, num_classes: int
) -> None:
    chance = 100 / num_classes
    print(f"\n{paper.title}")
    if is_small:
        print(f"Small networks on made clips, top-1 in percent. Chance is {chance:.1f} %.")
        print(f"{SMALL_NOTE}\n")
        print("| row | ours |\n|---|---|")
    else:
        print(f"{paper.data} Chance is {chance:.1f} %.\n")
        print("| row | paper | ours |\n|---|---|---|")
    for row in paper.rows:
        ours = f"{measured[row.label]:.1f}" if row.label in measured else ""
        cells = [row.label, ours] if is_small else [row.label, row.paper, ours]
        print(f"| {' | '.join(cells)} |")
    for note in paper.small_notes if is_small else paper.notes:
        print(f"\n{note}")
