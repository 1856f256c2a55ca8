"""The disk cache of compiled kernels: it is used, it is private, and it never stands in the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.flow import kernel as kernel_module
from flowprep.flow.cache import CACHE_VARIABLE

# A small kernel that calls a block, as the package's own do; it says where its code came from.
KERNEL = """
    import json
    import sys
    import numpy as np
    from flowprep.flow.kernel import cache_folder, inline, kernel

    @inline
    def half(x):
        return x * np.float32(0.5)

    @kernel
    def add_halves(values):
        total = np.float32(0)
        for value in values:
            total += half(value)
        return total

    if __name__ == "__main__":
        folder = cache_folder()
        result = float(add_halves(np.arange(7, dtype=np.float32)))
        print(json.dumps({
            "folder": None if folder is None else str(folder),
            "result": result,
            "num_loaded": sum(add_halves.stats.cache_hits.values()),
            "can_compile": "numba.np.linalg" in sys.modules,
        }))
"""
RIGHT = 10.5
"""What `add_halves` gives for 0 to 6."""


def start(folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Starts the small kernel in a process of its own."""
    script = folder / "small_kernel.py"
    if not script.exists():
        script.write_text(textwrap.dedent(KERNEL))
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        [sys.executable, script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    found: dict[str, Any] = json.loads(output)
    assert found["result"] == RIGHT
    return found


def run(folder: Path, **variables: str) -> dict[str, Any]:
    return finish(start(folder, **variables))


def test_the_second_process_loads_what_the_first_compiled(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = run(tmp_path, FLOWPREP_CACHE_DIR=str(cache))
    assert Path(first["folder"]).parent == cache
    assert first["num_loaded"] == 0
    files = {path.name: path.read_bytes() for path in Path(first["folder"]).iterdir()}
    assert {Path(name).suffix for name in files} == {".nbi", ".nbc"}
    second = run(tmp_path, FLOWPREP_CACHE_DIR=str(cache))
    assert second["folder"] == first["folder"]
    assert second["num_loaded"] == 1
    # What numba needs to compile, and imports for .4 s, it did without.
    assert first["can_compile"]
    assert not second["can_compile"]
    # It compiled and wrote nothing.
    assert {path.name: path.read_bytes() for path in Path(first["folder"]).iterdir()} == files


def test_a_changed_block_beside_the_kernel_is_compiled_into_it(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    block = textwrap.dedent("""
        import numpy as np
        from flowprep.flow.kernel import inline

        @inline
        def half(x):
            return x * np.float32({factor})
    """)
    own = "    @inline\n    def half(x):\n        return x * np.float32(0.5)\n"
    assert own in KERNEL
    kernel = KERNEL.replace(own, "    from small_block import half\n")
    (tmp_path / "small_kernel.py").write_text(textwrap.dedent(kernel))
    for factor, loaded in ((0.25, 0), (0.25, 1), (0.5, 0), (0.5, 1)):
        (tmp_path / "small_block.py").write_text(block.format(factor=factor))
        output, _ = start(tmp_path, FLOWPREP_CACHE_DIR=cache).communicate()
        found = json.loads(output)
        assert (found["result"], found["num_loaded"]) == (2 * RIGHT * factor, loaded)


def test_processes_that_begin_together_all_get_the_right_result(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    processes = [start(tmp_path, FLOWPREP_CACHE_DIR=cache) for _ in range(4)]
    for process in processes:
        finish(process)
    assert run(tmp_path, FLOWPREP_CACHE_DIR=cache)["num_loaded"] == 1


def test_where_nothing_can_be_kept_kernels_run_all_the_same(tmp_path: Path) -> None:
    # Below a file there is no folder, for root neither.
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file" / "cache")
    found = run(tmp_path, HOME=str(tmp_path / "home"), FLOWPREP_CACHE_DIR=nowhere)
    assert (found["folder"], found["num_loaded"]) == (None, 0)
    # What the variable names is not replaced by another folder.
    assert not (tmp_path / "home").exists()


# ---- damaged files


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


def emptied(data: bytes) -> bytes:
    return b""


def scrambled(data: bytes) -> bytes:
    return bytes(byte ^ 0x5A for byte in data)


def scrambled_at_the_end(data: bytes) -> bytes:
    return data[:-200] + scrambled(data[-200:])


def add_halves(values: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for value in values:
        total += np.float32(0.5) * value
    return total


def num_loaded() -> int:
    """Runs a kernel as a new process would; 1 where its code came from the cache."""
    compiled = kernel_module.kernel(add_halves)
    assert compiled(np.arange(7, dtype=np.float32)) == RIGHT
    return sum(compiled.stats.cache_hits.values())


@pytest.mark.parametrize("damage", [cut_short, emptied, scrambled, scrambled_at_the_end])
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_damaged_file_is_compiled_anew(
    tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_module, "cache_folder", lambda: tmp_path)
    assert [num_loaded(), num_loaded()] == [0, 1]
    (path,) = tmp_path.glob(f"*{suffix}")
    path.write_bytes(damage(path.read_bytes()))
    # The damage is repaired by the first of them.
    assert [num_loaded(), num_loaded()] == [0, 1]


def test_a_folder_that_vanishes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setattr(kernel_module, "cache_folder", lambda: folder)
    folder.mkdir()
    assert num_loaded() == 0
    shutil.rmtree(folder)
    assert [num_loaded(), num_loaded()] == [0, 1]


def test_a_disk_that_fails_does_not_stop_a_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kernel_module, "cache_folder", lambda: tmp_path / "file" / "cache")
    assert [num_loaded(), num_loaded()] == [0, 0]


# ---- where it lies


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose home and temporary folder lie in the folder that is returned."""
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "file").write_text("")
    return tmp_path


def found_folder() -> Path | None:
    """What `cache_folder` returns in a new process."""
    folder: Path | None = kernel_module.cache_folder.__wrapped__()
    assert folder is None or (folder.is_dir() and folder.name == name_now())
    return folder


def found_base() -> Path:
    folder = found_folder()
    assert folder is not None
    return folder.parent


def test_the_variable_comes_before_xdg_cache_home_and_that_before_home(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found_base() == user / "home" / ".cache" / "flowprep"
    monkeypatch.setenv("XDG_CACHE_HOME", str(user / "xdg"))
    assert found_base() == user / "xdg" / "flowprep"
    monkeypatch.setenv(CACHE_VARIABLE, str(user / "given"))
    assert found_base() == user / "given"
    monkeypatch.setenv(CACHE_VARIABLE, "")
    assert found_base() == user / "xdg" / "flowprep"


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_a_home_that_cannot_be_written_gives_way_to_the_temporary_folder(
    user: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(user / "file"))
    base = found_base()
    assert base == user / "tmp" / f"flowprep-{os.geteuid()}"
    assert base.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_may_write_to_is_not_trusted(
    user: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_base().chmod(mode)
    temporary = found_base()
    assert temporary.parent == user / "tmp"
    temporary.chmod(mode)
    assert found_folder() is None
    # Who names such a folder trusts it.
    monkeypatch.setenv(CACHE_VARIABLE, str(temporary))
    assert found_base() == temporary


def test_a_link_in_the_temporary_folder_is_not_followed(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(user / "file"))
    (user / "elsewhere").mkdir(mode=0o700)
    (user / "tmp" / f"flowprep-{os.geteuid()}").symlink_to(user / "elsewhere")
    assert found_folder() is None


def test_a_folder_of_another_user_is_not_trusted(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(user / "file"))
    base = found_base()
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    base.rename(user / "tmp" / f"flowprep-{another}")
    assert found_folder() is None


# ---- its name


def name_now() -> str:
    return kernel_module._fingerprint()


def test_the_name_holds_the_processor_its_features_and_the_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {name_now()}
    for owner, attribute, value in (
        (kernel_module.numba.config, "CPU_NAME", "x86-64-v2"),
        (kernel_module.numba.config, "CPU_FEATURES", "+sse2"),
        (kernel_module.numba, "__version__", "0.0.1"),
        (kernel_module.llvmlite, "__version__", "0.0.1"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, value)
            names.add(name_now())
            assert attribute != "CPU_NAME" or "x86-64-v2" in name_now()
    assert len(names) == 5
    assert name_now() in names


def test_the_name_changes_with_every_source_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in Path(kernel_module.__file__).parent.glob("*.py"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.setattr(kernel_module, "__file__", str(tmp_path / "kernel.py"))
    names = [name_now()]
    for name in ("simd.py", "tvl1_level.py"):
        with (tmp_path / name).open("a") as file:
            file.write("\n# changed\n")
        names.append(name_now())
    assert len(set(names)) == 3
    (tmp_path / "notes.txt").write_text("changed")
    assert name_now() == names[-1]


def test_the_kernels_of_the_package_lie_in_the_cache() -> None:
    from flowprep.flow import create_estimator
    from flowprep.flow.tvl1_level import iterate
    from tests.flow.test_tvl1 import frames, moving

    create_estimator("tvl1")(*frames(moving(32, 32)))
    folder = kernel_module.cache_folder()
    assert folder is not None
    assert any(path.name.startswith(f"tvl1_level.{iterate.__name__}-") for path in folder.iterdir())
