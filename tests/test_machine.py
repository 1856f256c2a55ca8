"""What this machine has and what of it is in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowprep import machine


def test_memory_in_use_is_a_share() -> None:
    assert 0 <= machine.memory_in_use() < 1.5


@pytest.mark.parametrize(
    ("files", "share"),
    [
        # version 2: a file that can be read again is not held
        ({"memory.current": "9000", "memory.max": "1000", "memory.stat": "anon 5"}, 9.0),
        (
            {"memory.current": "9000", "memory.max": "1000", "memory.stat": "inactive_file 4000"},
            5.0,
        ),
        # version 1
        (
            {
                "memory.usage_in_bytes": "7000",
                "memory.limit_in_bytes": "1000",
                "memory.stat": "cache 1\ntotal_inactive_file 1000",
            },
            6.0,
        ),
    ],
)
def test_a_containers_limit_counts(
    files: dict[str, str], share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
    monkeypatch.setattr(machine, "_cgroup_folders", lambda _: [tmp_path])
    assert machine.memory_in_use() == share


def test_a_container_without_a_limit_has_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.current").write_text("9000\n")
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(machine, "_cgroup_folders", lambda _: [tmp_path])
    assert machine.memory_in_use() <= 1


def test_pytorch_uses_one_thread_only_within_the_block() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with machine.one_torch_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
