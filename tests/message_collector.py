"""Every error and note that a user can see, as the source of flowprep has them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ERRORS", "Message", "messages_of_package", "messages_of_source"]

ERRORS = frozenset(
    [
        *("ConfigError", "ConfigMismatchError", "DatasetError", "ExecutorError", "InputError"),
        *("StorageError", "TrainingError", "VideoError", "WeightsError"),
    ]
)


@dataclass(frozen=True)
class Message:
    """The text of one error or note."""

    place: str
    """`flowprep/video/tree.py:114`"""
    kind: str
    """The class of the error, or `note`."""
    template: str
    """Its words, `{}` for each value."""
    words: str
    """Its words and those of the values that are chosen in the place itself."""
    is_plain_string: bool
    """Whether it is no f-string, so that braces in it would be shown."""

    @property
    def file(self) -> str:
        """The file, as in `video/tree.py`."""
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
            if name in ERRORS and (args := node.args[1:] if name == "VideoError" else node.args):
                yield name, args[0]
            elif (
                isinstance(node.func, ast.Attribute)
                and name in ("append", "insert")
                and "note" in _name(node.func.value)
            ):
                yield "note", node.args[-1]
            for keyword in node.keywords:
                if keyword.arg == "notes" and isinstance(keyword.value, ast.List):
                    yield from (("note", item) for item in keyword.value.elts)
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(node.value, ast.List) and any("notes" in _name(t) for t in targets):
                yield from (("note", item) for item in node.value.elts)


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", "") or getattr(node, "id", "")


def _texts(node: ast.expr, tree: ast.AST) -> Iterator[ast.expr]:
    """Yields a text; for a variable the texts that are assigned to its name in the module."""
    if isinstance(node, ast.Name):
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
    # "\n".join([f"...", *lines, "..."])
    is_join = isinstance(node, ast.Call) and _name(node.func) == "join"
    return isinstance(node, ast.JoinedStr) or (is_join and bool(_constants(node).strip()))


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left) + _template(node.right)
    if isinstance(node, ast.Call) and _name(node.func) == "join":
        (items,) = node.args
        if isinstance(items, ast.List):
            return "\n".join(map(_template, items.elts))
    return "{}"


def _constants(node: ast.AST) -> str:
    texts = []
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            texts.append(_template(part))
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            texts.append(part.value)
    return "\n".join(texts)
