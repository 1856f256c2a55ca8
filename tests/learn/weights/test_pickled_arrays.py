"""Pickles of arrays are read as Python 2 and 3 wrote them, and nothing in a pickle ever runs."""

from __future__ import annotations

import base64
import contextlib
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.errors import WeightsError
from flowprep.learn.weights import pickled_arrays
from flowprep.learn.weights.files import read_file, read_weights
from flowprep.learn.weights.pickled_arrays import read_pickled_arrays
from tests.learn.weights.caffe_files import drawn
from tests.learn.weights.memory import peak_bytes
from tests.learn.weights.pickle_files import python2_pickle

PYTHON2_FILES = {
    "cPickle, protocol 0": (
        "C}eOk3R5RyY;R(7Ckk*f3Mgc7GYVE_V_#wla5M^IZgp*Nc`jpba%C=Ub!>ELVRCX|c?w^0Wn*t{b98cbV{{5"
        "|H3}$WZgp*Nc?xc1VRCX|c?xhg3Mff13UpH^VkZi8QgAm4C`mC2C`mF3bYpIHZE$%CWOR9OWeRXO3Mf-"
        "2W;iDbNiYgYF$#22a5)MnNizylCq5?%PEJlqEinp7Einp7FbZ^HNiZ-9Qzt)Mcw#wRcsV&-csV&-csV&-"
        "csV&-csV&-"
        "csXG}X<T?QFkE;rFkE;rFkE;rFkE;rFkE;rFeeIhVsld`bairWWn?D`a4|3nXEh2aXEq8bNiYg@Qzv343UpF"
        "%F)<1#Nihm2NiqsaGYWKPI0`6JCuuS#3P~^uNihm^QgAUc3Mff43R5RMCkjqZPDw2>3P~+73P~^ubYe*`F$z"
        ";BTzD`rTzD`rTzD`uTzD`rTzD`sTzD`rTzD`vTzD`rTzD`tTzD`rTzD`wTzD`rCkk|8b5kd7Z**lR3UDzq3R"
        "5RxZXjHEWjP>WZe$=~TyAV>Ze=G5a4|Frb5kd6Z)9a`Uukq@awiIKF*OQjH3}$aHVP<7FbZ^2Ct@cGbW(6JH"
        "VP<7F$yS2F$#2NI0`6JCuuk*3P~^uNihm^QgAUh3Mff43R5RMCkjqZPDw2>3P~+73P~^ubYe*`FbY#ATzD`y"
        "TzD`rTzD`rTzD`rTzD`rTzD`rTzD`rTzD`rCkk|8b5kd5awiIKF*piiZgp*Nc`jpba%C=Ub!>ELVRCX|c?xr"
        "5VQgV?3UDzw3Mgkd3Mf-"
        "2W;7=XNiYgYF$#22a569oC`mI4Qztwp3QkT=Ni8u7Ni8u7NiYg@VpAtvcrY+rcrY+rcrY+OCkk{@a56Cpb5k"
        "c}ZE$pXCkk*fG74uk3Mgkb3Mff13UpH^VkZi8QgAXe3Mff23Mff13Q02xbZ0U!3P~_93R5R13Up#~Qzv6@Zg"
        "w$WcP9#PGBgTjH3}$aHVP<7FbZ^2Ct@cGbW(6KH3}$6F$yS2F$zgC3Q02xbZ0U!3P~_93R5RscrY+rcrY*^T"
        "zF$JTzD`rTzD`rTzF$JTzFz;TzD`rTzD`rTzD`rTzFz;TzD`rTzD`rTzD`rKU{b)FkE;rFkE<JFh5*)Ffd$r"
        "FfbrMCkk|8b8{{"
    ),
    "pickle, protocol 0": (
        "C}eOj3R5RyY;R(7Ckk*e3Mgc7G745^V_#wla5D;HZgp*Nc`jpba%C=Ub!>ELVRCX|c?w^0Wn*t{b98cbV{{5"
        "|GzutVZgp*Nc?xc1VRCX|c?xhf3Mff13UqKb3R5RyCkk*k3UqKd3Q}-"
        "63Mff23Mff33UqKWFbZRCb!~8Y3S@M7aAgW`F)<1#QzvFPCkk*eG73pB3P~{vbZ{{<3Q}+}Gzut5GYV5DJ|_"
        "xrF*OQKPEJWJF$zg7F$zgA3UqKWHVR@%Ffa;JCqG<xVmVxRIXPT-IXPT-IXPT-IXPT-IXPT-IblF)TzD}sTz"
        "D`rTzD`rTzD`rTzD`rTzD`rCkk*eHwtucF*pihb5kdDb#iWHWG4!6F*yonGzutZH3}$6FbZ^VGB65fHwtucG"
        "BFBLa56FqC`mC2C`mF3Nizy`a56IrXE8AfC{rhCGA9afGBgTFFbYXA3UqKXH40L2GBye*NizylCp;$#a56Uv"
        "PEJlqEinp7Einp7FbZ^VGB^riNiZ=AQzu+_Ffd$rFfd$rFf&|uFfd$rFfm+sFfd$rFf?3vFfd$rFfv?tFfd$"
        "rFg09wFfb<ya56axbZ|2;3Sx6pCvI<aWhV-7GcgKNCt+?NTzF+UAYpD~AYoi?Y-"
        "w&~Ckk*gG7583Cv9(JWo%z*bY*fU3UD(s3THG5C}%YaC`m91bZ|2?3THP8bZ|2@3Q}-"
        "0HVP<7F$yS2F$#2WGdBunF)<1#QzvOSCkk*gI0{KH3P~{vbZ|2{3Q}-"
        "1FbXJ1GYV5DJSPfpG%*TJPEJWJF$zg7F$zgA3UqKZG74fzFfa;JCtP?iH(YoyFkE;rFkE;rFkE;rFkE;rFkE"
        ";rFkE;rFeeIdG&2fxa5OXuVsld`Y;q?Ga5OavV{UbAaCt6cZ*pZWZFOvPX<>45VR;I3V_|Gzatd%XHVP<bF)"
        "<1#QzvFLCkk*hHwsBG3P~{vbZ|5{3Q}-"
        "1ISMFAGYV5DJSPfpH82WJPEJWJF$zg7F$zgA3UqKaF$!W+CtP?iFkE;rFkE;rFh3^>a5XXtbZ|8@3Q}-"
        "2GzxQ5CuMDLba^KVa5XgwXEX{ZXEh2aNiYg@a5XjxXEzFTa5XmyQgAgm3Mff23Mff13Q02xbZ|8}3THGq3P~"
        "_93R5R13UD?s3UqKbF$!XHQzv6@Zgw$WcP9#PHZlrlGzutZH3}$6FbZ^VHZuxmHwtucHZ%%Sa5gmxC`mC2C`"
        "mC2NiqsaGYWKYHZ}@pG&u@MFfa;JCtP?iFkE;rFd$rbV=!EJFfd$rFfd$rV=!EJVrE=;Ffd$rFfd$rFfd$rV"
        "rE=;Ffd$rFfd$rFfcz{crY+rcrY+rcw;a>TzD`rTzD`rAV4Pya5gszbZ|B}3Sx6}E&"
    ),
    "cPickle, protocol 2": (
        "fC7DS0aXQJY;R(7aRPmD11MMo0001HV_#x%1Y>S>ZE$%mV{dY0E^T#ebZKF7a$$K2Uvgz*Z*FsRa&=>L3ULK"
        "vZgp*Nc?xc1VRCX|c?xj`O8|vc0b++zaR(?%0ZRgfV{UbAaCr)3ba`-"
        "P3ULTk0%kZ%080UfQgI0=O9NE_K2A<fO8@`=|4RS=|Nlz>bYh8B5I?z@nVFfHnm}m~000000CZwi26T0DZe?"
        "U~3TOpr21@{iRRLm$QgI6?O94v)O9O^z2vq`UGD`qU0f$m?3@A$jRRKIsPEJby|Ns9=|NsC0O8|6Yh*b;#00"
        "RI400aO600jVaVpRlgZ**mG4OI_eZXoF(VQyp~VG3+%Ze?)}RSIoyWMyn$X>?_BaSvz(Xa-"
        "9Fg;fD!hf;A6C`$oL0flG?RRU=^O8`p&hf;A7C`$uX0X$AlPD=m(|Nlz=|Ns9>0CZxBRR{+F00000004AiRR"
        "U~saS~&0b!~8YE@N+UWiD-XY;<X1a&lpL3Ugy&Y+-T=aT90=RRU%-"
        "O8`p&hf;AAC`$uX0X$AlPD=m(|Nlz=|Ns9>0CZwi1ONa4KZa6q6;%agZE$pXaTaI=Xa-"
        "9Fg;fD!hf;ADC`$oL080agXcUQ60CZwi2V-w;b}?UfaTsU?Xa-"
        "9Fg;fD!hf;AFC`$oL0ZRf)1BYl7iB%W?03g5s0KmTh006%L002J#0Kh*003bkgVs&#a"
    ),
}
"""What Python 2.7.18 with numpy 1.16.6 wrote, in base 85:

    blobs = {
        "conv1_w": np.arange(6, dtype=np.float32).reshape(1, 2, 3) - 2.5,
        u"fc_b": np.array([0.1, 200.5], dtype=">f8"),
        "turned": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "model_iter": np.array([7], np.int64),
        "lr": np.float32(.5),
        "note": "an \\xe9 and a\\nline",
        "empty": np.zeros((0, 3), np.float32),
    }
    cPickle.dumps(dict(blobs=blobs), protocol)
"""
PYTHON2_VALUES: dict[str, NDArray[Any]] = {
    "conv1_w": np.arange(6, dtype=np.float32).reshape(1, 2, 3) - np.float32(2.5),
    "fc_b": np.array([0.1, 200.5]),
    "turned": np.arange(6, dtype=np.int16).reshape(2, 3),
    "model_iter": np.array([7], np.int64),
    "lr": np.array(0.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
}


def read(folder: Path, content: bytes) -> dict[str, NDArray[Any]]:
    (folder / "x.pkl").write_bytes(content)
    return read_pickled_arrays(folder / "x.pkl")


def assert_same(found: dict[str, NDArray[Any]], wanted: dict[str, NDArray[Any]]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].dtype.isnative, name
        assert found[name].flags.c_contiguous, name
        assert found[name].flags.writeable, name
        assert found[name].shape == value.shape, name
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("name", PYTHON2_FILES)
def test_what_python_2_wrote_is_read(tmp_path: Path, name: str) -> None:
    assert_same(read(tmp_path, base64.b85decode(PYTHON2_FILES[name])), PYTHON2_VALUES)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_what_python_3_writes_is_read(tmp_path: Path, protocol: int, kind: type) -> None:
    blobs = kind({"text": "a", "none": None, "numbers": [1, 2.5, True, 1 << 70, (3,)]})
    blobs |= PYTHON2_VALUES | {"also": PYTHON2_VALUES["conv1_w"]}
    blobs["turned"] = np.asfortranarray(blobs["turned"])
    wanted = PYTHON2_VALUES | {"also": PYTHON2_VALUES["conv1_w"]}
    assert_same(read(tmp_path, pickle.dumps({"blobs": blobs, "epoch": 3}, protocol)), wanted)
    assert_same(read(tmp_path, pickle.dumps(blobs, protocol)), wanted)


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "i4", "u1", "b1"])
def test_every_type_of_number(tmp_path: Path, protocol: int, kind: str) -> None:
    values = {"a": drawn(2, 3, 4).astype(kind), "b": drawn(700).astype(kind)}
    content = python2_pickle(values, protocol)
    assert_same(read(tmp_path, content), values)
    # The writer of these tests writes pickles: Python reads them too.
    ours = pickle.loads(content, encoding="latin1")["blobs"]
    assert_same({name: value.copy() for name, value in ours.items()}, values)


def test_the_reader_of_weights_takes_the_format_from_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(python2_pickle({"a": drawn(2)}))
    file = read_file(path)
    assert file.container == "pickle of arrays"
    assert torch.equal(file.tensors["a"], torch.from_numpy(drawn(2)))
    for is_zip in (True, False):
        torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=is_zip)
        assert read_weights(path)["a"].tolist() == [1, 1]


# --- What is refused ------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


class Plain:
    """An object with a state."""

    def __init__(self) -> None:
        self.value = 1


ATTACKS: dict[str, tuple[bytes, str]] = {
    "a call": (pickle.dumps({"a": Calls(eval, "1")}, 2), r"the name '__builtin__\.eval'"),
    "a call, protocol 4": (pickle.dumps({"a": Calls(eval, "1")}, 4), r"the name 'builtins\.eval'"),
    "os": (b"cos\nsystem\n(S'touch ran'\ntR.", r"the name 'os\.system'"),
    "INST": (b"(S'touch ran'\nios\nsystem\n.", "the pickle's step INST"),
    "OBJ": (b"(cnumpy\nndarray\no.", "the pickle's step OBJ"),
    "an object": (pickle.dumps({"a": Plain()}, 2), r"the name '.*\.Plain'|_reconstructor"),
    "NEWOBJ": (b"\x80\x02cnumpy\nndarray\n)\x81.", "the pickle's step NEWOBJ"),
    "a persistent id": (b"Ptouch ran\n.", "the pickle's step PERSID"),
    "an extension": (b"\x80\x02\x82\x01.", "the pickle's step EXT1"),
    "a buffer": (b"\x80\x05\x97.", "the pickle's step NEXT_BUFFER"),
    "getattr": (b"c__builtin__\ngetattr\n.", r"'__builtin__\.getattr'"),
    "a path in a name": (b"cnumpy\nndarray.tofile\n.", r"'numpy\.ndarray\.tofile'"),
    "another class": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(tS'b'\ntR.",
        "reconstruct in a way",
    ),
    "another coding": (b"c_codecs\nencode\n(Va\nVrot13\ntR.", "encode in a way"),
    "a call of a value": (b"I1\n(tR.", "a call of int"),
    "arguments that are none": (b"cnumpy\ndtype\nI1\nR.", "a call of dtype"),
    "a state of a dict": (b"}(t}b.", "a state for tuple"),
    "objects in an array": (pickle.dumps({"a": np.array([{}], object)}, 2), "numpy's type 'O8'"),
    "times in an array": (pickle.dumps({"a": np.zeros(1, "M8[s]")}, 2), "numpy's type 'M8'"),
    "columns in an array": (pickle.dumps({"a": np.zeros(1, "i4,f4")}, 2), "numpy's type 'V8'"),
    "a set": (pickle.dumps({"a": {1}}, 4), "the pickle's step EMPTY_SET"),
    "numpy's record": (
        b"cnumpy\ndtype\n(S'f4'\ntR(I3\nS'<'\nN(S'x'\ntNtb.",
        "a state for a dtype",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_all_but_arrays_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = ATTACKS[name]
    with pytest.raises(WeightsError, match=message) as caught:
        read(tmp_path, content)
    assert "x.pkl must hold only arrays and plain containers" in str(caught.value)
    assert "safetensors.numpy.save_file" in str(caught.value)
    assert not (tmp_path / "ran").exists()


def an_array(shape: bytes, data: bytes) -> bytes:
    """Returns an array with this tuple and these bytes, in protocol 1."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n("
        + shape
        + b"tcnumpy\ndtype\n(S'f4'\ntRI00\n"
        + (b"U" + bytes([len(data)]) + data)
        + b"tb"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"}", "needs 1 bytes at byte 1, got 0"),
        (b"\x89PNG\r\n\x1a\n", "is damaged"),
        (b"\xfe.", "begins no step"),
        (b"}.}", "1 bytes follow its end at byte 2"),
        (b".", "needs a value that is not there"),
        (b"(.", "needs a value that is not there"),
        (b"I1\nt.", "needs a mark that is not there"),
        (b"h\x07.", "asks for its value 7"),
        (b"Ione\n.", "written in digits, got 'one'"),
        (b"I--1\n.", "written in digits, got '--1'"),
        (b"Fone\n.", "written in digits, got 'one'"),
        (b"I" + b"1" * 5000 + b"\n.", "within 1000 bytes"),
        (b"Sone\n.", "in quotes"),
        (b"S'\\xz'\n.", "no Python string"),
        (b"S'\\q'\n.", "no Python string"),
        (b"X\x01\0\0\0\xff.", "not utf-8"),
        (b"T\xff\xff\xff\xff.", "a length must be >= 0, got -1"),
        (b"T\xff\xff\xff\x7fabc.", "needs 2147483647 bytes at byte 5, got 4"),
        (b"\x8e" + b"\xff" * 8 + b".", "needs 18446744073709551615 bytes"),
        (b"I1\nI1\na.", "only a list can be extended, got int"),
        (b"I1\n(I1\nI1\nu.", "only a dict can have items, got int"),
        (b"}(I1\nu.", "a value for each key"),
        (b"}((tI1\nu.", "text must stand here, got tuple"),
        (b"].", "got list without any"),
        (b"}.", "got dict without any"),
        (b"}(S'a'\nI1\nu.", "got dict without any"),
        (an_array(b"I2\n", bytes(4)) + b".", r"shape \(2,\) must have 8 bytes, got 4"),
        (an_array(b"I-1\n", bytes(4)) + b".", "sizes >= 0"),
        (an_array(b"I1\n" * 40, bytes(4)) + b".", "32 sizes"),
        (an_array(b"I999999999999\n" * 30, bytes(4)) + b".", "bytes, got 4"),
        (an_array(b"S'a'\n", bytes(4)) + b".", "sizes >= 0"),
        (b"cnumpy\ndtype\n(S'f4'\ntR(I3\nS'x'\nNNNtb.", "byte order must be"),
    ],
)
def test_damaged_pickles_say_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "x.pkl") in str(caught.value)
    assert len(str(caught.value)) < 1000


def shared_bytes(count: int) -> bytes:
    """Many arrays of the same stored bytes."""
    head, tail = an_array(b"I200\n", b"").split(b"U\0")
    data = b"T" + struct.pack("<i", 800) + bytes(800) + b"q\x00"
    arrays = [
        head.replace(b"200", b"200") + (b"h\x00" if number else data) + tail
        for number in range(count)
    ]
    return b"(" + b"".join(arrays) + b"t."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"}" * 3000, "1000 steps at most"),
        (b"(" * 3000, "1000 steps at most"),
        (shared_bytes(30), "must not share their bytes"),
        (
            b"(c_codecs\nencode\nq\x00(X\x20\x03\0\0"
            + b"a" * 800
            + b"q\x01Vlatin1\ntR"
            + b"h\x00(h\x01Vlatin1\ntR" * 200
            + b"t.",
            "must not share their bytes",
        ),
    ],
    ids=["dicts", "marks", "arrays", "texts"],
)
def test_few_bytes_do_not_become_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.setattr(pickled_arrays, "MAX_STEPS", 1000)

    def refused() -> None:
        with pytest.raises(WeightsError, match=message):
            read(tmp_path, content)

    assert peak_bytes(refused) < 1_000_000


FUZZED = [base64.b85decode(content) for content in PYTHON2_FILES.values()]
FUZZED += [pickle.dumps({"blobs": PYTHON2_VALUES}, protocol) for protocol in (4, 5)]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(FUZZED),
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 9), st.binary(max_size=9)),
        min_size=1,
        max_size=4,
    ),
)
def test_damaged_bytes_are_refused_or_read_within_bounds(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    changes: list[tuple[float, int, bytes]],
) -> None:
    for share, length, put in changes:
        place = int(share * len(content))
        content = content[:place] + put + content[place + length :]
    with contextlib.suppress(WeightsError):
        found = read(tmp_path_factory.getbasetemp(), content)
        assert sum(value.nbytes for value in found.values()) <= len(content)
