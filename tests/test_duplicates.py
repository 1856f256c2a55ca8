"""Nothing is written twice: no ten lines in a row stand in two places, to the letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.source_code import javascript_lines, python_lines, sources

NUM_LINES = 10

UNROLLED = ("flow/median.py",)
"""Kernels whose networks of comparisons are written out, as they compile faster than loops."""


def duplicates(files: Mapping[str, Sequence[tuple[int, str]]]) -> list[str]:
    """Returns where the first of `NUM_LINES` lines stand again, of files' numbers and lines."""
    first: dict[tuple[str, ...], tuple[str, int]] = {}
    found = []
    last = ("", "", 0, 0)
    for name, lines in files.items():
        for place in range(len(lines) - NUM_LINES + 1):
            window = tuple(text for _, text in lines[place : place + NUM_LINES])
            other, at = first.setdefault(window, (name, place))
            if (other, at) == (name, place):
                continue
            # A longer run is one.
            if last != (name, other, place - 1, at - 1):
                found.append(f"{name}:{lines[place][0]} ~ {other}:{files[other][at][0]}")
            last = (name, other, place, at)
    return found


def test_no_ten_lines_stand_twice() -> None:
    files = {name: python_lines(text) for name, text in sources(".py").items()}
    files |= {name: javascript_lines(text) for name, text in sources(".js").items()}
    assert duplicates({name: files[name] for name in files if name not in UNROLLED}) == []
    assert {pair.partition(":")[0] for pair in duplicates(files)} == set(UNROLLED)


def test_a_run_is_found_wherever_its_comments_and_blanks_are() -> None:
    body = [f"    x = f({number})\n" for number in range(12)]
    one = "import a\ndef f(x):\n" + "".join(body)
    other = "def g(\n    y\n):\n    # another\n" + "\n".join(body) + "    y = 1\n"
    files = {"one.py": python_lines(one), "other.py": python_lines(other)}
    assert duplicates(files) == ["other.py:5 ~ one.py:3"]
    files["other.py"] = python_lines(other.replace("f(4)", "f(5)"))
    assert duplicates(files) == []
    script = "".join(f"f({number}, '{{'); // {number}\n" for number in range(10))
    scripts = {"a.js": javascript_lines(script), "b.js": javascript_lines(f"let a;\n{script}")}
    assert duplicates(scripts) == ["b.js:2 ~ a.js:1"]
