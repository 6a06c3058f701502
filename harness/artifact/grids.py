"""The grids a weight can be stored on, and the record of one stored tensor.

A quantized matrix keeps one signed integer per weight and one half-precision scale per row (or one for
the whole matrix), and optionally one factor per column: ``weight = code * scale[row] * factor[column]``. The grid's name fixes the largest code, its *clip range*:
``int5`` 15, ``int6`` 31, ``int8`` 127. Small control tensors (norms, gates, scales) stay floating point.

Numpy alone: the reading path of an artifact must not need torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from audit.contracts import InputError

#: Clip range of each integer grid: codes lie in [-clip, clip].
INTEGER_GRIDS: dict[str, int] = {f"int{bits}": 2 ** (bits - 1) - 1 for bits in range(2, 9)}
#: Bytes per value of each floating grid.
FLOAT_GRIDS: dict[str, int] = {"fp16": 2, "bf16": 2, "fp32": 4}


def clip_range(grid: str) -> int:
    """Largest code of an integer grid (31 for ``int6``)."""
    try:
        return INTEGER_GRIDS[grid]
    except KeyError:
        raise InputError(f"unknown integer grid {grid!r}; known: {', '.join(INTEGER_GRIDS)}") from None


def integer_grid(bits: int) -> str:
    """Grid name for a number of bits, 2 to 8."""
    name = f"int{bits}"
    clip_range(name)
    return name


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) under which a tensor is quantized: every axis but the last one is a row."""
    if len(shape) < 2:
        return 1, prod(shape)
    return prod(shape[:-1]), shape[-1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One stored tensor.

    ``values``: int8 codes of shape (rows, columns) on an integer grid; on a floating grid the stored
    words, flat: float16, bfloat16 as uint16 bit patterns, or float32.
    ``scales``: float16, one per row or a single one; empty on floating grids.
    ``columns``: float16, one factor per column, or empty.
    ``shape``: the tensor's own shape.
    ``by_column``: the codes are laid out column after column in the file (often compresses better).
    """

    name: str
    shape: tuple[int, ...]
    grid: str
    values: np.ndarray
    scales: np.ndarray
    columns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float16))
    by_column: bool = False

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def quantized(self) -> bool:
        return self.grid in INTEGER_GRIDS

    def dequantize(self) -> np.ndarray:
        """The tensor as float32 in its own shape; exact, the same bits on every machine."""
        if self.quantized:
            scales = self.scales.astype(np.float32).reshape(-1, 1)
            dense = self.values.astype(np.float32) * scales
            if self.columns.size:
                dense *= self.columns.astype(np.float32)
        elif self.grid == "bf16":
            dense = (self.values.astype(np.uint32) << 16).view(np.float32)
        else:
            dense = self.values.astype(np.float32)
        return dense.reshape(self.shape)


def quantized_record(
    name: str,
    shape: Sequence[int],
    grid: str,
    codes: np.ndarray,
    scales: np.ndarray,
    *,
    column_factors: np.ndarray | None = None,
    by_column: bool = False,
) -> Record:
    """A record from codes (rows, columns), scales (rows or 1) and factors (columns), checked against the grid."""
    rows, columns = matrix_shape(shape)
    clip = clip_range(grid)
    if codes.shape != (rows, columns):
        raise InputError(f"tensor {name}: codes have shape {codes.shape}, expected {(rows, columns)}")
    if codes.size and (int(codes.max()) > clip or int(codes.min()) < -clip):
        raise InputError(f"tensor {name}: a code lies outside [-{clip}, {clip}], the range of {grid}")
    with np.errstate(over="ignore"):  # infinities are refused below
        halves = np.ascontiguousarray(scales, dtype=np.float16).reshape(-1)
    if halves.size not in (1, rows):
        raise InputError(
            f"tensor {name}: {halves.size} scales for {rows} rows; expected one each, or a single one"
        )
    factors = (
        np.zeros(0, np.float16)
        if column_factors is None
        else np.asarray(column_factors, np.float16).reshape(-1)
    )
    if factors.size not in (0, columns):
        raise InputError(f"tensor {name}: {factors.size} column factors for {columns} columns")
    if not (np.isfinite(halves).all() and np.isfinite(factors).all()):
        raise InputError(f"tensor {name}: a scale is not finite in half precision; the weights are too large")
    return Record(
        name=name,
        shape=tuple(int(n) for n in shape),
        grid=grid,
        values=np.ascontiguousarray(codes, dtype=np.int8),
        scales=halves,
        columns=factors,
        by_column=by_column,
    )


def float_record(name: str, array: np.ndarray, grid: str = "fp16") -> Record:
    """A control tensor kept in floating point; values too large for fp16 are an error, not an infinity."""
    dense = np.ascontiguousarray(array, dtype=np.float32)
    if grid == "bf16":
        bits = dense.view(np.uint32)
        # Round to nearest even; a plain shift would truncate.
        values: np.ndarray = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    elif grid == "fp16":
        with np.errstate(over="ignore"):
            values = dense.astype(np.float16)
        if np.isfinite(dense).all() and not np.isfinite(values).all():
            raise InputError(f"tensor {name}: a value exceeds half precision; store it as fp32")
    elif grid == "fp32":
        values = dense
    else:
        raise InputError(f"unknown floating grid {grid!r}; known: {', '.join(FLOAT_GRIDS)}")
    return Record(
        name=name,
        shape=tuple(np.shape(array)),
        grid=grid,
        values=values.reshape(-1),
        scales=np.zeros(0, np.float16),
    )
