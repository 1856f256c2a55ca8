"""Every operation on vectors does what numpy does lane by lane, on all kinds of numbers."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.flow import simd

FloatArray = NDArray[np.float32]

LANES = simd.NUM_LANES
COVERED = {"NUM_LANES", "Lanes", "IntLanes"}
HAS_FMA = platform.machine() in ("arm64", "aarch64") or bool(
    llvmlite.binding.get_host_cpu_features().get("fma")
)

LARGEST, SMALLEST = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
SPECIAL = np.float32(
    (
        *(0.0, 1.0, 0.1, 2.5, 16777217, 1.2e-38, SMALLEST, LARGEST, np.inf),
        *(-0.0, -1.0, -3.5, -SMALLEST, -LARGEST, -np.inf, np.nan),
    )
)


def covers(*names: str) -> Callable[[Any], Any]:
    COVERED.update(names)
    return lambda function: function


def test_every_exported_operation_is_tested_here() -> None:
    assert set(simd.__all__) == COVERED


def random_lanes(seed: int, count: int = 1) -> FloatArray:
    """`count` vectors side by side: random ones of many magnitudes."""
    rng = np.random.default_rng(seed)
    exponents = rng.integers(-20, 20, count * LANES)
    return np.ldexp(rng.standard_normal(count * LANES), exponents).astype(np.float32)


def lanes_of_all_kinds() -> list[FloatArray]:
    return [SPECIAL, SPECIAL[::-1].copy(), np.roll(SPECIAL, 5), *map(random_lanes, range(5))]


def assert_same_bits(found: FloatArray, expected: Any) -> None:
    """Equal, with the sign of zeros; any NaN is as good as another."""
    expected = np.asarray(expected, np.float32)
    np.testing.assert_array_equal(found, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(expected)[number])


class Operation:
    """A compiled kernel that applies an operation to one to four vectors."""

    def __init__(self, operation: Any, num_vectors: int) -> None:
        load, store = simd.load, simd.store

        @numba.njit
        def one(x, out):
            store(out, 0, operation(load(x, 0)))

        @numba.njit
        def two(x, out):
            store(out, 0, operation(load(x, 0), load(x, 16)))

        @numba.njit
        def three(x, out):
            store(out, 0, operation(load(x, 0), load(x, 16), load(x, 32)))

        @numba.njit
        def four(x, out):
            store(out, 0, operation(load(x, 0), load(x, 16), load(x, 32), load(x, 48)))

        self._kernel = (one, two, three, four)[num_vectors - 1]

    def __call__(self, *vectors: FloatArray) -> FloatArray:
        out = np.empty(LANES, np.float32)
        self._kernel(np.concatenate(vectors), out)
        return out


# ---- arithmetic


@numba.njit
def add(x, y):
    return x + y


@numba.njit
def subtract(x, y):
    return x - y


@numba.njit
def multiply(x, y):
    return x * y


@numba.njit
def divide(x, y):
    return x / y


@covers("minimum", "maximum")
@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (add, np.add),
        (subtract, np.subtract),
        (multiply, np.multiply),
        (divide, np.divide),
        # Where either is NaN, or both are zero, the second.
        (simd.minimum, lambda x, y: np.where(x < y, x, y)),
        (simd.maximum, lambda x, y: np.where(x > y, x, y)),
    ],
    ids=["+", "-", "*", "/", "minimum", "maximum"],
)
def test_two_vectors(operation: Any, expected: Callable[..., Any]) -> None:
    run = Operation(operation, 2)
    for x in lanes_of_all_kinds():
        for y in lanes_of_all_kinds():
            with np.errstate(all="ignore"):
                assert_same_bits(run(x, y), expected(x, y))


@covers("sqrt", "floor")
@pytest.mark.parametrize(("operation", "expected"), [(simd.sqrt, np.sqrt), (simd.floor, np.floor)])
def test_one_vector(operation: Any, expected: Callable[..., Any]) -> None:
    run = Operation(operation, 1)
    for x in (*lanes_of_all_kinds(), np.linspace(-3, 3, LANES, dtype=np.float32)):
        with np.errstate(all="ignore"):
            assert_same_bits(run(x), expected(x))


@covers("fma")
def test_fma_rounds_once_where_the_processor_can() -> None:
    run = Operation(simd.fma, 3)
    rng = np.random.default_rng(0)
    for _ in range(50):
        # So near to each other that double precision holds the sum exactly.
        x, y = rng.uniform(1, 2, (2, LANES)).astype(np.float32)
        z = -rng.uniform(1, 4, LANES).astype(np.float32)
        once = (x.astype(np.float64) * y + z).astype(np.float32)
        assert_same_bits(run(x, y, z), once if HAS_FMA else x * y + z)
        assert not np.array_equal(once, x * y + z)


def test_operators_are_not_joined() -> None:
    @numba.njit
    def multiply_then_add(x, y, z):
        return x * y + z

    run = Operation(multiply_then_add, 3)
    rng = np.random.default_rng(1)
    for _ in range(50):
        x, y, z = rng.uniform(-2, 2, (3, LANES)).astype(np.float32)
        assert_same_bits(run(x, y, z), x * y + z)


@covers("where_less")
def test_where_less_chooses_lane_by_lane() -> None:
    run = Operation(simd.where_less, 4)
    a, b = random_lanes(8), random_lanes(9)
    for x in lanes_of_all_kinds():
        for y in lanes_of_all_kinds():
            assert_same_bits(run(x, y, a, b), np.where(x < y, a, b))


@covers("sum_lanes")
def test_sum_lanes_adds_halves_to_halves() -> None:
    @numba.njit
    def run(x):
        return simd.sum_lanes(simd.load(x, 0))

    for x in map(random_lanes, range(20)):
        expected = x
        while expected.size > 1:
            expected = expected[: expected.size // 2] + expected[expected.size // 2 :]
        assert run(x) == expected[0]
    assert isinstance(run(x), float)


@covers("sum_quarters")
def test_sum_quarters_gives_the_sum_of_each_argument_s_quarters() -> None:
    run = Operation(simd.sum_quarters, 4)
    for seed in range(20):
        vectors = np.split(random_lanes(seed, 4), 4)
        quarters = [vector.reshape(4, 4) for vector in vectors]
        expected = [(q[0] + q[2]) + (q[1] + q[3]) for q in quarters]
        assert_same_bits(run(*vectors), np.concatenate(expected))


# ---- whole numbers


@covers("to_int", "store_int")
def test_to_int_cuts_towards_zero() -> None:
    @numba.njit
    def run(x, out):
        simd.store_int(out, 3, simd.to_int(simd.load(x, 0)))

    x = np.array([0, -0.0, 0.9, -0.9, 1.5, -1.5, 2.5, 1e9, -1e9, 16777216, 3, -7], np.float32)
    x = np.concatenate([x, np.float32([2147483520, -2147483648, 1e-45, 127.999])])
    out = np.full(LANES + 6, -5, np.int32)
    run(x, out)
    np.testing.assert_array_equal(out[3:-3], np.trunc(x).astype(np.int64))
    assert (out[:3] == -5).all()
    assert (out[-3:] == -5).all()


@covers("broadcast_int", "to_float")
def test_whole_numbers_are_broadcast_calculated_with_and_made_float() -> None:
    @numba.njit
    def run(x, factor, term, out, floats):
        lanes = simd.to_int(simd.load(x, 0))
        result = lanes * simd.broadcast_int(factor) + simd.broadcast_int(term) - lanes
        simd.store_int(out, 0, result)
        simd.store(floats, 0, simd.to_float(result))

    x = np.arange(-8, 8, dtype=np.float32) * 1000
    out, floats = np.empty(LANES, np.int32), np.empty(LANES, np.float32)
    for factor, term in ((3, 7), (-5, 33_000_001), (200_000, 1)):
        run(x, np.int32(factor), np.int32(term), out, floats)
        expected = x.astype(np.int64) * factor + term - x.astype(np.int64)
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(floats, expected.astype(np.float32))


# ---- lanes and their order


@covers(
    "left_neighbor",
    "right_neighbor",
    "even_lanes",
    "odd_lanes",
    "interleave_low",
    "interleave_high",
)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("left_neighbor", lambda x, y: np.concatenate([x[-1:], y[:-1]])),
        ("right_neighbor", lambda x, y: np.concatenate([x[1:], y[:1]])),
        ("even_lanes", lambda x, y: np.concatenate([x[::2], y[::2]])),
        ("odd_lanes", lambda x, y: np.concatenate([x[1::2], y[1::2]])),
        ("interleave_low", lambda x, y: np.stack([x, y], axis=-1).ravel()[:LANES]),
        ("interleave_high", lambda x, y: np.stack([x, y], axis=-1).ravel()[LANES:]),
    ],
)
def test_lanes_of_two_vectors(name: str, expected: Callable[..., Any]) -> None:
    x, y = np.split(np.arange(2 * LANES, dtype=np.float32), 2)
    assert_same_bits(Operation(getattr(simd, name), 2)(x, y), expected(x, y))


@covers("every_fourth_from_0", "every_fourth_from_1", "every_fourth_from_2")
@pytest.mark.parametrize("first", [0, 1, 2])
def test_every_fourth_lane_of_four_vectors(first: int) -> None:
    x = np.arange(4 * LANES, dtype=np.float32)
    operation = getattr(simd, f"every_fourth_from_{first}")
    assert_same_bits(Operation(operation, 4)(*np.split(x, 4)), x[first::4])


@covers("transpose")
def test_transpose_exchanges_lanes_and_vectors() -> None:
    @numba.njit
    def run(x, out):
        simd.store_series(out, 0, 16, simd.transpose(simd.load_series(x, 0, 16, 16)))

    x = np.arange(LANES * LANES, dtype=np.float32)
    out = np.empty_like(x)
    run(x, out)
    np.testing.assert_array_equal(out.reshape(LANES, LANES), x.reshape(LANES, LANES).T)


@covers("broadcast", "lane_numbers")
def test_one_number_and_the_lanes_numbers() -> None:
    @numba.njit
    def run(value, out):
        simd.store(out, 0, simd.broadcast(value))
        simd.store(out, 16, simd.lane_numbers())

    out = np.empty(2 * LANES, np.float32)
    for value in SPECIAL:
        run(value, out)
        assert_same_bits(out[:LANES], np.full(LANES, value))
    assert_same_bits(out[LANES:], np.arange(LANES))


# ---- memory


@covers("load", "store")
def test_vectors_lie_anywhere_and_nothing_beside_them_is_written() -> None:
    @numba.njit
    def run(x, start, out, to):
        simd.store(out, to, simd.load(x, start))

    x = np.arange(64, dtype=np.float32)
    for start in range(33):
        for to in (0, 1, 5, 16, 31):
            out = np.full(64, -1, np.float32)
            run(x, start, out, to)
            expected = np.full(64, -1, np.float32)
            expected[to : to + LANES] = x[start : start + LANES]
            np.testing.assert_array_equal(out, expected)


def test_views_begin_at_their_own_first_element() -> None:
    @numba.njit
    def run(x, out):
        simd.store(out, 1, simd.load(x, 2))

    x, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    run(x[7:], out[3:])
    np.testing.assert_array_equal(out[4:20], x[9:25])
    assert np.count_nonzero(out) == LANES


@covers("load_broadcast", "load_quadrupled")
def test_single_numbers_are_spread_over_the_lanes() -> None:
    @numba.njit
    def run(x, index, out):
        simd.store(out, 0, simd.load_broadcast(x, index))
        simd.store(out, 16, simd.load_quadrupled(x, index))

    x = np.arange(100, 120, dtype=np.float32)
    out = np.empty(2 * LANES, np.float32)
    for index in range(17):
        run(x, index, out)
        np.testing.assert_array_equal(out[:LANES], x[index])
        np.testing.assert_array_equal(out[LANES:], np.repeat(x[index : index + 4], 4))


@covers("store_interleaved")
def test_store_interleaved_writes_four_vectors_by_turns() -> None:
    @numba.njit
    def run(x, out, to):
        a, b = simd.load(x, 0), simd.load(x, 16)
        c, d = simd.load(x, 32), simd.load(x, 48)
        simd.store_interleaved(out, to, a, b, c, d)

    x = np.arange(1, 4 * LANES + 1, dtype=np.float32)
    for to in (0, 3, 16):
        out = np.zeros(6 * LANES, np.float32)
        run(x, out, to)
        np.testing.assert_array_equal(out[to : to + 64], x.reshape(4, LANES).T.ravel())
        assert np.count_nonzero(out) == 64


@covers("load_each", "load_series", "store_series")
def test_many_vectors_are_loaded_and_stored_at_once() -> None:
    @numba.njit
    def run_each(x, i, j, k, out, to, step):
        simd.store_series(out, to, step, simd.load_each(x, (i, j, k)))

    @numba.njit
    def run_series(x, start, x_step, out, to, step):
        simd.store_series(out, to, step, simd.load_series(x, start, x_step, 3))

    x = np.arange(1, 129, dtype=np.float32)
    for starts in ((0, 40, 9), (112, 1, 0), (7, 7, 7)):
        out = np.zeros(128, np.float32)
        run_each(x, *starts, out, 5, 21)
        expected = np.zeros_like(out)
        for number, start in enumerate(starts):
            expected[5 + 21 * number :][:LANES] = x[start : start + LANES]
        np.testing.assert_array_equal(out, expected)
    for start, step in ((0, 16), (5, 33), (100, -30)):
        out = np.zeros(128, np.float32)
        run_series(x, start, step, out, 2, 40)
        expected = np.zeros_like(out)
        for number in range(3):
            expected[2 + 40 * number :][:LANES] = x[start + step * number :][:LANES]
        np.testing.assert_array_equal(out, expected)


@covers("sum_each", "difference_each", "fma_each")
def test_tuples_of_vectors_are_calculated_with_one_by_one() -> None:
    @numba.njit
    def run(x, sums, differences, products):
        a, b = simd.load_series(x, 0, 16, 3), simd.load_series(x, 48, 16, 3)
        simd.store_series(sums, 0, 16, simd.sum_each(a, b))
        simd.store_series(differences, 0, 16, simd.difference_each(a, b))
        simd.store_series(products, 0, 16, simd.fma_each(simd.load(x, 96), a, b))

    x = np.random.default_rng(0).uniform(1, 2, 7 * LANES).astype(np.float32)
    sums, differences, products = np.empty((3, 3 * LANES), np.float32)
    run(x, sums, differences, products)
    a, b, factor = x[:48], x[48:96], np.tile(x[96:], 3)
    assert_same_bits(sums, a + b)
    assert_same_bits(differences, a - b)
    once = (factor.astype(np.float64) * a + b).astype(np.float32)
    assert_same_bits(products, once if HAS_FMA else factor * a + b)


@covers("load_mixed")
def test_load_mixed_mixes_two_vectors_by_a_fraction_each() -> None:
    @numba.njit
    def run(x, positions, start, stride, fractions, place, out):
        mixed = simd.load_mixed(x, positions, start, stride, fractions, place)
        simd.store_series(out, 0, 16, mixed)

    rng = np.random.default_rng(0)
    x = rng.uniform(-100, 100, 400).astype(np.float32)
    positions = rng.integers(0, 30, 40, dtype=np.int32)  # of half vectors
    fractions = rng.uniform(0, 1, 40).astype(np.float32)
    out = np.empty((LANES, LANES), np.float32)
    start, stride, place = 5, 37, 11
    run(x, positions, start, stride, fractions, place, out.reshape(-1))
    for lane in range(LANES):
        first = 8 * positions[start + lane]
        a, b = x[first : first + LANES], x[first + stride : first + stride + LANES]
        expected = a + fractions[place + lane] * (b - a)
        np.testing.assert_allclose(out[lane], expected, rtol=0, atol=1e-4)


@covers("store_half_square")
def test_store_half_square_writes_half_of_each_vector() -> None:
    @numba.njit
    def run(x, out, to, stride):
        simd.store_half_square(out, to, stride, simd.load_series(x, 0, 16, 16))

    x = np.arange(1, LANES * LANES + 1, dtype=np.float32)
    for to, stride in ((0, 8), (3, 20)):
        out = np.zeros(16 * 20 + 16, np.float32)
        run(x, out, to, stride)
        expected = np.zeros_like(out)
        for row in range(LANES):
            expected[to + stride * row :][:8] = x[LANES * row :][:8]
        np.testing.assert_array_equal(out, expected)


@covers("copy")
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_copy_copies_numbers_and_no_more(kind: type) -> None:
    @numba.njit
    def run(target, to, source, start, count):
        simd.copy(target, to, source, start, count)

    source = np.arange(1, 60).astype(kind)
    for to, start, count in ((0, 0, 0), (3, 5, 1), (1, 2, 17), (0, 0, 59)):
        target = np.zeros(64, kind)
        run(target, to, source, start, count)
        expected = np.zeros(64, kind)
        expected[to : to + count] = source[start : start + count]
        np.testing.assert_array_equal(target, expected)


@covers("prefetch")
def test_prefetch_changes_nothing_even_where_there_is_no_element() -> None:
    @numba.njit
    def run(x, index):
        simd.prefetch(x, index)

    x = np.arange(32, dtype=np.float32)
    for index in (0, 31, -1, 10**9, -(10**12)):
        run(x, index)
    np.testing.assert_array_equal(x, np.arange(32))


@covers("load_int", "load_short", "shift_left", "shift_right")
def test_whole_numbers_are_loaded_and_shifted() -> None:
    @numba.njit
    def apply(ints, shorts, out):
        wide = simd.load_int(ints, 1) + simd.load_short(shorts, 3)
        simd.store_int(out, 0, simd.shift_left(wide, np.int32(3)))
        simd.store_int(out, 16, simd.shift_right(wide, np.int32(5)))

    rng = np.random.default_rng(0)
    ints = rng.integers(-(2**20), 2**20, 20, dtype=np.int32)
    shorts = rng.integers(-(2**15), 2**15, 20, dtype=np.int16)
    out = np.empty(32, np.int32)
    apply(ints, shorts, out)
    wide = ints[1:17] + shorts[3:19].astype(np.int32)
    np.testing.assert_array_equal(out[:16], wide * 8)
    np.testing.assert_array_equal(out[16:], np.floor_divide(wide, 32))


@covers("store_bytes")
def test_store_bytes_saturates_and_writes_eight_vectors_by_turns() -> None:
    @numba.njit
    def apply(x, out):
        load = simd.load_int
        lower = load(x, 0), load(x, 16), load(x, 32), load(x, 48)
        upper = load(x, 64), load(x, 80), load(x, 96), load(x, 112)
        simd.store_bytes(out, 2, lower + upper)

    x = np.random.default_rng(0).integers(-300, 600, 128, dtype=np.int32)
    x[:4] = -(2**31), 2**31 - 1, -1, 256
    out = np.full(132, 7, np.uint8)
    apply(x, out)
    np.testing.assert_array_equal(out[2:130], np.clip(x, 0, 255).reshape(8, 16).T.ravel())
    np.testing.assert_array_equal(out[[0, 1, 130, 131]], 7)


@covers("load_big_endian", "copy_word")
def test_words_are_loaded_the_first_byte_highest_and_copied_as_they_are() -> None:
    @numba.njit
    def apply(x, out):
        return simd.load_big_endian(x, 3), simd.copy_word(out, 1, x, 5)

    x = np.random.default_rng(0).integers(0, 256, 20, dtype=np.uint8)
    out = np.zeros(10, np.uint8)
    loaded, copied = apply(x, out)
    assert loaded == int.from_bytes(x[3:11].tobytes(), "big")
    assert copied == int.from_bytes(x[5:13].tobytes(), "little")
    np.testing.assert_array_equal(out, [0, *x[5:13], 0])


@covers("load_bytes_apart", "store_short", "mark_nonzero")
def test_bytes_are_loaded_apart_and_marked_and_shorts_are_stored() -> None:
    @numba.njit
    def apply(x, out, marks):
        vectors = simd.load_bytes_apart(x, 3)
        marked = simd.broadcast_int(np.int32(5))
        for i in range(8):
            simd.store_short(out, 1 + 16 * i, vectors[i] - simd.broadcast_int(np.int32(128)))
            marked = simd.mark_nonzero(marked, vectors[i], np.int32(8 << i))
        simd.store_int(marks, 0, marked)

    x = np.random.default_rng(0).integers(0, 4, 131, np.uint8)
    x[3:11] = 0
    out, marks = np.full(130, 7, np.int16), np.empty(16, np.int32)
    apply(x, out, marks)
    apart = x[3:].reshape(16, 8).T
    np.testing.assert_array_equal(out[1:129].reshape(8, 16), apart.astype(int) - 128)
    np.testing.assert_array_equal(out[[0, 129]], 7)
    powers = 8 << np.arange(8)[:, None]
    np.testing.assert_array_equal(marks, 5 + ((apart != 0) * powers).sum(axis=0))
    assert marks[0] == 5


@covers("lowest_bit")
def test_the_lowest_bit_is_found() -> None:
    @numba.njit
    def apply(word):
        return simd.lowest_bit(word)

    for bit in (0, 1, 31, 32, 63):
        assert apply(np.uint64((1 << 63) | (1 << bit))) == bit
    assert apply(np.uint64(0)) == 64
