"""`flowprep doctor`: it says what is there, what is missing, and never falls over."""

from __future__ import annotations

import builtins
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from flowprep import doctor
from flowprep.doctor import Fact, Section, exit_code, verdict
from flowprep.flow import devices, trust
from flowprep.flow.parameters import PARAMETERS
from tests.cli.conftest import Command


@pytest.fixture
def _few_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves those that take a second or two a pair out."""
    few = {name: kind for name, kind in PARAMETERS.items() if not name.endswith("-opencv")}
    monkeypatch.setattr("flowprep.flow.parameters.PARAMETERS", few)
    monkeypatch.setattr(doctor, "NUM_WARM_SECONDS", 0.0)
    # Torch on the CPU takes longest of all.
    known = doctor._is_installed
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name != "torch" and known(name))


def section(name: str) -> Section:
    """One section, as `examine` makes it."""
    probe = getattr(doctor, name)
    return Section(name, tuple(doctor._guarded(name, probe)))


def find(found: Section, name: str) -> Fact:
    return next(one for one in found.facts if one.name == name)


@pytest.mark.usefixtures("_few_backends")
def test_this_machine_works(flowprep: Command) -> None:
    result = flowprep("doctor")
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[-1] == "extraction works on this machine"
    assert max(map(len, lines)) <= 80
    assert "BROKEN" not in result.stdout
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[:-1] == [
        "Versions",
        "Machine",
        "GPUs",
        "Decoders",
        "Extraction",
        "Folders",
        "Extras",
        "Frame pairs at 340x256, forward and backward",
    ]


@pytest.mark.usefixtures("_few_backends")
def test_json_says_the_same(flowprep: Command) -> None:
    result = flowprep("doctor", "--json")
    assert (result.code, result.stderr) == (0, "")
    values = json.loads(result.stdout)
    assert values["works"] is True
    sections = {one["title"]: one["findings"] for one in values["sections"]}
    versions = {one["name"]: one.get("version") for one in sections["Versions"]}
    assert versions["numpy"] == np.__version__
    backends = sections["Frame pairs at 340x256, forward and backward"]
    rates = {one["name"]: one["pairs_per_second"] for one in backends if one["device"] == "cpu"}
    assert rates.keys() == {"tvl1", "farneback", "brox", "dis"}
    assert min(rates.values()) > 0


def test_a_package_that_cannot_be_imported_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.import_module

    def broken(name: str, package: str | None = None) -> Any:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", broken)
    found = section("_versions")
    fact = find(found, "OpenCV")
    assert fact.status == "broken"
    assert fact.text == (
        "cannot be imported (ImportError: libGL.so.1: cannot open shared object file); install it "
        "again with `pip install --force-reinstall opencv-contrib-python-headless`"
    )
    assert exit_code([found]) == 1
    assert verdict([found]) == "EXTRACTION DOES NOT WORK HERE: OpenCV; see what is BROKEN above"
    assert find(found, "numpy").status == "ok"


def test_a_decoder_that_is_missing_is_no_harm_but_for_pyav(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    found = section("_decoders")
    assert (find(found, "pyav").status, find(found, "decord").status) == ("ok", "absent")
    assert exit_code([found]) == 0

    class Blind:
        def __init__(self, video: object, spec: object) -> None:
            raise OSError("no codec")

    from flowprep.video.decode import DECODERS

    monkeypatch.setitem(DECODERS, "pyav", Blind)  # type: ignore[arg-type]
    found = section("_decoders")
    assert find(found, "pyav") == Fact("pyav", "OSError: no codec", "broken")


def test_it_says_where_decord_is_and_what_license_its_ffmpeg_reports() -> None:
    pytest.importorskip("decord")
    fact = find(section("_versions"), "decord")
    decord = sys.modules["decord"]
    assert f"{decord.__version__} in {Path(str(decord.__file__)).parent}" in fact.text
    # As `strings decord.libs/libavutil*` shows it of the wheel of 0.6.0.
    assert fact.text.endswith(
        "; its FFmpeg reports the license 'nonfree and unredistributable': run `pip uninstall "
        "decord` before you pass on this environment"
    )
    assert fact.status == "ok"


@pytest.mark.parametrize("version", ["16.1.0", "20.0.0", "99.1.0rc1"])
def test_a_version_that_is_not_supported_is_named(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av, "__version__", version)
    needed = ["av>=17,<20", "numpy>=1", "ray<1; extra == 'old'", "click<1; python_version < '3'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: needed)
    found = section("_versions")
    fact = find(found, "PyAV")
    assert fact.status == "unsupported"
    assert fact.text.startswith(version)
    assert "flowprep needs av<20,>=17: run `pip install 'av<20,>=17'`" in fact.text
    # What does not work is said where it was tried.
    assert exit_code([found]) == 0
    assert verdict([found]).endswith("with versions that are not supported: PyAV")
    assert [one.status for one in found.facts if one.name != "PyAV"].count("unsupported") == 0


def test_what_a_decoder_has_become_is_found_by_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    real = av.open

    def changed(file: str, mode: str = "r", **options: Any) -> Any:
        if mode == "r":
            raise TypeError("open() got an unexpected keyword argument")
        return real(file, mode, **options)

    assert [one.status for one in section("_extraction").facts] == ["ok"]
    monkeypatch.setattr(av, "open", changed)
    for name in ("_decoders", "_extraction"):
        found = section(name)
        broken = [one for one in found.facts if one.status == "broken"]
        assert len(broken) == 1
        assert "open() got an unexpected keyword argument" in broken[0].text
        assert exit_code([found]) == 1


def test_a_clip_that_cannot_be_written_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("flowprep.synthetic.write_video", failing)
    (fact,) = section("_extraction").facts
    assert fact == Fact("clip", "cannot be extracted: OSError: no space", "broken")


def test_an_estimator_that_computes_nonsense_or_fails_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gray = {"gray": np.zeros((256, 343), np.uint8)}
    fact = doctor._time_backend("dis", "cpu", gray)
    assert fact.status == "broken"  # nothing is seen to move there
    assert fact.text.startswith("cpu: wrong by ")

    def failing(*_: object) -> None:
        raise RuntimeError("Illegal instruction")

    monkeypatch.setattr("flowprep.flow.build_estimator", failing)
    fact = doctor._time_backend("dis", "cpu", gray)
    assert (fact.text, fact.status) == ("cpu: RuntimeError: Illegal instruction", "broken")
    # The portable version is there to compare.
    assert doctor._time_backend("tvl1", "torch-cpu", gray).status == "absent"


def test_temporary_folder_that_cannot_be_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", full)
    fact = find(section("_folders"), "temporary")
    assert fact.status == "broken"
    assert "No space left on device); name another in TMPDIR" in fact.text


def test_a_probe_that_fails_is_a_line_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe() -> Iterator[Fact]:
        yield Fact("one", "fine")
        raise PermissionError("/proc is hidden")

    facts = list(doctor._guarded("Machine", probe))
    assert facts == [
        Fact("one", "fine"),
        Fact("machine", "cannot be found out: PermissionError: /proc is hidden", "absent"),
    ]
    real = builtins.open

    def hidden(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).startswith(("/proc", "/sys")):
            raise PermissionError(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr("io.open", hidden)
    monkeypatch.setattr(builtins, "open", hidden)
    found = section("_machine")
    assert exit_code([found]) == 0
    assert find(found, "cores").values["usable"] >= 1
    assert find(found, "memory").text == "unknown"


def test_missing_extras_are_named() -> None:
    def requires(name: str) -> list[str]:
        return ["numpy>=1", 'sphinx-none>=1; extra == "docs"', "pillow; extra == 'docs'"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor.importlib.metadata, "requires", requires)
        (fact,) = section("_extras").facts
    assert fact.text == "missing: sphinx-none; run `pip install 'flowprep[docs]'`"
    assert fact.status == "absent"


def test_long_lines_are_wrapped_under_their_column() -> None:
    lines = Fact("name", "word " * 40, "absent").lines()
    assert lines[0].startswith("  name             - word word")
    assert all(line.startswith(" " * 19 + "word") for line in lines[1:])
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_gpu_has_the_verdict_on_its_kernel(
    is_trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = devices.Gpu("NVIDIA H100 80GB HBM3", 80 << 30, (9, 0))
    driver = devices.DriverState(0, (12, 8), (gpu,))
    state = devices.CudaState(driver, "2.9.0", "12.8", torch_sees=1, gpus=(gpu,))
    monkeypatch.setattr(devices, "cuda_state", lambda: state)
    file = Path("/home/me/.cache/flowprep/trials/NVIDIA-H100-80GB-HBM3-0123456789abcdef.json")
    reason = "it agrees with PyTorch to 6e-05 px in its trial (worst pixel, 60x48)"
    found = trust.Verdict(is_trusted, reason, file=file)
    monkeypatch.setattr(trust, "kernel_verdict", lambda index: found)
    section = Section("GPUs", tuple(doctor._gpus()))
    fact = find(section, "CUDA kernel")
    assert fact.status == ("ok" if is_trusted else "absent")
    assert fact.values == {"is_trusted": is_trusted}
    assert fact.text.startswith("of TV-L1 on cuda:0, ")
    assert reason in fact.text
    assert (f"remove {file} to try it again" in fact.text) != is_trusted
    assert ("PyTorch computes there" in fact.text) != is_trusted
