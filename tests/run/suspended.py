"""Drivers that stop themselves at an exact place, where SIGSTOP or a lost network may stop any.

    python -m tests.run.suspended '{"cases": [...], ...}'

One process for each case, forked from this one; each prints nothing, and leaves what it said in a
file beside its data set.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions, storage
from flowprep.config import Resize
from flowprep.dataset import lease
from flowprep.errors import FlowprepError
from flowprep.run import run_job
from flowprep.storage_conditions import Conditions

CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize.parse("none")),
    FlowSpec("farneback"),
    EncodeSpec(videos_per_shard=2),
)
OPTIONS = RunOptions(progress=False, segment_frames=5)


def main() -> None:
    """Forks a driver for each case, prints their numbers, and waits for them."""
    given = json.loads(sys.argv[1])
    for case in given["cases"]:
        process = os.fork()
        if process == 0:
            _drive(given["videos"], given["constants"], case)
        print(process, flush=True)
    for _ in given["cases"]:
        os.wait()


def _drive(videos: str, constants: dict[str, float], case: dict[str, Any]) -> NoReturn:
    for name, value in constants.items():
        setattr(lease, name, value)
    # Another machine, on a shared file system without locks.
    lease._machine = lambda: "another machine"

    def no_lock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = no_lock  # type: ignore[assignment]
    _fail_with("b")
    place = _Place(case["name"], case["number"])
    if case["is_removed"]:
        _stop_at_removal(place, case["when"])
    else:
        _stop_at_writing(place, case["when"])
    said: dict[str, object] = {}
    try:
        report = flowprep.extract(videos, case["out"], CONFIG, executor="inline", options=OPTIONS)
        said = {"exit_code": report.exit_code, "text": report.summary()}
    except FlowprepError as error:
        said = {"exit_code": error.exit_code, "text": str(error)}
    except BaseException as error:
        said = {"exit_code": -1, "text": repr(error)}
    Path(f"{case['said']}.new").write_text(json.dumps(said))
    os.rename(f"{case['said']}.new", case["said"])
    os._exit(0)


def _fail_with(key: str) -> None:
    """Has one video fail as its successor's does not, so that what is left of it would show."""
    extract = run_job.extract_video

    def failing(video: Any, *args: Any, **options: Any) -> Any:
        if video.key == key:
            raise RuntimeError("only here")
        return extract(video, *args, **options)

    run_job.extract_video = failing  # type: ignore[attr-defined]


class _Place:
    """Stops this process, once, at the `number`th file whose name ends as `pattern` says."""

    def __init__(self, pattern: str, number: int) -> None:
        self._pattern = pattern
        self._number = number

    def __call__(self, path: object) -> None:
        if re.search(f"/{self._pattern}$", str(path)):
            self._number -= 1
            if self._number == 0:
                os.kill(os.getpid(), signal.SIGSTOP)


def _stop_at_writing(place: _Place, when: str) -> None:
    if when == "before the check":
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            sync(descriptor)
            place(os.readlink(f"/proc/self/fd/{descriptor}").partition(".tmp-")[0])

        os.fsync = fsync  # type: ignore[assignment]
        _before(storage.Storage, "_publish", lambda own, path, *_: place(path))
        return
    _before(os, "replace", lambda source, path: place(path))
    _before(Conditions, "write", lambda own, fs, path, *_: place(path))


def _stop_at_removal(place: _Place, when: str) -> None:
    if when == "before the check":
        for name in ("remove", "remove_empty_folder"):
            _before(storage.Storage, name, lambda own, path: place(f"/{path}"))
        return
    for module, name in ((shutil, "rmtree"), (os, "rmdir"), (os, "unlink")):
        _before(module, name, lambda path, *_, **__: place(path))
    import s3fs

    _before(s3fs.S3FileSystem, "rm", lambda own, path, **_: place(f"/{path}"))


def _before(owner: Any, name: str, look: Callable[..., None]) -> None:
    real = getattr(owner, name)

    def looked(*args: Any, **options: Any) -> Any:
        look(*args)
        return real(*args, **options)

    setattr(owner, name, looked)


if __name__ == "__main__":
    main()
