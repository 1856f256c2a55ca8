"""Forged checkpoints: whole zips with right checksums, of something that no training writes."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.fuzzing.hostile_json import VALUES, change_json
from tests.fuzzing.mutations import BYTE_MUTATIONS, Random, number_below

__all__ = ["FORGERIES", "MAY_BE_BELIEVED", "change_bytes"]

_BOMB_MB = 64
_MOST_NUMBERS = 1 << 40


def change_bytes(random: Random, path: Path) -> None:
    """Any damage of bytes, whose checksums are then wrong."""
    kinds = list(BYTE_MUTATIONS.values())
    data = path.read_bytes()
    path.write_bytes(kinds[number_below(random, len(kinds))](random, data, data[::-1]))


# ---- the zip


def _read(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {part.filename: file.read(part) for part in file.infolist()}


def _write(path: Path, parts: list[tuple[str, bytes]], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how, compresslevel=1) as file:
        for name, data in parts:
            file.writestr(name, data)


def _parts(random: Random, path: Path) -> None:
    """Parts that lack, stand twice, have another's name or content, or another length."""
    parts = list(_read(path).items())
    at, other = number_below(random, len(parts)), number_below(random, len(parts))
    name, data = parts[at]
    kind = number_below(random, 6)
    if kind == 0:
        del parts[at]
    elif kind == 1:
        parts[at] = name, parts[other][1]
    elif kind == 2:
        parts[at], parts[other] = (name, parts[other][1]), (parts[other][0], data)
    elif kind == 3:
        parts[at] = name, data[: number_below(random, len(data))]
    elif kind == 4:
        parts[at] = name, data + bytes(1 + number_below(random, 1 << 16))
    else:
        parts[at] = ("../../x", "/etc/x", "x")[number_below(random, 3)], data
    _write(path, parts)


def _packed(random: Random, path: Path) -> None:
    """Parts that are packed, which may unpack to any size."""
    parts = list(_read(path).items())
    how = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)[number_below(random, 3)]
    _write(path, parts, how)
    if random.random() < 0.3:
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            name = f"{parts[0][0].partition('/')[0]}/data/bomb"
            with file.open(name, "w", force_zip64=True) as part:
                for _ in range(_BOMB_MB):
                    part.write(bytes(1 << 20))


def _twice(random: Random, path: Path) -> None:
    """Two parts of one name, which two readers may read differently."""
    parts = list(_read(path).items())
    name, data = parts[number_below(random, len(parts))]
    kinds = list(BYTE_MUTATIONS.values())
    changed = kinds[number_below(random, len(kinds))](random, data, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _write(path, [*parts, (name, changed)])


# ---- the pickle


def _pickle_name(parts: dict[str, bytes]) -> str:
    return next(name for name in parts if name.endswith("/data.pkl"))


def _pickle_bytes(random: Random, path: Path) -> None:
    """Any damage of bytes to the pickle, under a right checksum."""
    parts = _read(path)
    name = _pickle_name(parts)
    kinds = list(BYTE_MUTATIONS.values())
    change = kinds[number_below(random, len(kinds))]
    parts[name] = change(random, parts[name], parts[name][::-1])
    _write(path, list(parts.items()))


def _numbers(random: Random, path: Path) -> None:
    """Numbers in the pickle: sizes of storages, shapes, strides, offsets, steps."""
    parts = _read(path)
    name = _pickle_name(parts)
    data = bytearray(parts[name])
    places = {"BININT1": (1, "<B"), "BININT2": (2, "<H"), "BININT": (4, "<i")}
    found = [
        (place, *places[code.name])
        for code, _, place in pickletools.genops(bytes(data))
        if code.name in places and place is not None
    ]
    for _ in range(1 + number_below(random, 3)):
        place, size, form = found[number_below(random, len(found))]
        most = (1 << 8 * size) - 1 if form != "<i" else (1 << 31) - 1
        values = (0, 1, 2, most, most // 2, *((-1, -(1 << 31)) if form == "<i" else ()))
        data[place + 1 : place + 1 + size] = struct.pack(
            form, values[number_below(random, len(values))]
        )
    parts[name] = bytes(data)
    _write(path, list(parts.items()))


def _deep(random: Random, path: Path) -> None:
    """Lists in lists, a hundred thousand deep."""
    parts = _read(path)
    depth = 100_000
    parts[_pickle_name(parts)] = b"\x80\x02" + b"(" * depth + b"l" * depth + b"."
    _write(path, list(parts.items()))


# ---- the content


def _tensors(random: Random) -> Any:
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: torch.zeros(()),
        lambda: torch.zeros(0),
        lambda: torch.full((4,), torch.nan, dtype=torch.float64),
        lambda: torch.full((3, 3), torch.inf),
        lambda: torch.zeros(1).expand(_MOST_NUMBERS),
        lambda: torch.zeros(1, dtype=torch.float64).expand(1 << 20, 1 << 20),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.ones(2, dtype=torch.complex64),
        lambda: torch.ones(4, dtype=torch.bool),
        lambda: torch.ones(4, dtype=torch.int64),
        lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        lambda: torch.empty(1 << 40, device="meta"),
        lambda: torch.nn.Parameter(torch.ones(4)),
    )
    return kinds[number_below(random, len(kinds))]()


def _content(random: Random, path: Path) -> None:
    """Values anywhere in what the pickle holds: other types, sizes, keys and tensors."""
    content = torch.load(path, weights_only=True)
    top = ("step", "model", "training", "training", "training", "versions", "format_version")
    holder, key = content, top[number_below(random, len(top))]
    while isinstance(holder[key], dict) and holder[key] and random.random() < 0.8:
        holder = holder[key]
        key = list(holder)[number_below(random, len(holder))]
    while isinstance(holder[key], list) and holder[key] and random.random() < 0.8:
        holder, key = holder[key], number_below(random, len(holder[key]))
        if isinstance(holder[key], dict) and holder[key]:
            holder = holder[key]
            key = list(holder)[number_below(random, len(holder))]
    kind = number_below(random, 8)
    old = holder[key]
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[("x", 7, None, "\ud800")[number_below(random, 4)]] = old
    elif kind <= 3 and isinstance(old, torch.Tensor):
        holder[key] = (old.half, old.double, old.t if old.dim() < 3 else old.flatten, old.neg)[
            number_below(random, 4)
        ]()
    elif kind <= 3 and type(old) in (int, float):
        holder[key] = (old + 1, -old, old * 10**9, float(old), int(old), str(old))[
            number_below(random, 6)
        ]
    elif kind <= 5:
        holder[key] = _tensors(random)
    else:
        values = [value for value in VALUES if value not in (10**400,)]
        holder[key] = values[number_below(random, len(values))]
    torch.save(content, path)


def _json_of(name: str) -> Callable[[Random, Path], None]:
    def change(random: Random, path: Path) -> None:
        content = torch.load(path, weights_only=True)
        content[name] = change_json(random, content[name].encode()).decode()
        torch.save(content, path)

    return change


def _foreign(random: Random, path: Path) -> None:
    """A file of another kind under the checkpoint's name."""
    kinds: tuple[bytes, ...] = (b"", b"PK\x05\x06" + bytes(18), b"\x80\x02}.", b"[" * 100_000)
    buffer = io.BytesIO()
    torch.save(torch.zeros(3), buffer)
    kinds += (buffer.getvalue(), json.dumps({"format": "flowprep-checkpoint"}).encode())
    path.write_bytes(kinds[number_below(random, len(kinds))])


FORGERIES: dict[str, tuple[int, Callable[[Random, Path], None]]] = {
    "bytes": (10, change_bytes),
    "zip: parts": (8, _parts),
    "zip: packed": (2, _packed),
    "zip: two of a name": (2, _twice),
    "pickle: bytes": (12, _pickle_bytes),
    "pickle: numbers": (14, _numbers),
    "pickle: depth": (1, _deep),
    "content: values": (30, _content),
    "content: config": (12, _json_of("config")),
    "content: tasks": (8, _json_of("tasks")),
    "content: versions": (2, _json_of("versions")),
    "another file": (2, _foreign),
}
"""Kind -> how often it comes, and what it does to a checkpoint's file."""

MAY_BE_BELIEVED = frozenset(
    kind for kind in FORGERIES if kind.startswith(("pickle", "content")) or kind == "zip: parts"
)
"""Nobody can tell what was written with its checksum from what was always there."""
