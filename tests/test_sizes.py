"""Files and functions stay small: no file over 500 lines but those listed, no function over 100.

Python is parsed with `ast`. JavaScript is split into tokens by Pygments, which knows strings,
template literals, regular expressions and comments; functions are what stands in braces behind a
parameter list, or behind an arrow.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from pygments.lexers.javascript import JavascriptLexer
from pygments.token import Comment, Punctuation, String, Text, Whitespace

import flowprep

PACKAGE = Path(flowprep.__file__).parent

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

UNFINISHED = {
    "learn/data.py",
    "learn/train.py",
    "learn/weights/load.py",
    "learn/weights/tensorflow.py",
    "look/compare.py",
    "run/executors.py",
    "run/extract.py",
}
"""Files that are being divided, and go from this list as they are."""


@dataclass(frozen=True)
class Function:
    """A function of a source file."""

    name: str
    """Empty where it has none."""
    line: int
    num_lines: int


def python_functions(source: str) -> list[Function]:
    """Returns the functions and methods of a Python file, those inside others too."""
    return [
        Function(node.name, node.lineno, (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


# ---- JavaScript


class _Lexer(JavascriptLexer):
    """Pygments' own ends `${...}` at the first `}` inside it."""

    tokens: ClassVar = JavascriptLexer.tokens | {
        "interp-inside": [
            (r"\{", Punctuation, ("braces", "slashstartsregex")),
            (r"\}", String.Interpol, "#pop"),
            *JavascriptLexer.tokens["root"],
        ],
        "braces": [
            (r"\{", Punctuation, ("#push", "slashstartsregex")),
            (r"\}", Punctuation, "#pop"),
            *JavascriptLexer.tokens["root"],
        ],
    }


@dataclass(frozen=True)
class _Token:
    text: str
    line: int


_OPENS = {"(": ")", "[": "]", "{": "}"}
_CONTROLS = frozenset({"if", "for", "while", "switch", "catch", "with", "await"})
"""Words before the parentheses of a statement; `for await (...)` has two."""


def _tokens(source: str) -> Iterator[_Token]:
    line = 1
    for kind, text in _Lexer(stripnl=False, ensurenl=False).get_tokens(source):
        if kind in String:
            # A literal is one word, whatever is in it; `${` and `}` stand for brackets.
            text_of = text if kind is String.Interpol else "''"
            yield _Token({"${": "{"}.get(text_of, text_of), line)
        elif kind in Punctuation:
            # Several brackets may come as one.
            marks = [text] if text in ("=>", "...") else text
            yield from (_Token(mark, line) for mark in marks)
        elif kind not in Comment and kind not in Whitespace and kind is not Text and text.strip():
            yield _Token(text, line)
        line += text.count("\n")


def javascript_functions(source: str) -> list[Function]:
    """Returns the functions, methods and arrow functions of a script; raises where it is no script.

    A function begins with its name, or with its parameters where it has none.
    """
    tokens = list(_tokens(source))
    ends: dict[int, int] = {}
    begins: dict[int, int] = {}
    opened: list[int] = []
    for place, token in enumerate(tokens):
        if token.text in _OPENS:
            opened.append(place)
        elif token.text in _OPENS.values():
            begin = opened.pop()
            assert _OPENS[tokens[begin].text] == token.text, f"line {token.line}: {token.text}"
            ends[begin], begins[place] = place, begin
    assert not opened, f"line {tokens[opened[-1]].line}: {tokens[opened[-1]].text} is not closed"
    found = []
    for place, token in enumerate(tokens):
        if token.text == "=>":
            head = begins.get(place - 1, place - 1)
            name, end = "", _arrow_end(tokens, ends, place + 1)
        elif token.text == "{" and tokens[place - 1].text == ")":
            head = begins[place - 1] - 1
            name, end = tokens[head].text, ends[place]
            if name in _CONTROLS:
                continue
        else:
            continue
        line = tokens[head].line
        found.append(Function(name, line, tokens[end].line - line + 1))
    return found


def _arrow_end(tokens: list[_Token], ends: dict[int, int], place: int) -> int:
    """Returns the last token of what stands behind an arrow: a block, or an expression."""
    if tokens[place].text == "{":
        return ends[place]
    while place < len(tokens) and tokens[place].text not in {",", ";", *_OPENS.values()}:
        place = ends.get(place, place) + 1
    return place - 1


# ---- the package


def sources(*suffixes: str) -> dict[str, str]:
    """Returns the text of each file of the package with one of the suffixes, by its path in it."""
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text()
        for suffix in suffixes
        for path in sorted(PACKAGE.rglob(f"*{suffix}"))
    }


def test_files_are_short_but_for_the_listed() -> None:
    lengths = {name: text.count("\n") for name, text in sources(".py", ".js", ".cu").items()}
    large = {name for name, length in lengths.items() if length > MAX_FILE_LINES}
    assert sorted(large - UNFINISHED) == list(LARGE)
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
        if one.num_lines > MAX_FUNCTION_LINES and name not in UNFINISHED
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
