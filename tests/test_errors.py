"""The tree of errors is the one that its docstring draws, and each travels between processes."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import get_args

import pytest

from flowprep import errors
from flowprep.errors import (
    FAILURE_REASONS,
    VIDEO_NOTES,
    ConfigError,
    ConfigMismatchError,
    DatasetError,
    ExecutorError,
    FailureReason,
    FlowprepError,
    InputError,
    NoteCode,
    StorageError,
    TrainingError,
    VideoError,
    WeightsError,
)


def drawn_tree() -> dict[str, str]:
    """Returns the docstring's drawing as child -> parent."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([| `-]*)(\w+Error)\b", line)
        if match is None:
            continue
        indent, name = len(match[1]), match[2]
        path = [(i, n) for i, n in path if i < indent]
        if path:
            parents[name] = path[-1][1]
        path.append((indent, name))
    return parents


def test_the_hierarchy_is_the_one_that_the_docstring_draws() -> None:
    classes = {
        name: item
        for name, item in vars(errors).items()
        if inspect.isclass(item) and issubclass(item, FlowprepError)
    }
    parents = drawn_tree()
    assert set(parents) == set(classes) - {"FlowprepError"}
    for name, parent in parents.items():
        assert classes[name].__bases__[0] is classes[parent]


def test_a_wrong_option_is_also_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)
    assert not issubclass(DatasetError, ValueError)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (FlowprepError, 1),
        (ConfigError, 2),
        (InputError, 2),
        (DatasetError, 1),
        (ConfigMismatchError, 1),
        (StorageError, 1),
        (ExecutorError, 1),
        (VideoError, 1),
        (WeightsError, 1),
        (TrainingError, 1),
    ],
)
def test_exit_codes(error: type[FlowprepError], exit_code: int) -> None:
    assert error.exit_code == exit_code


@pytest.mark.parametrize(
    "error",
    [
        FlowprepError("a"),
        ConfigError("fps must be > 0, got 0"),
        InputError("no videos"),
        DatasetError("damaged"),
        StorageError("cannot write OUT"),
        ExecutorError("no workers"),
        ConfigMismatchError(
            "another:\n  flow.step", {"flow.step": (1, 2), "decode.fps": (None, 25)}
        ),
        VideoError("damaged", "broke off at 3 s", num_frames=75),
        WeightsError("model.ckpt.index is damaged"),
        TrainingError("the loss is nan after step 7"),
    ],
)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_an_error_survives_pickling(error: FlowprepError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


def test_an_error_of_a_video_says_why_and_how_far_it_came() -> None:
    error = VideoError("stalled", "no progress for 120 s")
    assert (error.reason, error.message, error.num_frames) == (
        "stalled",
        "no progress for 120 s",
        0,
    )
    assert str(error) == "no progress for 120 s"


def test_differences_are_kept_as_their_own() -> None:
    given = {"flow.step": (1, 2)}
    error = ConfigMismatchError("another", given)
    given.clear()
    assert error.differences == {"flow.step": (1, 2)}


def test_every_reason_has_its_words() -> None:
    assert set(FAILURE_REASONS) == set(get_args(FailureReason))
    assert set(VIDEO_NOTES) == set(get_args(NoteCode))
    for reason, words in [*FAILURE_REASONS.items(), *VIDEO_NOTES.items()]:
        assert re.fullmatch(r"[a-z-]+", reason)
        assert words
        assert not words.endswith(".")


def test_all_names_are_sorted_and_there() -> None:
    names = [name for name in errors.__all__ if not name.isupper()]
    assert names == sorted(names)
    assert all(hasattr(errors, name) for name in errors.__all__)
