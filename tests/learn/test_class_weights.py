"""Weights of classes: the formula, scikit-learn's numbers, the file, and the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError, InputError
from flowprep.learn.checkpoint import Task
from flowprep.learn.class_weights import class_weights, inverse_weights
from flowprep.learn.losses import task_loss

CPU = torch.device("cpu")
TASKS = [Task("one", ("run", "walk, slowly"), {}, ""), Task("two", ("jump",), {}, "")]


def test_inverse_weights_are_scikit_learns_and_one_on_average() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = [0] * 7 + [1] * 2 + [3]
    weights = inverse_weights(labels, 5)
    known = compute_class_weight("balanced", classes=np.unique(labels), y=np.array(labels))
    assert [weights[label] for label in (0, 1, 3)] == pytest.approx(known.tolist())
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)
    assert (weights[2], weights[4]) == (1, 1)


def test_each_data_set_has_weights_of_its_own() -> None:
    weights = class_weights("inverse", TASKS, [(0, 0), (0, 0), (0, 1), (1, 0)], CPU)
    assert weights is not None
    assert [own.tolist() for own in weights] == [[0.75, 1.5], [1.0]]
    assert class_weights(None, TASKS, [(0, 0)], CPU) is None


def test_a_file_gives_every_class_its_weight(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    path.write_text('class,weight\njump,2\n"walk, slowly",.5\nrun,3e0\n', encoding="utf-8")
    weights = class_weights(str(path), TASKS, [], CPU)
    assert weights is not None
    assert [own.tolist() for own in weights] == [[3.0, 0.5], [2.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,weight\nrun,1\njump,1\n", "has no weight for walk, slowly; give every class one"),
        ('class,weight\nrun,1\njump,1\n"walk, slowly",1\nfly,1\n', "names fly, which the data"),
        ("class,weight\nrun,1\nrun,2\n", "names run twice, the second time in line 3"),
        ("class,weight\nrun,0\n", "above 0 as weights, got '0' for run in line 2"),
        ("class,weight\nrun,nan\n", "got 'nan' for run"),
        ("class,weight\nrun,inf\n", "got 'inf' for run"),
        ("class,weight\nrun,much\n", "got 'much' for run"),
        ("run,1\n", "columns class and weight, and .* has run, 1; write `class,weight`"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "weights.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        class_weights(str(path), TASKS, [], CPU)


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(InputError, match="invers"):
        class_weights("invers", TASKS, [], CPU)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weighted_losses_add_up_however_the_batch_is_divided(smoothing: float) -> None:
    torch.manual_seed(0)
    heads, labels = [torch.randn(8, 3), torch.randn(8, 2)], torch.tensor([0, 1, 2, 1, 0, 1, 0, 2])
    tasks = torch.tensor([0, 0, 0, 1, 1, 0, 1, 0])
    weights = [torch.tensor([0.5, 1.0, 4.0]), torch.tensor([2.0, 3.0])]
    counts = [5, 3]
    options = {"label_smoothing": smoothing, "weights": weights}
    whole = task_loss(heads, labels, tasks, counts, **options)  # type: ignore[arg-type]
    expected = 0.0
    for row, (task, label) in enumerate(zip(tasks.tolist(), labels.tolist(), strict=True)):
        own = heads[task][row : row + 1]
        loss = F.cross_entropy(own, torch.tensor([label]), label_smoothing=smoothing)
        expected += float(weights[task][label] * loss) / counts[task]
    assert whole == pytest.approx(expected)
    parts = [
        task_loss([h[rows] for h in heads], labels[rows], tasks[rows], counts, **options)  # type: ignore[arg-type]
        for rows in (slice(0, 3), slice(3, 8))
    ]
    assert sum(map(float, parts)) == pytest.approx(float(whole))
    # Weights of one change nothing.
    ones = [torch.ones(3), torch.ones(2)]
    plain = task_loss(heads, labels, tasks, counts, label_smoothing=smoothing)
    same = task_loss(heads, labels, tasks, counts, label_smoothing=smoothing, weights=ones)
    assert same == pytest.approx(float(plain))
