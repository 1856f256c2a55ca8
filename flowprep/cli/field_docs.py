"""Reads the docstrings under the fields of a dataclass. They are the help of its options."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from typing import Any

__all__ = ["field_docs"]


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Returns the docstrings under a dataclass's fields. Python itself does not keep them."""
    tree = _classes_of(kind.__module__)[kind.__qualname__]
    docs: dict[str, str] = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.target.id] = str(following.value.value)
    return docs


@functools.cache
def _classes_of(module: str) -> dict[str, ast.ClassDef]:
    """Returns the classes at the top of a module, by name. Each module is read and parsed once."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
