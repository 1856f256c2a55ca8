"""Checkpoints of TensorFlow's format are read as written, and never wrongly where damaged.

`write_bundle` is a writer of the format for these tests alone; that it writes what TensorFlow does
is shown on `TENSORFLOW_FILES`, byte for byte.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.errors import WeightsError
from flowprep.learn.weights import tensorflow_entries, tensorflow_table
from flowprep.learn.weights.protobuf import read_varint
from flowprep.learn.weights.reading import FormatError, UnsupportedError
from flowprep.learn.weights.tensorflow import TensorBundle
from tests.learn.weights.wire import bytes_field, number_field, varint


def read_checkpoint(prefix: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Reads every tensor of a checkpoint."""
    bundle = TensorBundle(prefix)
    return {name: bundle.read(name) for name in bundle.names}


Records = list[tuple[bytes, bytes]]

DATA_TYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "uint16": 17,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
BFLOAT16 = 14

TENSORFLOW_FILES = {
    ".index": (
        "00000608011a02080100010b61080112002804355e2fe1a7000a116e65742f636f6e762f6208051204120208"
        "02200428043521970a1409011577080e1208120208021202080220082808356e42782800040d737465700809"
        "12002010280835bbd79f1100000000010000000068a7dc46000000000100000000c0f2a1b000010274006b00"
        "00000001000000009dbe081470087d0e00000000000000000000000000000000000000000000000000000000"
        "000000000000000057fb808b247547db"
    ),
    ".data-00000-of-00001": "0000c03fffff0200803f0040404080400700000000000000",
}
"""What TensorFlow 2.21.0 wrote for

    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=["a", "net/conv/b", "net/conv/w", "step"],
        shape_and_slices=[""] * 4, tensors=[tf.constant(1.5), tf.constant([-1, 2], tf.int16),
        tf.constant([[1, 2], [3, 4]], tf.bfloat16), tf.constant(7, tf.int64)])
"""
TENSORFLOW_VALUES: dict[str, NDArray[Any]] = {
    "a": np.array(1.5, np.float32),
    "net/conv/b": np.array([-1, 2], np.int16),
    "net/conv/w": np.array([[1, 2], [3, 4]], np.float32),
    "step": np.array(7, np.int64),
}


# --- The writer -----------------------------------------------------------------------------------


def masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    rotated = crc >> 15 | (crc & 0x7FFF) << 17
    return (rotated + 0xA282EAD8) % (1 << 32)


def header_record(num_shards: int = 1, endianness: int = 0, version: bytes = b"\x08\x01") -> bytes:
    return number_field(1, num_shards) + number_field(2, endianness) + bytes_field(3, version)


def entry_record(
    data: bytes,
    shape: Iterable[int],
    dtype: int = 1,
    *,
    shard: int = 0,
    offset: int = 0,
    size: int | None = None,
    extra: bytes = b"",
) -> bytes:
    dims = b"".join(bytes_field(2, number_field(1, dim)) for dim in shape)
    return (
        number_field(1, dtype)
        + bytes_field(2, dims)
        + number_field(3, shard)
        + number_field(4, offset)
        + number_field(5, len(data) if size is None else size)
        + (varint(6 << 3 | 5) + masked_crc(data).to_bytes(4, "little"))
        + extra
    )


def block(records: Records, restart_interval: int = 16) -> bytes:
    out, restarts, last = bytearray(), [0], b""
    for index, (key, value) in enumerate(records):
        shared = 0
        if index % restart_interval:
            shared = common_prefix(last, key)
        elif index:
            restarts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        last = key
    for number in (*restarts, len(restarts)):
        out += number.to_bytes(4, "little")
    return bytes(out)


def common_prefix(a: bytes, b: bytes) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def separator(low: bytes, high: bytes | None) -> bytes:
    """A short key that is at least `low` and below `high`, as LevelDB chooses it."""
    if high is None:
        for index, byte in enumerate(low):
            if byte != 0xFF:
                return low[:index] + bytes([byte + 1])
        return low
    index = common_prefix(low, high)
    if index < min(len(low), len(high)) and low[index] + 1 < min(high[index], 0xFF + 1):
        return low[:index] + bytes([low[index] + 1])
    return low


def write_table(
    path: Path, records: Records, *, block_bytes: int = 1 << 18, compression: int = 0
) -> None:
    out = bytearray()

    def write_block(content: bytes) -> bytes:
        """Returns the block's handle."""
        handle = varint(len(out)) + varint(len(content))
        typed = content + bytes([compression])
        out.extend(typed + masked_crc(typed).to_bytes(4, "little"))
        return handle

    groups: list[Records] = [[]]
    for record in records:
        if groups[-1] and len(block(groups[-1])) >= block_bytes:
            groups.append([])
        groups[-1].append(record)
    index: Records = []
    for group, following in zip(groups, [*groups[1:], None], strict=True):
        limit = separator(group[-1][0], following[0][0] if following else None) if group else b""
        index.append((limit, write_block(block(group))))
    metaindex_handle = write_block(block([]))
    handles = metaindex_handle + write_block(block(index, restart_interval=1))
    path.write_bytes(out + handles.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little"))


def write_bundle(
    prefix: Path,
    tensors: Mapping[str, NDArray[Any]],
    *,
    block_bytes: int = 1 << 18,
    num_shards: int = 1,
    bfloat16: Iterable[str] = (),
) -> None:
    """Writes a checkpoint; `bfloat16` names float32 tensors to be stored as such (cut off)."""
    shards = [bytearray() for _ in range(num_shards)]
    records: Records = []
    names = sorted(tensors, key=str.encode)
    for index, name in enumerate(names):
        value = np.asarray(tensors[name])
        dtype = BFLOAT16 if name in bfloat16 else DATA_TYPES[value.dtype.name]
        data = value.astype(value.dtype.newbyteorder("<")).tobytes()
        if dtype == BFLOAT16:
            data = np.frombuffer(data, "<u2")[1::2].tobytes()
        shard = index * num_shards // len(names)
        record = entry_record(data, value.shape, dtype, shard=shard, offset=len(shards[shard]))
        records.append((name.encode(), record))
        shards[shard] += data
    write_table(
        Path(f"{prefix}.index"),
        [(b"", header_record(num_shards)), *records],
        block_bytes=block_bytes,
    )
    for shard, content in enumerate(shards):
        Path(f"{prefix}.data-{shard:05d}-of-{num_shards:05d}").write_bytes(content)


# --- What is read ---------------------------------------------------------------------------------


def assert_same(found: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)


@pytest.fixture
def tensorflow_prefix(tmp_path: Path) -> Path:
    """A checkpoint that TensorFlow wrote."""
    prefix = tmp_path / "model.ckpt"
    for suffix, content in TENSORFLOW_FILES.items():
        Path(f"{prefix}{suffix}").write_bytes(bytes.fromhex(content))
    return prefix


def test_what_tensorflow_wrote_is_read(tensorflow_prefix: Path) -> None:
    assert_same(read_checkpoint(tensorflow_prefix), TENSORFLOW_VALUES)


def test_the_writer_of_these_tests_writes_what_tensorflow_does(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", TENSORFLOW_VALUES, bfloat16=["net/conv/w"])
    for suffix, content in TENSORFLOW_FILES.items():
        assert (tmp_path / f"x{suffix}").read_bytes().hex() == content


def test_the_checksum_is_the_one_of_rfc_3720_masked() -> None:
    # RFC 3720, B.4: 32 bytes of zeros give aa 36 91 8a.
    assert tensorflow_table.masked_crc(bytes(32)) == (
        ((0x8A9136AA >> 15 | 0x8A9136AA << 17) + 0xA282EAD8) & 0xFFFFFFFF
    )


@pytest.mark.parametrize("num_shards", [1, 3])
def test_every_type_of_number_in_every_file(tmp_path: Path, num_shards: int) -> None:
    rng = np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {
        name: (rng.standard_normal((3, 4, 5)) * 50).astype(name) for name in DATA_TYPES
    }
    tensors["empty"] = np.zeros((0, 3), np.float32)
    tensors["scalar"] = np.array(2.5)
    write_bundle(tmp_path / "x", tensors, num_shards=num_shards)
    assert_same(read_checkpoint(tmp_path / "x"), tensors)


def test_names_over_many_blocks_and_restart_points(tmp_path: Path) -> None:
    tensors = {f"layer_{i:04d}/{i % 7 * 'long/'}w": np.full(2, i, np.int32) for i in range(700)}
    write_bundle(tmp_path / "x", tensors, block_bytes=900)
    bundle = TensorBundle(tmp_path / "x")
    assert bundle.names == tuple(sorted(tensors))
    assert bundle.shape("layer_0003/long/long/long/w") == (2,)
    assert_same({name: bundle.read(name) for name in bundle.names}, tensors)


def test_what_is_read_can_be_written_to(tensorflow_prefix: Path) -> None:
    assert all(value.flags.writeable for value in read_checkpoint(tensorflow_prefix).values())


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name[0] != "\0"
)
shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(names, st.tuples(shapes, st.sampled_from(sorted(DATA_TYPES)))))
def test_any_names_and_shapes(
    tmp_path_factory: pytest.TempPathFactory, kinds: dict[str, tuple[tuple[int, ...], str]]
) -> None:
    prefix = tmp_path_factory.mktemp("any") / "x"
    tensors: dict[str, NDArray[Any]] = {
        name: np.arange(math.prod(shape)).astype(dtype).reshape(shape)
        for name, (shape, dtype) in kinds.items()
    }
    write_bundle(prefix, tensors, block_bytes=60)
    assert_same(read_checkpoint(prefix), tensors)


# --- What is refused ------------------------------------------------------------------------------


def test_each_flipped_bit_is_noticed(tensorflow_prefix: Path) -> None:
    for suffix in TENSORFLOW_FILES:
        path = Path(f"{tensorflow_prefix}{suffix}")
        good = path.read_bytes()
        for position in range(len(good)):
            for bit in range(8):
                bad = bytearray(good)
                bad[position] ^= 1 << bit
                path.write_bytes(bad)
                with pytest.raises(WeightsError, match=r"model\.ckpt"):
                    read_checkpoint(tensorflow_prefix)
        path.write_bytes(good)


def test_each_cut_is_noticed(tensorflow_prefix: Path) -> None:
    for suffix in TENSORFLOW_FILES:
        path = Path(f"{tensorflow_prefix}{suffix}")
        good = path.read_bytes()
        for size in range(len(good)):
            path.write_bytes(good[:size])
            with pytest.raises(WeightsError, match=r"is cut|is damaged"):
                read_checkpoint(tensorflow_prefix)
        path.write_bytes(good)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_as_a_message(data: bytes) -> None:
    for parse in (tensorflow_entries.parse_entry, tensorflow_entries.parse_header):
        with contextlib.suppress(FormatError):
            parse(data)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=80),
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_any_bytes_as_a_table(data: bytes, metaindex: int, index: int, size: int) -> None:
    # Blocks whose checksums are right, so that what they hold is looked at.
    body = data + b"\0" + masked_crc(data + b"\0").to_bytes(4, "little")
    handles = varint(metaindex) + varint(size) + varint(index) + varint(len(data))
    table = body + handles.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")
    whole = varint(0) + varint(len(data)) + varint(0) + varint(len(data))
    same = body + whole.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")
    for content in (data, table, same):
        with contextlib.suppress(FormatError, UnsupportedError):
            list(tensorflow_table.read_table(content))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, (1 << 64) - 1), st.binary(max_size=3))
def test_varints(value: int, rest: bytes) -> None:
    data = varint(value)
    assert read_varint(data + rest, 0) == (value, len(data))
    with pytest.raises(FormatError):
        read_varint(data[:-1], 0)


@pytest.mark.parametrize("data", [b"\x80" * 10 + b"\x01", b"\xff" * 9 + b"\x02", b"\x8e\0"])
def test_numbers_that_no_writer_writes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_varint(data, 0)


DATA = bytes(8)
GOOD = entry_record(DATA, [2])
HUGE = 1 << 60


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "header"),
        ([(b"a", GOOD)], "header"),
        ([(b"", header_record(0))], "data files must be > 0"),
        ([(b"", header_record(-1))], "data files must be > 0"),
        ([(b"", header_record(endianness=1))], "endianness must be 0"),
        ([(b"", header_record(version=b"\x08\x02\x10\x02"))], "format version 2"),
        ([(b"", header_record(version=b"\x08\x01\x1a\x01\x01"))], r"not of \[1\]"),
        ([(b"", header_record(version=b"\x08\x01\x18\x01"))], r"not of \[1\]"),
        ([(b"", b"\x0b")], "wire type 3"),
        ([(b"", header_record()), (b"a", b"\x0d\0\0\0\0")], "wire type 5, expected 0"),
        ([(b"", header_record()), (b"a", b"\x12\x7f")], "127 bytes"),
        ([(b"", header_record()), (b"a", GOOD), (b"a", GOOD)], "ascend"),
        ([(b"", header_record()), (b"b", GOOD), (b"a", GOOD)], "ascend"),
        ([(b"", header_record()), (b"\xff\xfe", GOOD)], "UTF-8"),
        (
            [(b"", header_record()), (b"a", entry_record(DATA, [2], extra=bytes_field(7, b"")))],
            "partitioned",
        ),
        ([(b"", header_record()), (b"\0a\0\1", GOOD)], "partitioned"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [2], shard=1))], "1 data files, got 1"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [2], shard=-1))], "got -1"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [2], offset=-8))], "got -8"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [-1]))], "known shape"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [3]))], "must have 12 bytes, got 8"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [HUGE, HUGE]))], "bytes, got 8"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [1] * 33))], "32 dimensions"),
        ([(b"", header_record()), (b"a", GOOD), (b"b", GOOD)], "overlap"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [2], offset=8))], "is cut"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [HUGE], size=4 * HUGE))], "is cut"),
        ([(b"", header_record()), (b"a", entry_record(b"12345678", [2]))], "CRC-32C"),
        ([(b"", header_record(2)), (b"a", GOOD)], "does not exist"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [1], 7))], "type string"),
        ([(b"", header_record()), (b"a", entry_record(DATA, [1], 99))], "number 99"),
        ([(b"", header_record()), (b"a", b"")], "number 0"),
    ],
)
def test_contents_that_are_refused(tmp_path: Path, records: Records, message: str) -> None:
    write_table(tmp_path / "x.index", records)
    (tmp_path / "x.data-00000-of-00001").write_bytes(DATA)
    with pytest.raises(WeightsError, match=message) as caught:
        read_checkpoint(tmp_path / "x")
    assert str(tmp_path / "x.") in str(caught.value)


def test_a_good_record_among_them_is_not(tmp_path: Path) -> None:
    write_table(tmp_path / "x.index", [(b"", header_record()), (b"a", GOOD)])
    (tmp_path / "x.data-00000-of-00001").write_bytes(DATA)
    assert_same(read_checkpoint(tmp_path / "x"), {"a": np.zeros(2, np.float32)})


def test_a_tensor_that_is_no_number_does_not_keep_the_others_from_being_read(
    tmp_path: Path,
) -> None:
    strings = entry_record(b"", [1], 7, offset=8)
    write_table(tmp_path / "x.index", [(b"", header_record()), (b"a", GOOD), (b"graph", strings)])
    (tmp_path / "x.data-00000-of-00001").write_bytes(DATA)
    bundle = TensorBundle(tmp_path / "x")
    assert bundle.names == ("a", "graph")
    assert bundle.read("a").tolist() == [0, 0]


def test_compressed_blocks_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "x.index", [(b"", header_record())], compression=1)
    with pytest.raises(WeightsError, match=r"snappy.*save the checkpoint again"):
        TensorBundle(tmp_path / "x")


def test_a_missing_tensor_is_named(tensorflow_prefix: Path) -> None:
    with pytest.raises(WeightsError, match=r"no tensor 'b', but 4 others"):
        TensorBundle(tensorflow_prefix).read("b")


def test_a_missing_index_says_what_a_prefix_is(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="prefix"):
        TensorBundle(tmp_path / "model.ckpt")


def test_an_index_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.index").mkdir()
    with pytest.raises(WeightsError, match=r"x\.index cannot be read"):
        TensorBundle(tmp_path / "x")


def test_an_index_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.index").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(WeightsError, match="got 1099511627776"):
        TensorBundle(tmp_path / "x")


def test_few_bytes_do_not_become_endless_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorflow_table, "MAX_INDEX_BYTES", 20_000)
    first = b"a" * 2000
    names = [first, *(first + bytes([letter]) for letter in range(98, 110))]
    write_table(tmp_path / "x.index", [(b"", header_record()), *((n, GOOD) for n in names)])
    with pytest.raises(WeightsError, match="20000 bytes together"):
        TensorBundle(tmp_path / "x")


def test_a_block_is_not_read_twice(tmp_path: Path) -> None:
    # Without names in it, nothing but its place would tell; many handles to it would take for ever.
    empty = block([])
    typed = empty + b"\0"
    body = typed + masked_crc(typed).to_bytes(4, "little")
    handle = varint(0) + varint(len(empty))
    index = block([(bytes([letter]), handle) for letter in range(97, 99)], 1) + b"\0"
    handles = handle + varint(len(body)) + varint(len(index) - 1)
    (tmp_path / "x.index").write_bytes(
        body
        + index
        + masked_crc(index).to_bytes(4, "little")
        + handles.ljust(40, b"\0")
        + 0xDB4775248B80FB57.to_bytes(8, "little")
    )
    with pytest.raises(WeightsError, match="in their order, got 0 after 8"):
        TensorBundle(tmp_path / "x")
