"""The check of a GPU, on the portable version: what it runs, writes and survives."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flowprep.flow.devices import CudaState
from flowprep.flow.trust import LIMIT_SECONDS
from tests.torch_devices import needs_cuda, one_thread  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    """Returns scripts/checks/gpu.py, which is in no package."""
    path = ROOT / "scripts/checks/gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


gpu_check = load()


def check(code: str, limit_seconds: float = 60, **values: Any) -> Any:
    return gpu_check.Check("a check", (sys.executable, "-c", code), limit_seconds, **values)


def report_of(path: Path, checks: dict[str, Any], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = gpu_check.main(["--device", "torch-cpu", "--json", str(path), *arguments], checks)
    return code, json.loads(path.read_text())


def test_the_portable_version_passes_what_needs_no_card(tmp_path: Path) -> None:
    # Those that start PyTorch once more are called below.
    names = [name for name, one in gpu_check.CHECKS.items() if one.needs_gpu]
    names += ["machine", "share", "videos"]
    code, report = report_of(tmp_path / "new" / "gpu.json", gpu_check.CHECKS, *names)
    checks = report["checks"]
    assert list(checks) == [name for name in gpu_check.CHECKS if name in names]
    assert (code, report["failed"]) == (0, []), checks
    for name, one in checks.items():
        if gpu_check.CHECKS[name].needs_gpu:
            assert (one["result"], one["reason"]) == ("skipped", "it needs a GPU")
        else:
            assert one["result"] == "passed"
    assert checks["machine"]["numbers"]["cores"] >= 1
    assert checks["share"]["numbers"] == {"processes": 2}
    videos = checks["videos"]["numbers"]
    assert {count: one["pairs"] for count, one in videos.items()} == {"1": 3, "2": 6}
    for one in videos.values():
        assert one["pairs_per_second"] > 0
        assert one["seconds_of_processes"].keys() == {"decode", "flow", "encode"}
    assert report["seconds"] > 0
    assert report["flowprep"]


def test_the_portable_version_is_right_and_measured() -> None:
    def numbers(name: str) -> dict[str, Any]:
        found: dict[str, Any] = gpu_check.OWN[name]("torch-cpu")
        return found

    # Right computations on the same processor, by two programs.
    differences_px = numbers("trial")["differences_px"]
    assert len(differences_px) == 4
    assert max(differences_px.values()) < 0.002
    assert 0 < numbers("pair")["apart_px"] < 0.001
    assert numbers("estimator") == {"class": "TVL1Torch"}
    assert numbers("repeat")["runs"] == 3
    rates = numbers("speed")["48x48"]
    assert rates.keys() == {f"{way}_pairs_per_second" for way in ("native", "pytorch", "levels")}
    assert min(rates.values()) > 0


def test_a_check_that_fails_hangs_or_has_no_program_stops_no_other(tmp_path: Path) -> None:
    checks = {
        "wrong": check("import sys; print('{\"px\": 3}'); sys.exit('3 px apart')"),
        # Its child holds the output, and must end too.
        "hangs": check(
            "import subprocess, sys; "
            "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])",
            1,
        ),
        "missing": check("", program="not-a-program"),
        "card": check("", needs_gpu=True),
        "right": check("print('said'); print('{\"px\": 0}')"),
    }
    code, report = report_of(tmp_path / "gpu.json", checks)
    found = report["checks"]
    assert code == 1
    assert report["failed"] == ["wrong", "hangs"]
    assert (found["wrong"]["reason"], found["wrong"]["numbers"]) == ("3 px apart", {"px": 3})
    assert found["hangs"]["reason"] == "no end within 1 s"
    assert found["missing"]["reason"] == "not-a-program is not installed"
    assert found["card"]["reason"] == "it needs a GPU"
    assert (found["right"]["result"], found["right"]["numbers"]) == ("passed", {"px": 0})


def test_what_the_time_does_not_allow_is_skipped(tmp_path: Path) -> None:
    checks = {"late": check("")}
    code, report = report_of(tmp_path / "gpu.json", checks, "--minutes", "0.05")
    assert code == 0
    assert report["checks"]["late"]["reason"] == "no time is left"


def test_an_own_check_that_finds_a_fault_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(device: str) -> dict[str, Any]:
        raise gpu_check.CheckFailedError(f"{device} is wrong")

    gpu_check.OWN["wrong"] = wrong
    try:
        assert gpu_check._run_own("wrong", "cuda") == 1
    finally:
        del gpu_check.OWN["wrong"]
    assert capsys.readouterr().err == "cuda is wrong\n"


def test_without_a_gpu_it_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "cuda_state", lambda: CudaState(None))
    assert gpu_check.main(["--json", str(tmp_path / "gpu.json")]) == 2
    assert "no GPU can be used: NVIDIA's driver is not found" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


def test_every_own_check_is_run_and_the_trial_has_its_time() -> None:
    commands = [one.command for one in gpu_check.CHECKS.values()]
    assert {one[one.index("--run") + 1] for one in commands if "--run" in one} == set(gpu_check.OWN)
    assert gpu_check.CHECKS["estimator"].limit_seconds > LIMIT_SECONDS


def test_the_tests_that_need_a_gpu_are_found() -> None:
    command = [*gpu_check.CHECKS["tests"].command, "--collect-only"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    for name in (
        "test_tvl1_cuda.py::test_a_warp_on_a_gpu_is_that_of_the_reference",
        "test_trust.py::test_the_kernel_is_trusted_on_this_gpu",
        "test_tvl1_torch.py::test_a_batch_on_a_gpu_is_a_large_one",
        "test_quantize_torch.py::test_fields_have_the_levels_and_counts_of_the_host",
    ):
        assert name in done.stdout
    assert "[cuda" in done.stdout
    assert "[cpu" not in done.stdout


@needs_cuda
def test_the_kernel_passes_its_trial_on_this_gpu(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    assert gpu_check.main(["--json", str(path), "trial", "pair", "blocks"]) == 0
