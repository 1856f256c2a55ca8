"""The package's source as its tests of house-keeping read it: files, functions, lines of tokens.

Python is parsed with `ast`. JavaScript is split into tokens by Pygments, which knows strings,
template literals, regular expressions and comments; functions are what stands in braces behind a
parameter list, or behind an arrow.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pygments.lexers.javascript import JavascriptLexer
from pygments.token import Comment, Punctuation, String, Text, Whitespace

import flowprep

PACKAGE = Path(flowprep.__file__).parent


def sources(*suffixes: str) -> dict[str, str]:
    """Returns the text of each file of the package with one of the suffixes, by its path in it."""
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text()
        for suffix in suffixes
        for path in sorted(PACKAGE.rglob(f"*{suffix}"))
    }


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


# ---- lines


def python_lines(source: str) -> list[tuple[int, str]]:
    """Returns number and tokens of the lines that do something.

    Imports, signatures, docstrings, comments and lone brackets do not count.
    """
    passed: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            passed.update(range(node.lineno, (node.end_lineno or 0) + 1))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            passed.update(range(node.lineno, node.body[0].lineno))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed.update(range(node.lineno, (node.end_lineno or 0) + 1))
    lines: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            lines[token.start[0]] = lines.get(token.start[0], "") + f" {token.string}"
    return [
        (number, text)
        for number, text in sorted(lines.items())
        if number not in passed and any(map(str.isalnum, text))
    ]


def javascript_lines(source: str) -> list[tuple[int, str]]:
    """Returns number and tokens of the lines that do something; literals count by their place."""
    lines: dict[int, str] = {}
    for token in _tokens(source):
        lines[token.line] = lines.get(token.line, "") + f" {token.text}"
    return [
        (number, text)
        for number, text in sorted(lines.items())
        if any(map(str.isalnum, text)) and not text.startswith((" import", " export {"))
    ]
