"""Lists in JSON."""

from __future__ import annotations

import json
from typing import Any

from flowprep.errors import InputError
from flowprep.inputs.text_files import read_text

__all__ = ["read_json"]


def read_json(path: str) -> Any:
    """Returns the content of a JSON file. Raises InputError if the file is not valid JSON."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not JSON: {error}; save the list again, or name another list"
        ) from error
