"""Every error and note that a user can see, as the source of flowprep has them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ERRORS", "USAGE_ERRORS", "Message", "messages_of_package", "messages_of_source"]

ERRORS = frozenset(
    [
        *("ConfigError", "ConfigMismatchError", "DatasetError", "ExecutorError", "InputError"),
        *("MissingExtraError", "StorageError", "TrainingError", "VideoError", "WeightsError"),
    ]
)
USAGE_ERRORS = frozenset({"BadParameter", "UsageError"})
"""Those of click."""
WORDS_OF_CODES = ("FAILURE_REASONS", "VIDEO_NOTES")
"""The dictionaries with what each failure's reason, and each note on a video, means."""


@dataclass(frozen=True)
class Message:
    """The text of one error or note."""

    place: str
    """`flowprep/inputs/tree.py:114`"""
    kind: str
    """The class of the error, `note`, `video note` (on one video) or `words` (of a code)."""
    template: str
    """Its words, `{}` for each value."""
    words: str
    """Its words and those of the values that are chosen in the place itself."""
    is_plain_string: bool
    """Whether it is no f-string, so that braces in it would be shown."""

    @property
    def file(self) -> str:
        """The file, as in `inputs/tree.py`."""
        return self.place.partition(":")[0].removeprefix("flowprep/")


def messages_of_package(folder: Path) -> list[Message]:
    """Returns the messages of all modules below a package's folder."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder.parent).as_posix()
        found += messages_of_source(path.read_text(encoding="utf-8"), place)
    return found


def messages_of_source(source: str, place: str) -> list[Message]:
    """Returns the messages of one module, in their order."""
    found = []
    tree = ast.parse(source)
    for kind, node in _nodes(tree):
        for text in _texts(node, tree):
            template = _template(text)
            if template.strip("{} \n:;,") == "" and not _constants(text).strip():
                continue  # A text made elsewhere, where it is collected.
            is_plain = not any(isinstance(part, ast.JoinedStr) for part in ast.walk(text))
            message = Message(f"{place}:{text.lineno}", kind, template, _constants(text), is_plain)
            found.append(message)
    return sorted(set(found), key=lambda message: int(message.place.rpartition(":")[2]))


def _nodes(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yields kind and expression of each text that becomes an error or a note."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _name(node.func)
            args = node.args[1:] if name == "VideoError" else node.args
            if name in ERRORS | USAGE_ERRORS and args:
                yield name, args[0]
            elif name == "mismatch" and len(args) == 4:
                yield "ConfigMismatchError", _joined(args[0], ":\n{}\n", args[3])
            elif name == "_note" and args and not isinstance(args[0], ast.List):
                yield "note", args[0]
            elif isinstance(node.func, ast.Attribute) and "note" in _name(node.func.value):
                if name in ("append", "insert"):
                    yield "note", args[-1]
                elif name == "setdefault":
                    yield "video note", args[-1]
            for keyword in node.keywords:
                if keyword.arg == "notes":
                    yield from (("note", item) for item in _items(keyword.value))
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node.value is None:
                continue
            if any(_name(target) in WORDS_OF_CODES for target in targets):
                assert isinstance(node.value, ast.Dict)
                yield from (("words", words) for words in node.value.values)
            elif any("note" in _name(target) for target in targets):
                yield from (("note", item) for item in _items(node.value))
            elif any(isinstance(t, ast.Subscript) and "notes" in _name(t.value) for t in targets):
                yield "video note", node.value
        elif isinstance(node, ast.FunctionDef) and "note" in node.name:
            for part in ast.walk(node):
                if isinstance(part, ast.Return) and part.value is not None:
                    items = _items(part.value)
                    yield from (("note", item) for item in items or [part.value])


def _joined(first: ast.expr, between: str, last: ast.expr) -> ast.expr:
    """Returns the text that these three make one after the other."""
    begin = ast.BinOp(first, ast.Add(), ast.Constant(between))
    return ast.copy_location(ast.BinOp(begin, ast.Add(), last), first)


def _items(node: ast.expr) -> list[ast.expr]:
    """Returns the items of a list or tuple, chosen between two or not."""
    if isinstance(node, ast.IfExp):
        return _items(node.body) + _items(node.orelse)
    return node.elts if isinstance(node, (ast.List, ast.Tuple)) else []


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", "") or getattr(node, "id", "")


def _texts(node: ast.expr, tree: ast.AST) -> Iterator[ast.expr]:
    """Yields a text.

    For a variable: the texts that are assigned to its name in the module. For a call of a function
    of the module: the texts that it returns.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        for other in ast.walk(tree):
            if isinstance(other, ast.FunctionDef) and other.name == node.func.id:
                for part in ast.walk(other):
                    if isinstance(part, ast.Return) and part.value and _is_text(part.value):
                        yield part.value
    elif isinstance(node, ast.Name):
        for other in ast.walk(tree):
            if not isinstance(other, ast.Assign) or not _is_text(other.value):
                continue
            if any(_name(target) == node.id for target in other.targets):
                yield other.value
    elif _is_text(node):
        yield node


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and (_is_text(node.left) or _is_text(node.right))
    # [f"...", *lines, "..."], which are the lines of an error
    is_list = isinstance(node, ast.List)
    return isinstance(node, ast.JoinedStr) or (is_list and bool(_constants(node).strip()))


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left) + _template(node.right)
    if isinstance(node, ast.List):
        return "\n".join(map(_template, node.elts))
    # *f"...".splitlines()
    if isinstance(node, ast.Starred) and isinstance(node.value, ast.Call):
        return _template(getattr(node.value.func, "value", node.value))
    return "{}"


def _constants(node: ast.AST) -> str:
    texts = []
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            texts.append(_template(part))
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            texts.append(part.value)
    return "\n".join(texts)
