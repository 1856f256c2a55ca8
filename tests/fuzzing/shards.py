"""A data set with one damage at a time, read in every way: it is refused, noticed or harmless.

Cases are carried out by children of this process, with bounds on time and memory:

    fuzz_shards -> python -m tests.fuzzing.shards -> damage -> readings, commands -> an outcome
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
import tarfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import flowprep
from flowprep.cli import main as flowprep_main
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset.layout import LEASE_FILE
from flowprep.dataset.lease import Holder
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import FlowprepError
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.layouts import EXPORT_FILE, VIDEOS_FILE
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.video import Video
from flowprep.run.status import PROGRESS_FILE
from flowprep.synthetic import Layer, Motion, Scene, write_video
from tests.fuzzing.children import child, run_cases
from tests.fuzzing.hostile_json import change_json, change_lines
from tests.fuzzing.mutations import BYTE_MUTATIONS, Random, case_random, number_below
from tests.fuzzing.outcomes import Outcomes

__all__ = ["KINDS", "fuzz_shards"]

BLOCK = 512
LEASE = Holder(
    *("ab", "there", "m", 1, "1", "2026-01-01T00:00:00Z"), renewed=3, epoch=2, released=True
)


def make_template(folder: Path) -> Path:
    """Makes the sound data set, and beside it the tree that imports are made of."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    videos = []
    for name, num_frames, label in (("run/a", 5, 0), ("run/b", 4, 0), ("walk/c", 4, 1)):
        path = clips / f"{name.replace('/', '-')}.mp4"
        scene = Scene(32, 24, (Layer(len(videos), (Motion(velocity_px=(1.5, -0.7)),)),))
        write_video(path, map(scene.frame, range(num_frames)))
        videos.append(Video(name, str(path), (label,), ("train", "test")[label]))
    (clips / "broken.mp4").write_bytes(b"this is not a video" * 20)
    videos.insert(1, Video("walk/broken", str(clips / "broken.mp4"), (1,), "test"))
    config = ExtractConfig(
        DecodeSpec(resize=Resize("none", short_px=None)),
        FlowSpec("dis"),
        EncodeSpec(videos_per_shard=2),
    )
    out = folder / "out"
    flowprep.extract(
        Manifest(tuple(videos), ("run", "walk"), 0, ()), out, config, executor="inline"
    )
    (out / LEASE_FILE).write_bytes(LEASE.to_json())
    tree = folder / "tree"
    export_dataset(out, tree, ExportSpec("mmaction2"), num_workers=1)
    # Inside the tree, as in an export of flowprep 0.1.0, so that a case has one folder.
    for name in (EXPORT_FILE, VIDEOS_FILE):
        shutil.move(folder / "tree-lists" / name, tree / name)
    return out


# ---- damage


def _bytes(name: str) -> Callable[[Random, Path], None]:
    """Any damage of bytes to one of the files `name` (a pattern)."""

    def change(random: Random, out: Path) -> None:
        path = _one(random, out, name)
        kinds = list(BYTE_MUTATIONS.values())
        others = [file for file in sorted(out.rglob("*")) if file.is_file()]
        other = others[number_below(random, len(others))].read_bytes()
        path.write_bytes(kinds[number_below(random, len(kinds))](random, path.read_bytes(), other))

    return change


def _values(name: str) -> Callable[[Random, Path], None]:
    """Other values in a JSON file."""

    def change(random: Random, out: Path) -> None:
        path = _one(random, out, name)
        how = change_lines if path.suffix == ".jsonl" else change_json
        path.write_bytes(how(random, path.read_bytes()))

    return change


def _one(random: Random, out: Path, name: str) -> Path:
    paths = sorted(out.glob(name))
    return paths[number_below(random, len(paths))]


def _headers(random: Random, out: Path) -> None:
    """Fields of tar headers: names that leave the folder, endless sizes, links, sparse files."""
    path = _one(random, out, "shards/*.tar")
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        starts = [member.offset for member in tar]
    for _ in range(1 + number_below(random, 2)):
        at = starts[number_below(random, len(starts))]
        block = data[at : at + BLOCK]
        kind = number_below(random, 5)
        if kind == 0:
            names = (
                b"../../x.json",
                b"/etc/passwd.json",
                b"run/a.json",
                b"run/a.rgb.mjpg",
                b"\xff",
            )
            block[:100] = names[number_below(random, len(names))].ljust(100, b"\0")
        elif kind == 1:
            sizes = (
                *(b"00000000000\0", b"77777777777\0", b"00000000001\0", b"-0000000777\0"),
                *(b"\x80" + bytes(10) + b"\x01", b"\xff" * 12, b"\x80" + b"\xff" * 11),
                b"\xff" * 9 + b"\xf0\x00\x00",
            )
            block[124:136] = sizes[number_below(random, len(sizes))]
        elif kind == 2:
            block[156:157] = b"0123456789xgLKSDVMN\0A"[(n := number_below(random, 21)) : n + 1]
        elif kind == 3:
            block[257:265] = (b"ustar\00000", b"ustar  \0", bytes(8))[number_below(random, 3)]
            block[345:500] = b"../..".ljust(155, b"\0")
        else:
            block[number_below(random, BLOCK)] ^= 1 << number_below(random, 8)
        if random.random() < 0.9:
            block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
        data[at : at + BLOCK] = block
    path.write_bytes(data)


def _members(random: Random, out: Path) -> None:
    """Members that lack, stand twice or elsewhere, come from another shard, or have pax headers."""
    path = _one(random, out, "shards/*.tar")
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    for shard in (path, _one(random, out, "shards/*.tar")):
        with tarfile.open(shard) as tar:
            found = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
        members += found if shard == path and not members else found[:1]
    at, to = number_below(random, len(members)), number_below(random, len(members))
    kind = number_below(random, 5)
    pax = False
    if kind == 0:
        del members[at]
    elif kind == 1:
        members.insert(to, members[at])
    elif kind == 2:
        members[at], members[to] = members[to], members[at]
    elif kind == 3:
        members[at] = members[at][0], members[to][1]
    else:
        pax = True
        headers = (
            {"size": "99999999999999"},
            {"size": "-5"},
            {"path": "../../x.json"},
            {"GNU.sparse.map": "0,2", "GNU.sparse.size": str(8 << 30)},
            {"comment": "x" * 100_000},
        )
        members[at][0].pax_headers = headers[number_below(random, len(headers))]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _without_sidecar(change: Callable[[Random, Path], None]) -> Callable[[Random, Path], None]:
    """A damaged tar that must describe itself."""

    def both(random: Random, out: Path) -> None:
        change(random, out)
        for path in sorted(out.glob("shards/*.json")):
            path.unlink()

    return both


def _other_shard(random: Random, out: Path) -> None:
    """A tar or sidecar stands under the name of another one."""
    suffix = ("tar", "json")[number_below(random, 2)]
    first, second = out / f"shards/000000.{suffix}", out / f"shards/000001.{suffix}"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    if random.random() < 0.5:
        second.write_bytes(one)


def _forged(change: Callable[[Random, bytes], bytes], name: str) -> Callable[[Random, Path], None]:
    """One member's content is changed, and size and checksum of the tar are made to fit."""

    def forge(random: Random, out: Path) -> None:
        sidecar = _one(random, out, "shards/*.json")
        values = json.loads(sidecar.read_text())
        records = [video for video in values["videos"] if video["status"] != "failed"]
        record = records[number_below(random, len(records))]
        names = [one for one in record["members"] if (one == "json") == (name == "json")]
        offset, size = record["members"][names[number_below(random, len(names))]]
        path = sidecar.with_suffix(".tar")
        data = bytearray(path.read_bytes())
        content = bytes(data[offset : offset + size])
        new = change(random, content)[:size]
        data[offset : offset + size] = new.ljust(size)
        path.write_bytes(data)
        values["sha256"] = hashlib.sha256(data).hexdigest()
        sidecar.write_text(json.dumps(values))

    return forge


def _change_metadata(random: Random, content: bytes) -> bytes:
    values = json.loads(content)
    # What is not needed here makes room.
    values |= {"versions": {}, "source": ""}
    return change_json(random, json.dumps(values, separators=(",", ":")).encode())


def _change_jpegs(random: Random, content: bytes) -> bytes:
    kinds = ("one bit", "many bits", "zeros", "noise", "swap")
    return BYTE_MUTATIONS[kinds[number_below(random, len(kinds))]](random, content, content)


KINDS: dict[str, tuple[int, Callable[[Random, Path], None]]] = {
    "tar: bytes": (10, _bytes("shards/*.tar")),
    "tar: headers": (8, _headers),
    "tar: members": (6, _members),
    "tar: bytes, no sidecar": (8, _without_sidecar(_bytes("shards/*.tar"))),
    "tar: headers, no sidecar": (8, _without_sidecar(_headers)),
    "tar: members, no sidecar": (6, _without_sidecar(_members)),
    "tar: forged KEY.json": (6, _forged(_change_metadata, "json")),
    "tar: forged JPEGs": (8, _forged(_change_jpegs, "jpegs")),
    "sidecar: bytes": (8, _bytes("shards/*.json")),
    "sidecar: values": (14, _values("shards/*.json")),
    "tar or sidecar: another's": (1, _other_shard),
    "dataset.json: bytes": (4, _bytes("dataset.json")),
    "dataset.json: values": (8, _values("dataset.json")),
    "manifest.jsonl: bytes": (3, _bytes("manifest.jsonl")),
    "manifest.jsonl: values": (6, _values("manifest.jsonl")),
    "failures.jsonl: bytes": (2, _bytes("failures.jsonl")),
    "failures.jsonl: values": (4, _values("failures.jsonl")),
    "progress.json": (4, _values(PROGRESS_FILE)),
    "lease": (2, _values(LEASE_FILE)),
    "import: images": (6, _bytes("**/*.jpg")),
    "import: flowprep.json": (3, _values(EXPORT_FILE)),
    "import: flowprep-videos.jsonl": (3, _values(VIDEOS_FILE)),
}
"""Kind -> how often it comes, and what it does to a data set, or for `import` to a tree."""

_MAY_BE_BELIEVED = ("tar: forged KEY.json", "tar: forged JPEGs")
"""Nobody can tell what was written with its checksum from what was always there."""


def damage(template: Path, out: Path, seed: int, index: int) -> str:
    """Makes the case's data set (or tree) at `out`, and returns the kind of damage."""
    random = case_random(seed, index)
    names = list(KINDS)
    weights = np.array([weight for weight, _ in KINDS.values()], float)
    kind = names[int(random.choice(len(names), p=weights / weights.sum()))]
    source = template.parent / "tree" if kind.startswith("import") else template
    shutil.copytree(source, out)
    KINDS[kind][1](random, out)
    if kind != "lease":
        # `verify --repair` would watch it for a minute, as another machine may hold it.
        (out / LEASE_FILE).unlink(missing_ok=True)
    return kind


# ---- what is read


Readings = dict[str, str]
REFUSED = "refused"


def readings(out: Path) -> Readings:
    """Reads all that there is in every way; returns a digest of each, or REFUSED."""
    found: Readings = {}
    try:
        dataset = open_dataset(out)
    except FlowprepError:
        return {"open": REFUSED}
    with contextlib.closing(dataset):
        found["classes"] = repr(dataset.class_names)
        found["flow spec"] = repr(dataset.config.flow)
        for video in dataset.videos:
            found[f"{video.key} video"] = repr(video)
            for name, read in _ways(dataset, video.key).items():
                try:
                    found[f"{video.key} {name}"] = _digest_of(read())
                except FlowprepError:
                    found[f"{video.key} {name}"] = REFUSED
    return found


def _ways(dataset: FlowDataset, key: str) -> dict[str, Callable[[], Any]]:
    video = dataset.videos[key]
    number = video.num_flows
    ways: dict[str, Callable[[], Any]] = {
        "metadata": lambda: dataset.metadata(key).to_dict(),
        "frames": lambda: dataset.frames(key, range(video.num_frames)),
        "rgb bytes": lambda: dataset.jpegs(key, "rgb", 0, video.num_frames),
        "flow": lambda: dataset.flow(key, 0, number),
    }
    for direction in dataset.config.encode.directions:
        ways |= {
            f"{direction} quantized": lambda d=direction: dataset.quantized(key, 0, number, d),
            f"{direction} planes": lambda d=direction: np.ascontiguousarray(
                dataset.planes(key, range(number), d).transpose(0, 2, 3, 1)
            ),
            f"{direction} crop": lambda d=direction: dataset.planes(
                key, [number - 1], d, box=(5, 3, 11, 9)
            ),
        }
    return ways


def _digest_of(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape}{hashlib.sha256(value).hexdigest()}"
    if isinstance(value, list):
        return hashlib.sha256(b"".join(value)).hexdigest()
    return hashlib.sha256(repr(value).encode(errors="backslashreplace")).hexdigest()


def _stored(folder: Path) -> Readings:
    """Returns a digest of each file of an export, but for the lists."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".jpg", ".npz", ".tar")
    }


def command(*arguments: str | Path) -> tuple[int, str]:
    """Runs a command of flowprep's in this process; returns exit code and what it printed."""
    buffer = io.BytesIO()
    # As strict as a terminal: text that is no UTF-8 is an error.
    with (
        io.TextIOWrapper(buffer, encoding="utf-8", write_through=True) as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        try:
            flowprep_main(list(map(str, arguments)))
        except SystemExit as end:
            return int(end.code or 0), buffer.getvalue().decode()
    raise AssertionError("main has not ended")


# ---- a case


FORMATS = (("mmaction2", "jpg"), ("denseflow", "npz"), ("tsm", "webdataset"), ("frames", "jpg"))
"""Of the exports, one after the other."""


@dataclass
class Case:
    """One damaged data set and what became of it."""

    kind: str
    folder: Path
    broken: list[str] = field(default_factory=list)

    def guarded(self, name: str, do: Callable[[], Any]) -> Any:
        """Returns what `do` returns; None, and a broken rule, for an error that is not ours."""
        try:
            return do()
        except FlowprepError:
            return None
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            self.broken.append(f"{name}: {type(error).__name__} at {where}: {str(error)[:200]}")
            return None


@dataclass
class Truth:
    """What the sound data set gives."""

    template: Path
    readings: Readings
    exports: dict[tuple[str, str], Readings]

    @classmethod
    def of(cls, template: Path, folder: Path) -> Truth:
        """Reads and exports the sound data set in every way."""
        exports = {}
        for layout, form in FORMATS:
            dest = folder / f"{layout}-{form}"
            export_dataset(template, dest, ExportSpec(layout, form), num_workers=1)
            exports[layout, form] = _stored(dest)
            shutil.rmtree(dest)
        # Every command once, so that what they import does not count as theirs.
        for name in ("info", "status", "verify"):
            command(name, template)
        return cls(template, readings(template), exports)


def carry_out(truth: Truth, folder: Path, seed: int, index: int) -> tuple[str, str, list[str]]:
    """Carries a case out; returns its kind, its outcome and the rules that it broke."""
    inside = folder / "inside"
    inside.mkdir()
    out = inside / "out"
    case = Case(damage(truth.template, out, seed, index), inside)
    if case.kind.startswith("import"):
        outcome = _import(case, truth, out)
    else:
        outcome = _read(case, truth, out, index)
    strangers = {path.name for path in folder.iterdir()} - {"inside"}
    strangers |= {path.name for path in inside.iterdir()} - {"out", "dest", "dest-lists", "made"}
    if strangers:
        case.broken.append(f"files outside: {', '.join(sorted(strangers))}")
    shutil.rmtree(inside)
    return case.kind, "RULE BROKEN" if case.broken else outcome, case.broken


def _read(case: Case, truth: Truth, out: Path, index: int) -> str:
    found = case.guarded("read", lambda: readings(out)) or {}
    for name, value in found.items():
        # Two decoders: one way or the other, a picture is the same.
        other = found.get(name.replace("planes", "quantized"), REFUSED)
        if REFUSED not in (value, other) and "planes" in name and value != other:
            case.broken.append(f"{name} are not as OpenCV decodes them")
    refused = REFUSED in found.values()
    expected = truth.readings
    different = any(v not in (REFUSED, expected.get(k)) for k, v in found.items())
    different |= not refused and found.keys() != expected.keys()

    quick = case.guarded("verify", lambda: command("verify", out))
    deep = case.guarded("verify --deep", lambda: command("verify", out, "--deep"))
    noticed = quick is None or deep is None or quick[0] != 0 or deep[0] != 0
    may_be_believed = case.kind in _MAY_BE_BELIEVED
    if different and not noticed and not may_be_believed:
        name = next(k for k, v in {**expected, **found}.items() if found.get(k) != expected.get(k))
        case.broken.append(f"{name} is read otherwise, and verify says whole")
    if refused and not noticed:
        name = next(k for k, v in found.items() if v == REFUSED)
        case.broken.append(f"{name} is refused, and verify says whole")
    for arguments in (("info",), ("info", "--videos"), ("info", "--json"), ("status",)):
        name, *options = arguments
        case.guarded(" ".join(arguments), lambda n=name, o=options: command(n, out, *o))
    case.guarded("status --json", lambda: command("status", out, "--json"))
    case.guarded("status --prometheus", lambda: command("status", out, "--prometheus"))
    if index % 3 == 0:
        layout, form = FORMATS[index // 3 % len(FORMATS)]
        dest = case.folder / "dest"
        options = ("--layout", layout, "--format", form, "--workers", "1")
        done = case.guarded("export", lambda: command("export", out, dest, *options))
        is_whole = done is not None and done[0] == 0 and not noticed and not may_be_believed
        if is_whole and _stored(dest) != truth.exports[layout, form]:
            case.broken.append("export differs, and verify says whole")
    if case.kind == "lease":
        case.guarded("lease", lambda: _ask_holder((out / LEASE_FILE).read_bytes()))
    repaired = ""
    if index % 3 == 1 or "no sidecar" in case.kind:
        before = {path: path.read_bytes() for path in sorted(out.glob("shards/*.tar"))}
        done = case.guarded("verify --repair", lambda: command("verify", out, "--repair", "--deep"))
        if before != {path: path.read_bytes() for path in sorted(out.glob("shards/*.tar"))}:
            case.broken.append("repair changed a tar")
        if done is not None and done[0] == 0:
            repaired = "repaired" if noticed else ""
            again = case.guarded("read the repaired", lambda: readings(out)) or {}
            if again != expected and "no sidecar" in case.kind:
                repaired = "repaired, damage unseen"
            elif again != expected and not may_be_believed:
                names = [k for k in {**expected, **again} if again.get(k) != expected.get(k)]
                case.broken.append(f"{names[0]} is another after --repair, which says whole")
    if repaired:
        return repaired
    if refused:
        return "refused"
    if different:
        return "noticed by verify" if noticed else "believed"
    return "noticed by verify" if noticed else "harmless"


def _ask_holder(content: bytes) -> None:
    holder = Holder.from_json(content)
    if holder is not None:
        holder.is_alive()
        str(holder).encode(errors="backslashreplace")


def _import(case: Case, truth: Truth, tree: Path) -> str:
    made = case.folder / "made"
    options = ("--layout", "mmaction2", "--workers", "1")
    done = case.guarded("import", lambda: command("import", tree, made, *options))
    if done is None or done[0] == 2 or not (made / "shards").is_dir():
        return "refused"
    checked = case.guarded("verify", lambda: command("verify", made, "--deep"))
    if done[0] == 1 and (checked is None or checked[0] != 0):
        # An import that stopped says so itself.
        return "refused"
    if checked is None or checked[0] != 0:
        case.broken.append(f"what was imported is not whole: {checked and checked[1][:200]}")
    found = case.guarded("read", lambda: readings(made)) or {}
    if REFUSED in found.values():
        case.broken.append("what was imported is refused")
    if done[0] == 1:
        return "refused"
    pictures = ("quantized", "frames")
    same = all(
        value == truth.readings.get(name)
        for name, value in found.items()
        if name.endswith(pictures)
    )
    return "harmless" if same else "believed"


# ---- children


def _child(template: Path, folder: Path, seed: int, indices: list[int]) -> None:
    truth = Truth.of(template, folder)
    child(folder, seed, indices, lambda place, *case: carry_out(truth, place, *case))


def fuzz_shards(
    *, folder: Path, keep: Path, count: int, seed: int, only: int | None = None
) -> Outcomes:
    """Reads `count` damaged data sets, and returns what became of them.

    `folder` is for all that is made meanwhile. `only` carries out a single case.
    """
    outcomes = Outcomes("shards", seed, keep)
    template = make_template(folder / "template")
    waiting = [i for i in range(count) if only in (None, i)]
    run_cases(
        "tests.fuzzing.shards",
        template,
        outcomes,
        waiting,
        lambda index, rule: _keep(outcomes, template, index, rule),
    )
    return outcomes


def _keep(outcomes: Outcomes, template: Path, index: int, rule: str) -> str:
    """Notes a broken rule with the data set that broke it; returns the kind of damage."""
    place = template.parent / "kept"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    kind = damage(template, place / "out", outcomes.seed, index)
    outcomes.break_rule(str(index), f"{kind}: {rule}", place / "out")
    return kind


if __name__ == "__main__":
    _child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), list(map(int, sys.argv[4:])))
