"""Small matrix products in compiled code, their sums in registers. Loads numba: import it when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 128  # targets that go through together: a few vectors of the processor
ROWS = 6  # rows of a product that stay in registers; four where six do not fit
BYTES = 64  # of each of these rows
FLOATS = BYTES // 4

F = TypeVar("F", bound=Callable[..., Any])


def compile_function(*flags: str) -> Callable[[F], F]:
    """Return a decorator that compiles a function when it is first called, and keeps the result on disk.

    Parameters
    ----------
    flags : further flags of LLVM's fast arithmetic that the numbers allow
    """
    decorator: Callable[[F], F] = numba.njit(
        nogil=True, cache=True, fastmath={"reassoc", "contract", *flags}, error_model="numpy"
    )
    return decorator


def padded(n: int) -> int:
    """Return the smallest number of rows, at least n, that tiles of six and four rows cover: even, and not two.

    >>> [padded(n) for n in (1, 4, 5, 7, 12, 15)]
    [4, 4, 6, 8, 12, 16]
    """
    return max(4, n + n % 2)


def _tile_types(n: int) -> Callable[..., Any]:
    """Return the types of a tile's arguments and the code that writes its instructions: numba's form of an intrinsic.

    A tile is n rows by BYTES bytes of (start + coefs @ rows) * by, from row i and column v on. Its sums stay in registers
    over all columns of `coefs`; loops over arrays store them each time, which takes half as long again. Vectors are
    LLVM's own, for any processor.
    """

    def tile(typing_context: Any, out: Any, i: Any, v: Any, start: Any, coefs: Any, first: Any, rows: Any, u: Any, by: Any) -> Any:  # fmt: skip
        arrays = {0: out, 3: start, 4: coefs, 6: rows, 8: by}

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def at(argument: int, row: Any, column: Any) -> Any:
                array = context.make_array(arrays[argument])(context, builder, args[argument])
                return cgutils.get_item_pointer(context, builder, arrays[argument], array, [row, column])

            number = context.get_value_type(out.dtype)
            size = context.get_abi_sizeof(number)
            vector = ir.VectorType(number, BYTES // size)
            pointer, index, lane_type = vector.as_pointer(), args[1].type, ir.IntType(32)

            def read(argument: int, row: Any, column: Any) -> Any:
                return builder.load(builder.bitcast(at(argument, row, column), pointer), align=size)

            def spread(value: Any) -> Any:
                lane = builder.insert_element(ir.Constant(vector, ir.Undefined), value, lane_type(0))
                zeros = ir.Constant(ir.VectorType(lane_type, BYTES // size), None)
                return builder.shuffle_vector(lane, lane, zeros)

            lines = [builder.add(args[1], index(r)) for r in range(n)]
            coef_lines = [builder.add(args[5], index(r)) for r in range(n)]
            totals = [cgutils.alloca_once(builder, vector) for _ in lines]
            for line, total in zip(lines, totals, strict=True):
                begin = ir.Constant(vector, None) if start is types.none else read(3, line, args[2])
                builder.store(begin, total)
            shape = context.make_array(coefs)(context, builder, args[4]).shape
            n_columns = cgutils.unpack_tuple(builder, shape)[1]
            with cgutils.for_range(builder, n_columns) as loop:
                x = read(6, loop.index, args[7])
                for line, total in zip(coef_lines, totals, strict=True):
                    part = builder.fmul(spread(builder.load(at(4, line, loop.index))), x, flags=("contract",))
                    builder.store(builder.fadd(builder.load(total), part, flags=("contract",)), total)
            for line, total in zip(lines, totals, strict=True):
                value = builder.load(total)
                value = value if by is types.none else builder.fmul(value, read(8, line, args[2]))
                builder.store(value, builder.bitcast(at(0, line, args[2]), pointer), align=size)
            return context.get_dummy_value()

        return types.void(out, i, v, start, coefs, first, rows, u, by), codegen

    return tile


_tile4, _tile6 = intrinsic(_tile_types(4)), intrinsic(_tile_types(ROWS))


@compile_function()
def multiply(
    out: np.ndarray, start: np.ndarray | None, coefs: np.ndarray, rows: np.ndarray, by: np.ndarray | None
) -> None:
    """Write (start + coefs @ rows) * by, without start or by where they are None.

    Parameters
    ----------
    out, start, by : (n, LANES), n from `padded`
    coefs : (n, k)
    rows : (k, LANES)
    """
    n, step = coefs.shape[0], BYTES // out.itemsize
    # multiples of six, after one tile of four rows or two
    short = 4 * ((6 - n % 6) // 2 % 3) if n > 2 else 0
    for v in range(0, LANES, step):
        for i in range(0, short, 4):
            _tile4(out, i, v, start, coefs, i, rows, v, by)
        for i in range(short, n, ROWS):
            _tile6(out, i, v, start, coefs, i, rows, v, by)


@compile_function()
def project(out: np.ndarray, panels: np.ndarray, begin: int, end: int, rows: np.ndarray, first: int) -> None:
    """Multiply columns with responses over rows: out[i, v] = Σₖ panels[i // 6, k, i % 6] · rows[v // 16, first + k − begin, v % 16].

    Parameters
    ----------
    out : (n_panels · ROWS, n) float32, n a multiple of FLOATS
    panels : (n_panels, n_rows, ROWS) float32, see `panels_of`
    begin, end : the rows of the panels to use
    rows : (n / FLOATS, n_rows, FLOATS) float32
    first : the first row to use
    """
    for u in range(rows.shape[0]):
        part = rows[u, first : first + end - begin]
        for t in range(panels.shape[0]):
            _tile6(out, t * ROWS, u * FLOATS, None, panels[t, begin:end].T, 0, part, 0, None)


@compile_function()
def pack_rows(out: np.ndarray, y: np.ndarray, order: np.ndarray, v0: int, size: int) -> None:
    """Write rows in a given order, vector by vector: out[u, i, v] = y[order[i], v0 + u · FLOATS + v]."""
    n_vectors = size // FLOATS
    for i in range(len(order)):
        row = y[order[i], v0 : v0 + size]
        for u in range(n_vectors):
            line, part = out[u, i], row[u * FLOATS : u * FLOATS + FLOATS]
            for v in range(FLOATS):
                line[v] = part[v]
        for v in range(n_vectors * FLOATS, size):
            out[n_vectors, i, v % FLOATS] = row[v]


def contiguous_rows(y: np.ndarray) -> np.ndarray:
    """Return responses with rows that compiled code knows to be contiguous; further columns are not to be read.

    Some columns of a matrix are rows with gaps to numba, which reads them one number at a time.
    """
    if y.strides[1] != y.itemsize or y.strides[0] < y.itemsize * y.shape[1]:
        return np.ascontiguousarray(y)
    shape = (len(y), y.strides[0] // y.itemsize)
    return np.lib.stride_tricks.as_strided(y, shape, y.strides, writeable=False)


def panels_of(columns: np.ndarray) -> np.ndarray:
    """Split columns into panels of ROWS, padded with zeros: (n_rows, m) → (n_panels, n_rows, ROWS) float32."""
    n_rows, m = columns.shape
    n_panels = -(-m // ROWS)
    wide = np.zeros((n_rows, n_panels * ROWS), np.float32)
    wide[:, :m] = columns
    return np.ascontiguousarray(wide.reshape(n_rows, n_panels, ROWS).swapaxes(0, 1))
