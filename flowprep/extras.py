"""Optional packages: the extras of setup.cfg, and the error if a part of flowprep needs one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from flowprep.errors import MissingExtraError

__all__ = ["EXTRA_MODULES", "ExtraName", "extra_needed", "install_command", "missing_extra"]

ExtraName = Literal["gpu", "raft", "train", "report", "export", "browse", "s3", "gcs"]

EXTRA_MODULES: dict[ExtraName, frozenset[str]] = {
    "gpu": frozenset(["torch"]),
    "raft": frozenset(["torch", "torchvision"]),
    "train": frozenset(
        ["google_crc32c", "matplotlib", "safetensors", "scipy", "sklearn", "tensorboard", "torch"]
    ),
    "report": frozenset(["matplotlib"]),
    "export": frozenset(["h5py"]),
    "browse": frozenset(["anyio", "h11", "starlette", "uvicorn"]),
    "s3": frozenset(["s3fs"]),
    "gcs": frozenset(["gcsfs"]),
}
"""The modules that each extra installs, by import name. Ray itself is always installed."""


def install_command(extra: str) -> str:
    """Returns the command that installs an extra, in backquotes."""
    return f"`pip install 'flowprep[{extra}]'`"


def missing_extra(what: str, needs: str, extra: str, *, otherwise: str = "") -> str:
    """Returns a message: `what` needs a part of an extra that is missing, and how to install it.

    `otherwise` is what the user can do instead, if anything, as an imperative.
    """
    end = f", or {otherwise}" if otherwise else ""
    return f"{what} needs {needs}, which cannot be imported; run {install_command(extra)}{end}"


@contextmanager
def extra_needed(what: str, extra: ExtraName, *, otherwise: str = "") -> Iterator[None]:
    """Raises MissingExtraError if an import in the block fails because an extra is missing.

    If an import fails for another reason, its own error is raised.
    """
    try:
        yield
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRA_MODULES[extra]:
            raise
        raise MissingExtraError(missing_extra(what, module, extra, otherwise=otherwise)) from error
