"""Files and functions stay small: no file over 500 lines but those listed, no function over 100."""

from __future__ import annotations

import pytest

from tests.source_code import Function, javascript_functions, python_functions, sources

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 100

LARGE = (
    "flow/farneback_level.py",
    "flow/simd.py",
    "flow/tvl1.cu",
    "flow/tvl1_cuda.py",
    "flow/tvl1_level.py",
    "synthetic.py",
)
"""Kernels, what runs them on CUDA, and synthetic videos: each is one subject, and is long."""


def test_files_are_short_but_for_the_listed() -> None:
    lengths = {name: text.count("\n") for name, text in sources(".py", ".js", ".cu").items()}
    large = {name for name, length in lengths.items() if length > MAX_FILE_LINES}
    assert sorted(large) == list(LARGE)
    assert len(LARGE) <= 8


@pytest.mark.parametrize(
    ("suffix", "functions_of"), [(".py", python_functions), (".js", javascript_functions)]
)
def test_functions_are_short(suffix: str, functions_of) -> None:  # type: ignore[no-untyped-def]
    files = sources(suffix)
    found = {name: functions_of(text) for name, text in files.items()}
    assert sum(map(len, found.values())) > 100
    assert [
        f"{name}:{one.line} {one.name} has {one.num_lines} lines"
        for name, several in found.items()
        for one in several
        if one.num_lines > MAX_FUNCTION_LINES
    ] == []


# ---- the measure itself


def test_python_functions_are_measured_with_those_inside() -> None:
    source = "class A:\n    @cached\n    def a(\n        self\n    ):\n        async def b(): ...\n"
    assert python_functions(source) == [Function("a", 3, 4), Function("b", 6, 1)]


@pytest.mark.parametrize(
    ("source", "functions"),
    [
        ("function f(a, b = {}) {\n  return a;\n}\n", [("f", 1, 3)]),
        ("const f = async (a) =>\n  a;\nlet g = b => {\n};\n", [("", 1, 2), ("", 3, 2)]),
        ("const f = (a) => [\n  a,\n  (b) => (\n    b\n  ),\n];\n", [("", 1, 6), ("", 3, 3)]),
        ("class A {\n  #a = 1;\n  static b() {\n  }\n  get c() { return /}\\/{/; }\n}\n",
         [("b", 3, 2), ("c", 5, 1)]),
        ("if (a) {\n} else if (b) {\n}\nfor (const c of d) {\n}\nwhile (e) {\n}\n", []),
        ("try {\n} catch (error) {\n}\nswitch (a) {\n}\nfor await (const b of c) {\n}\n", []),
        # What looks like a bracket and is none.
        ("// {\n/* {\n( */ const a = '{', b = \"\\\"(\", c = a / b / `}`;\nfunction f() {\n}\n",
         [("f", 4, 2)]),
        ("const a = `\n${b.map((c) => { return `${{ c }.c}`; })}\n{(`;\nfunction f() {\n}\n",
         [("", 2, 1), ("f", 4, 2)]),
        ("const a = b ? /[/{]/ : c(/\\(/g), d = { e() {\n  }, f: function () {\n  } };\n",
         [("e", 1, 2), ("function", 2, 2)]),
    ],
)  # fmt: skip
def test_javascript_functions_are_found(source: str, functions: list[tuple[str, int, int]]) -> None:
    assert javascript_functions(source) == [Function(*one) for one in functions]


@pytest.mark.parametrize("source", ["function f() {\n", "f(]\n", "}\n"])
def test_what_is_no_script_is_not_measured(source: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        javascript_functions(source)
