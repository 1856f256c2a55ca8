"""Estimators that users bring: how they are found, what is refused, and how they are named."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowprep import FlowSpec, create_estimator
from flowprep.errors import ConfigError
from flowprep.flow.estimators import implementation_of, parse_parameters, resolve_device
from flowprep.flow.own import load_own
from flowprep.flow.parameters import OwnParameters
from tests.own_estimators import (
    CHANNEL_MOTIONS_PX,
    GRAY_MODULE,
    RGB_MODULE,
    channel_frames,
    forget_modules,
)

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the current folder, of which nothing is known before and after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])

    def write(name: str, source: str) -> Path:
        forget_modules(tmp_path)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return path

    yield write
    forget_modules(tmp_path)


def refusal(name: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        create_estimator(name, **options)
    return str(caught.value)


def test_a_class_of_the_current_folder_computes_on_the_channel_it_is_told(write: Write) -> None:
    write("my_flow.py", RGB_MODULE)
    first, second = channel_frames(2)
    for channel, motion in enumerate(CHANNEL_MOTIONS_PX):
        flow = create_estimator("my_flow:ChannelFlow", channel=channel)(first, second)
        np.testing.assert_allclose(np.median(flow[16:-16, 16:-16], (0, 1)), motion, atol=0.1)


def test_a_class_of_a_package_in_the_current_folder(write: Write) -> None:
    write("flows/__init__.py", '__version__ = "2.5"\n')
    write("flows/helpers.py", "WINSIZE = 15\n")
    write("flows/gray.py", f"from flows.helpers import WINSIZE\n{GRAY_MODULE}".replace("1.0", "3"))
    own = load_own("flows.gray:GrayFlow")
    assert own.place == Path.cwd() / "flows"
    assert own.version == "3"
    assert create_estimator("flows.gray:GrayFlow").frames == "gray"


# ---- the version


def test_the_implementation_names_class_version_and_source(write: Write) -> None:
    path = write("my_flow.py", RGB_MODULE)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = f"my_flow:ChannelFlow 1.0, source {digest[:12]}"
    assert implementation_of("my_flow:ChannelFlow", None) == wanted
    write("my_flow.py", RGB_MODULE + "# changed\n")
    assert implementation_of("my_flow:ChannelFlow", None) != wanted


@pytest.mark.parametrize(
    ("old", "new", "version"),
    [
        ('    version = "1.0"\n', "", None),
        ('    version = "1.0"\n', '    implementation = "raft-5"\n', "raft-5"),
        ('    version = "1.0"\n', "    version = (1, 2)\n", "(1, 2)"),
    ],
)
def test_what_counts_as_the_version(write: Write, old: str, new: str, version: str | None) -> None:
    write("my_flow.py", GRAY_MODULE.replace(old, new))
    assert load_own("my_flow:GrayFlow").version == version


def test_weights_are_part_of_the_implementation(write: Write) -> None:
    weights = (
        "    @classmethod\n"
        "    def weights(cls, parameters):\n"
        '        return f"weights of channel {parameters.channel}"\n\n'
    )
    write("my_flow.py", RGB_MODULE.replace("    def __init__", f"{weights}    def __init__"))
    parameters = parse_parameters("my_flow:ChannelFlow", {"channel": 2})
    assert implementation_of("my_flow:ChannelFlow", parameters).endswith(", weights of channel 2")


# ---- parameters


def test_texts_are_read_as_the_fields_say(write: Write) -> None:
    write("my_flow.py", RGB_MODULE)
    given = {"channel": "2", "gains": "[1, 2.5]"}
    parameters = parse_parameters("my_flow:ChannelFlow", given)
    assert isinstance(parameters, OwnParameters)
    assert parameters.values == {"channel": 2, "winsize": 15, "gains": [1.0, 2.5]}


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("int", "5", 5),
        ("float", "5", 5.0),
        ("float", "1e-3", 0.001),
        ("bool", "true", True),
        ("str", "5", "5"),
        ("str", "a=b", "a=b"),
        ("int | None", "null", None),
        ("list[str]", '["a"]', ["a"]),
        ("Literal['fast', 'slow']", "slow", "slow"),
        ("dict[str, int]", '{"a": 1}', {"a": 1}),
    ],
)
def test_types_of_parameters(write: Write, field: str, text: str, value: object) -> None:
    source = RGB_MODULE.replace("channel: int = 0", f"given: {field}\n    channel: int = 0")
    write("my_flow.py", source.replace("import cv2", "from typing import Literal\n\nimport cv2"))
    parameters = parse_parameters("my_flow:ChannelFlow", {"given": text})
    assert isinstance(parameters, OwnParameters)
    assert parameters.values["given"] == value
    # As it is read again from a data set.
    assert parse_parameters("my_flow:ChannelFlow", parameters.values) == parameters


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chanel": "1"}, "has no option chanel; it takes channel, winsize, gains; did you mean"),
        ({"channel": "red"}, "option channel of my_flow:ChannelFlow must be int, got 'red'"),
        ({"channel": 1.5}, "option channel of my_flow:ChannelFlow must be int, got 1.5"),
        ({"gains": "1,2"}, "must be tuple[float, ...], got '1,2'"),
        ({"channel": "7"}, "refuses its options: ValueError at my_flow.py:"),
        ({"channel": "7"}, "channel must be 0, 1 or 2, got 7"),
    ],
)
def test_parameters_that_are_refused(write: Write, options: dict[str, Any], words: str) -> None:
    write("my_flow.py", RGB_MODULE)
    assert words in refusal("my_flow:ChannelFlow", **options)


def test_a_class_without_parameters_takes_none(write: Write) -> None:
    write("my_flow.py", GRAY_MODULE)
    message = refusal("my_flow:GrayFlow", winsize="3")
    assert message == "estimator my_flow:GrayFlow has no option winsize; it takes none"


# ---- what is no estimator


@pytest.mark.parametrize("name", ["my_flow:", ":GrayFlow", "my flow:GrayFlow", "a.py:B", "a:b:c"])
def test_names_that_are_none(name: str) -> None:
    words = f"estimator must be package.module:Class, such as my_flow:MyFlow, got {name!r}"
    assert refusal(name) == words
    with pytest.raises(ConfigError) as caught:
        FlowSpec(name)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_flow:GrayFlow", "Python finds no module no_such_flow, neither in "),
        ("my_flow.part:GrayFlow", "Python finds no module my_flow.part, neither in "),
        ("my_flow:GreyFlow", "has no class GreyFlow; its estimators are GrayFlow; did you mean Gr"),
        ("my_flow:cv2", "must be a subclass of flowprep.FlowEstimator, and it is a module"),
        ("pathlib:Path", "must be a subclass of flowprep.FlowEstimator, and it is another class"),
    ],
)
def test_modules_and_classes_that_are_not_there(write: Write, name: str, words: str) -> None:
    write("my_flow.py", GRAY_MODULE)
    assert words in refusal(name)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("import cv2", "import no_such_thing", "ModuleNotFoundError at my_flow.py:3: No module"),
        ("import cv2", "import cv2, 1", "cannot be imported: SyntaxError"),
        ("import cv2", "import cv2\n1 / 0", "cannot be imported: ZeroDivisionError at my_flow.py"),
        ('version = "1.0"', 'frames = "bgr"', "must be 'gray' or 'rgb', got 'bgr'"),
        ('version = "1.0"', 'device_kinds = ("gpu",)', "must be a tuple of cpu, cuda, mps"),
        ('version = "1.0"', 'device_kinds = ("cuda",)', "must have 'cpu', got ('cuda',)"),
        ('version = "1.0"', "parameters_class = dict", "must be a frozen dataclass, got"),
        ("def __call__", "def compute", "must define __call__, and does not"),
        (
            "    def __call__",
            "    def __init__(self):\n        raise KeyError('weights')\n\n    def __call__",
            "cannot be made: KeyError at my_flow.py:12: 'weights'",
        ),
    ],
)
def test_classes_that_are_refused(write: Write, old: str, new: str, words: str) -> None:
    write("my_flow.py", GRAY_MODULE.replace(old, new))
    assert words in refusal("my_flow:GrayFlow")


def test_a_class_computes_where_it_says(write: Write) -> None:
    write("my_flow.py", GRAY_MODULE)
    assert str(resolve_device("auto", "my_flow:GrayFlow")) == "cpu"
    assert refusal("my_flow:GrayFlow", device="cuda") == (
        "device of my_flow:GrayFlow must be cpu, got 'cuda'; the class's device_kinds say so"
    )


# ---- nothing is imported before something is computed


def test_a_spec_of_an_own_estimator_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("raise SystemExit('imported')\n")
    code = (
        "from flowprep import ExtractConfig, FlowSpec\n"
        "config = ExtractConfig(flow=FlowSpec('loud:Loud', {'a': 1}))\n"
        "values = config.to_dict()\n"
        "assert values['flow']['parameters'] == {'a': 1}\n"
        "assert ExtractConfig.from_dict(values) == config\n"
        "hash(config)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
