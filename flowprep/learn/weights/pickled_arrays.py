"""Reads pickles of arrays, as Caffe2's tools wrote them in Python 2. Nothing in a file is executed.

A pickle is a program for a small machine with a stack: it pushes values, joins them to containers,
and calls functions that it names. This machine knows the steps that plain values, containers and
numpy's arrays need, and no function but those of `_GLOBALS`, which it does not call either: it does
itself what they would do. Everything else is refused by its name.

Python 2 wrote its strings as bytes; names among them are read as latin-1. Protocols 0 to 5. The
steps have pickletools' names. Its `genops` is not used: it takes the strings of protocol 0 for
ASCII, which the bytes of arrays are not, and copies the others several times.

Sources: Lib/pickletools.py in python/cpython; array_reduce and array_setstate in numpy's
methods.c, arraydescr_reduce in its descriptor.c.
"""

from __future__ import annotations

import codecs
import math
import os
import pickletools
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import WeightsError
from flowprep.learn.weights.reading import FormatError, UnsupportedError, map_file, show

__all__ = ["PICKLE_SUFFIX", "read_pickled_arrays"]

PICKLE_SUFFIX = ".pkl"

BLOBS_KEY = "blobs"
"""Where Caffe2's tools put the arrays: VMZ's c2/tools/minidb_to_pickle.py, Detectron's net.py."""

MAX_STEPS = 1 << 20
"""An array takes about 30. It keeps a file of empty lists from becoming as many objects."""

_MAX_DIMS = 32
"""More than any array of numpy 1 has."""

_KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
"""The types of numbers that are read, by numpy's codes."""


def read_pickled_arrays(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Reads the arrays of a pickled dict, or of the dict under its key `blobs`.

    Other plain values in it, such as a learning rate's schedule as text, are left out. Raises
    WeightsError if the file is missing or damaged, holds no arrays, or holds more than arrays and
    plain containers.
    """
    path = Path(path)
    try:
        content = _Machine(map_file(path)).run()
    except FormatError as error:
        raise WeightsError(
            f"{path} is damaged or not a pickle: {error}; copy or download it again"
        ) from error
    except UnsupportedError as error:
        raise WeightsError(
            f"{path} must hold only arrays and plain containers, got {error}, or is damaged; a "
            "pickle can run any code when it is loaded, so it is refused. If you trust whoever "
            "made it, convert it in a place where that code may run: "
            "safetensors.numpy.save_file(arrays, 'x.safetensors')"
        ) from error
    if isinstance(content, dict) and isinstance(content.get(BLOBS_KEY), dict):
        content = content[BLOBS_KEY]
    arrays = _arrays(content)
    if not arrays:
        raise WeightsError(
            f"{path} must hold a dict of arrays, alone or under {BLOBS_KEY!r}, got "
            f"{type(content).__name__} without any; name a file of weights"
        )
    return arrays


def _arrays(content: object) -> dict[str, NDArray[Any]]:
    if not isinstance(content, dict):
        return {}
    return {
        name: value.values
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, _Array) and value.values is not None
    }


class _Array:
    """An array: empty at first, as numpy's _reconstruct makes it, and filled by its state."""

    values: NDArray[Any] | None = None


class _Type:
    """A dtype: its code, and then its byte order, which its state brings."""

    def __init__(self, code: str) -> None:
        if code not in _KINDS:
            raise UnsupportedError(f"arrays of numpy's type {code[:20]!r}")
        self._code = code
        self.value: np.dtype[Any] = np.dtype(code)

    def set_order(self, order: str) -> None:
        if order not in ("<", ">", "|", "="):
            raise FormatError(f"a byte order must be <, >, | or =, got {order[:20]!r}")
        self.value = np.dtype(order + self._code)


class _Global:
    """A function or class that the file names."""

    def __init__(self, name: str) -> None:
        self.name = name


_MARK = object()


class _Machine:
    """Goes through a pickle; `run` returns what it builds.

    Raises FormatError for what no pickle has, UnsupportedError, which names it, for what is not
    allowed.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._map: Any = data.obj
        self._position = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._made = {"text": 0, "arrays": 0}
        """Bytes that were copied: a file could ask for the same bytes many times."""

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            start = self._position
            code = chr(self.take(1)[0])
            name = _NAMES.get(code)
            if name is None:
                raise FormatError(f"byte {start} is {code!r}, which begins no step of a pickle")
            if name == "STOP":
                if self._position != len(self._data):
                    rest = len(self._data) - self._position
                    raise FormatError(f"{rest} bytes follow its end at byte {self._position}")
                return self.pop()
            try:
                self.do(name)
            except (FormatError, UnsupportedError) as error:
                raise type(error)(f"{error} (byte {start})") from error
        raise FormatError(f"it must have {MAX_STEPS} steps at most")

    def do(self, name: str) -> None:
        if name in _VALUES:
            self._stack.append(_VALUES[name](self))
        elif name in _STEPS:
            _STEPS[name](self)
        else:
            raise UnsupportedError(f"the pickle's step {name}")

    # ---- bytes

    def take(self, size: int) -> memoryview:
        part = self._data[self._position : self._position + size]
        if len(part) != size:
            raise FormatError(f"it needs {size} bytes at byte {self._position}, got {len(part)}")
        self._position += size
        return part

    def number(self, kind: str) -> Any:
        """Takes a number of struct's format `kind`."""
        return struct.unpack(kind, self.take(struct.calcsize(kind)))[0]

    def sized(self, kind: str) -> memoryview:
        """Takes a length and so many bytes."""
        size: int = self.number(kind)
        if size < 0:
            raise FormatError(f"a length must be >= 0, got {size}")
        return self.take(size)

    def line(self, most: int = 1000) -> bytes:
        """Takes a line, without its end."""
        end: int = self._map.find(b"\n", self._position)
        if not 0 <= end - self._position <= most:
            raise FormatError(f"a line must end within {most} bytes")
        return bytes(self.take(end + 1 - self._position)[:-1])

    def decimal(self) -> int | bool:
        """Takes a number written out, or True or False as Python 2 wrote them."""
        text = self.line().removesuffix(b"L")
        if text in (b"00", b"01"):
            return text == b"01"
        if not re.fullmatch(rb"[+-]?[0-9]+", text):
            raise FormatError(f"a number must be written in digits, got {show(text)}")
        return int(text)

    def quoted(self) -> bytes:
        """Takes a string as Python 2's repr wrote it."""
        text = self.line(len(self._data))
        if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
            raise FormatError("a string must be in quotes")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # for an escape that Python does not know
            try:
                return codecs.escape_decode(text[1:-1])[0]
            except (ValueError, Warning) as error:
                raise FormatError(f"a string is no Python string: {error}") from error

    # ---- the stack

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise FormatError("a step needs a value that is not there")
        return self._stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                found = self._stack[place + 1 :]
                del self._stack[place:]
                return found
        raise FormatError("a step needs a mark that is not there")

    def pop_some(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def put(self, key: int) -> None:
        value = self.pop()
        self._memo[key] = value
        self.push(value)

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, key: int) -> None:
        if key not in self._memo:
            raise FormatError(f"it asks for its value {key}, which it has not stored")
        self.push(self._memo[key])

    # ---- containers

    def extend(self, values: list[Any]) -> None:
        target = self.pop()
        if not isinstance(target, list):
            raise FormatError(f"only a list can be extended, got {_told(target)}")
        target.extend(values)
        self.push(target)

    def set_items(self, values: list[Any]) -> None:
        target = self.pop()
        if not isinstance(target, dict):
            raise FormatError(f"only a dict can have items, got {_told(target)}")
        target.update(_pairs(values))
        self.push(target)

    # ---- functions and classes

    def find(self, module: str, name: str) -> None:
        path = f"{module} {name}"
        if path not in _GLOBALS:
            raise UnsupportedError(f"the name {show(f'{module}.{name}'.encode())}")
        self.push(_Global(_GLOBALS[path]))

    def find_on_stack(self) -> None:
        module, name = self.pop_some(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise FormatError("a name must be text")
        self.find(module, name)

    def reduce(self) -> None:
        """Does what the function that the file names would do with these arguments."""
        function, arguments = self.pop_some(2)
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise UnsupportedError(f"a call of {_told(function)}")
        match function.name, arguments:
            case "reconstruct", (_Global(name="ndarray"), tuple(), _):
                self.push(_Array())
            case "dtype", (code, *_):
                self.push(_Type(_text(code)))
            case "scalar", (_Type() as kind, data):
                self.push(self.fill(_Array(), (), kind, "C", data))
            case "frombuffer", (data, _Type() as kind, tuple() as shape, order):
                self.push(self.fill(_Array(), shape, kind, _text(order), data))
            case "encode", (str() as text, coding) if _text(coding) in ("latin1", "latin-1"):
                self.push(self.encode(text))
            case "bytes", ():
                self.push(b"")
            case "ordered dict", ():
                self.push({})
            case "ordered dict", (list() as pairs,):
                if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                    raise FormatError("the items of an OrderedDict must be pairs")
                self.push(_pairs([value for pair in pairs for value in pair]))
            case _:
                raise UnsupportedError(
                    f"a call of numpy's or Python's {function.name} in a way "
                    "that no pickle of an array has"
                )

    def encode(self, text: str) -> bytes:
        self.count("text", len(text))
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise FormatError("the bytes of an array are no latin-1") from error

    def count(self, kind: str, size: int) -> None:
        self._made[kind] += size
        if self._made[kind] > len(self._data):
            raise FormatError("its arrays must not share their bytes")

    def build(self) -> None:
        """Gives an array or a dtype its state."""
        target, state = self.pop_some(2)
        match target, state:
            case _Array(values=None), (
                (int(), tuple() as shape, _Type() as kind, is_fortran, data)
                | (tuple() as shape, _Type() as kind, is_fortran, data)
            ):
                self.push(self.fill(target, shape, kind, "F" if is_fortran else "C", data))
            case _Type(), (int(), order, None, None, None, *_):
                target.set_order(_text(order))
                self.push(target)
            case _:
                raise UnsupportedError(f"a state for {_told(target)}")

    def fill(
        self, array: _Array, shape: tuple[Any, ...], kind: _Type, order: str, data: object
    ) -> _Array:
        if not isinstance(data, bytes | memoryview) or order not in ("C", "F"):
            raise UnsupportedError(f"the values of an array as {_told(data)}")
        if len(shape) > _MAX_DIMS or not all(type(n) is int and n >= 0 for n in shape):
            raise FormatError(
                f"an array's shape must be {_MAX_DIMS} sizes >= 0 at most, got {str(shape)[:100]}"
            )
        size = math.prod(shape) * kind.value.itemsize
        if size != len(data):
            raise FormatError(f"an array of shape {shape} must have {size} bytes, got {len(data)}")
        self.count("arrays", size)
        values = np.frombuffer(data, kind.value).reshape(shape, order="F" if order == "F" else "C")
        array.values = np.array(values, kind.value.newbyteorder("="), order="C")
        return array


def _text(value: object) -> str:
    """Returns a string, which Python 2 wrote as bytes."""
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("latin-1")
    if not isinstance(value, str):
        raise FormatError(f"text must stand here, got {_told(value)}")
    return value


def _pairs(values: list[Any]) -> dict[str | int, Any]:
    if len(values) % 2:
        raise FormatError("a dict must have a value for each key")
    keys = (key if type(key) is int else _text(key) for key in values[::2])
    return dict(zip(keys, values[1::2], strict=True))


def _told(value: object) -> str:
    """Returns what a value is, for a message. Never its contents, which may be endless."""
    if isinstance(value, _Global):
        return value.name
    return {_Array: "an array", _Type: "a dtype"}.get(type(value), type(value).__name__)


_NAMES = {step.code: step.name for step in pickletools.opcodes}

_GLOBALS = {
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",  # Python 3 writes bytes so in protocols 0 to 2
    "__builtin__ bytes": "bytes",
    "collections OrderedDict": "ordered dict",
}
for _module in ("numpy.core", "numpy._core"):  # until numpy 1 and from numpy 2
    _GLOBALS[f"{_module}.multiarray _reconstruct"] = "reconstruct"
    _GLOBALS[f"{_module}.multiarray scalar"] = "scalar"
    _GLOBALS[f"{_module}.numeric _frombuffer"] = "frombuffer"

_VALUES: dict[str, Callable[[_Machine], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
    "MARK": lambda _: _MARK,
    "INT": _Machine.decimal,
    "LONG": _Machine.decimal,
    "BININT": lambda machine: machine.number("<i"),
    "BININT1": lambda machine: machine.number("<B"),
    "BININT2": lambda machine: machine.number("<H"),
    "LONG1": lambda machine: int.from_bytes(machine.sized("<B"), "little", signed=True),
    "FLOAT": lambda machine: _float(machine.line()),
    "BINFLOAT": lambda machine: machine.number(">d"),
    "STRING": _Machine.quoted,
    "BINSTRING": lambda machine: machine.sized("<i"),
    "SHORT_BINSTRING": lambda machine: machine.sized("<B"),
    "BINBYTES": lambda machine: machine.sized("<I"),
    "SHORT_BINBYTES": lambda machine: machine.sized("<B"),
    "BINBYTES8": lambda machine: machine.sized("<Q"),
    "BYTEARRAY8": lambda machine: machine.sized("<Q"),
    "UNICODE": lambda machine: _unicode(machine.line(1 << 62), "raw-unicode-escape"),
    "BINUNICODE": lambda machine: _unicode(machine.sized("<I"), "utf-8"),
    "SHORT_BINUNICODE": lambda machine: _unicode(machine.sized("<B"), "utf-8"),
    "BINUNICODE8": lambda machine: _unicode(machine.sized("<Q"), "utf-8"),
    "TUPLE": lambda machine: tuple(machine.pop_to_mark()),
    "TUPLE1": lambda machine: tuple(machine.pop_some(1)),
    "TUPLE2": lambda machine: tuple(machine.pop_some(2)),
    "TUPLE3": lambda machine: tuple(machine.pop_some(3)),
    "LIST": _Machine.pop_to_mark,
    "DICT": lambda machine: _pairs(machine.pop_to_mark()),
}
"""Steps that push a value."""

_STEPS: dict[str, Callable[[_Machine], Any]] = {
    "PROTO": lambda machine: machine.number("<B"),
    "FRAME": lambda machine: machine.number("<Q"),
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_to_mark,
    "PUT": lambda machine: machine.put(machine.decimal()),
    "BINPUT": lambda machine: machine.put(machine.number("<B")),
    "LONG_BINPUT": lambda machine: machine.put(machine.number("<I")),
    "MEMOIZE": _Machine.memoize,
    "GET": lambda machine: machine.get(machine.decimal()),
    "BINGET": lambda machine: machine.get(machine.number("<B")),
    "LONG_BINGET": lambda machine: machine.get(machine.number("<I")),
    "APPEND": lambda machine: machine.extend(machine.pop_some(1)),
    "APPENDS": lambda machine: machine.extend(machine.pop_to_mark()),
    "SETITEM": lambda machine: machine.set_items(machine.pop_some(2)),
    "SETITEMS": lambda machine: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": lambda machine: machine.find(
        _unicode(machine.line(), "ascii"), _unicode(machine.line(), "ascii")
    ),
    "STACK_GLOBAL": _Machine.find_on_stack,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
"""Steps that change the stack otherwise."""


def _float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise FormatError(f"a number must be written in digits, got {show(text)}") from error


def _unicode(text: bytes | memoryview, coding: str) -> str:
    try:
        return bytes(text).decode(coding)
    except UnicodeDecodeError as error:
        raise FormatError(f"a text is not {coding}: {show(text)}") from error
