"""Weights by their SHA-256: the driver of a run keeps them, its workers read them.

    keep(content) -> "sha256:..."      in this process, and in the cache folder for later commands
    hold("sha256:...", content)        in a worker to which the driver has sent them
    read("sha256:...") -> content

The cache folder is that of the compiled kernels. What is read from it is checked by its content.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from flowprep.errors import StorageError, WeightsError

__all__ = ["hold", "is_held", "is_weights_id", "keep", "read"]

log = logging.getLogger("flowprep.run")

_ID = re.compile(r"sha256:[0-9a-f]{64}")

_held: dict[str, bytes] = {}
"""The weights that this process has, by ID."""


def is_weights_id(text: str) -> bool:
    """Whether a text is `sha256:` and 64 hexadecimal digits."""
    return _ID.fullmatch(text) is not None


def keep(content: bytes) -> str:
    """Keeps weights for this process and for later ones of this machine; returns their ID.

    Without a cache folder that can be written to, only this process has them, and its workers.
    """
    weights_id = _id_of(content)
    _held[weights_id] = content
    file = _cached_file(weights_id)
    if file is not None and _read_cached(file) != content:
        # Late, because fsspec is slow to import.
        from flowprep.storage import Storage

        try:
            with Storage(file.parent).atomic_file(file.name) as stream:
                stream.write(content)
        except StorageError as error:
            log.info("%s is not kept for later: %s", weights_id, error)
    return weights_id


def is_held(weights_id: str) -> bool:
    """Whether this process has the weights already."""
    return weights_id in _held


def hold(weights_id: str, content: bytes) -> None:
    """Takes weights that this process was sent. Raises WeightsError if they are not those."""
    if _id_of(content) != weights_id:
        raise WeightsError(
            f"the weights that came from the driver must be {weights_id}, got {_id_of(content)}; "
            "run the same command again"
        )
    _held[weights_id] = content


def read(weights_id: str) -> bytes:
    """Returns weights that were kept. Raises WeightsError if this machine does not have them."""
    if weights_id not in _held:
        file = _cached_file(weights_id)
        content = None if file is None else _read_cached(file)
        if content is None or _id_of(content) != weights_id:
            raise WeightsError(
                f"the weights {weights_id} are not on this machine; name their file, or "
                "torchvision's name of them, by --raft-weights"
            )
        _held[weights_id] = content
    return _held[weights_id]


def _id_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _cached_file(weights_id: str) -> Path | None:
    from flowprep.flow.kernel import cache_folder

    folder = cache_folder()
    return None if folder is None else folder.parent / "weights" / weights_id.partition(":")[2]


def _read_cached(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
