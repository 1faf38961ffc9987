"""Raw rows, in memory or in a file, behind one small interface; and their fingerprint."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from gibbsian.errors import DataError

BLOCK_BYTES = 2**20
WHOLE_BYTES = 2**28  # up to here a fingerprint reads every byte
SAMPLED_BLOCKS = 64

Span = tuple[int, int]


class Rows(ABC):
    """The raw rows of one source, (length, width), in their own dtype.

    Attributes
    ----------
    length, width : number of rows, and of raw columns.
    dtype : the torch dtype of a row.
    block : number of rows that are read well together.
    in_memory : False for rows that stay in their file.
    """

    length: int
    width: int
    dtype: torch.dtype
    block: int
    in_memory: bool

    @abstractmethod
    def spans(self, spans: Sequence[Span]) -> Iterator[Shaped[Tensor, "rows width"]]:
        """The rows start … stop-1 for each (start, stop) of ``spans``, one tensor each."""

    @abstractmethod
    def take(self, index: Shaped[Tensor, " rows"]) -> Shaped[Tensor, "rows width"]:
        """The rows numbered ``index`` (int64), in that order."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return max(1, self.width * self.dtype.itemsize)

    def blocks(self) -> list[Span]:
        """All rows as consecutive spans of ``block`` rows."""
        return [
            (start, min(start + self.block, self.length))
            for start in range(0, self.length, self.block)
        ]


@final
class MemoryRows(Rows):
    """Rows held in memory in their compact source dtype, not copied.

    Parameters
    ----------
    values : tensor (length, width).
    """

    in_memory = True

    def __init__(self, values: Shaped[Tensor, "rows width"]) -> None:
        self.values = values
        self.length, self.width = values.shape
        self.dtype = values.dtype
        self.block = max(1, 4 * BLOCK_BYTES // self.row_bytes)

    def spans(self, spans: Sequence[Span]) -> Iterator[Shaped[Tensor, "rows width"]]:
        """Views of the rows of each span."""
        return (self.values[start:stop] for start, stop in spans)

    def take(self, index: Shaped[Tensor, " rows"]) -> Shaped[Tensor, "rows width"]:
        """A copy of the rows ``index``."""
        return self.values.index_select(0, index)


def held(rows: Rows) -> MemoryRows:
    """All of ``rows`` in memory."""
    values = torch.empty((rows.length, rows.width), dtype=rows.dtype)
    for (start, stop), block in zip(rows.blocks(), rows.spans(rows.blocks()), strict=True):
        values[start:stop] = block
    return MemoryRows(values)


class StreamedRows(Rows):
    """Rows that stay in a file: ``take`` sorts the request and reads each block once."""

    in_memory = False

    def take(self, index: Shaped[Tensor, " rows"]) -> Shaped[Tensor, "rows width"]:
        """The rows ``index``, read in file order and handed back in the order asked."""
        wanted = index.numpy()
        order = np.argsort(wanted, kind="stable")
        ranked = wanted[order]
        cuts = np.flatnonzero(np.diff(ranked // self.block)) + 1
        groups = [group for group in np.split(ranked, cuts) if group.size]
        spans = [(int(group[0]), int(group[-1]) + 1) for group in groups]
        out = torch.empty((len(wanted), self.width), dtype=self.dtype)
        done = 0
        for group, rows in zip(groups, self.spans(spans), strict=True):
            places = torch.from_numpy(order[done : done + len(group)])
            out[places] = rows[torch.from_numpy(group - group[0])]
            done += len(group)
        return out


def numeric(values: np.ndarray, what: str) -> np.ndarray:
    """``values`` in a native dtype that torch computes with.

    float16/32/64, bool, uint8 and signed integers are kept; uint16 and uint32 widen to int32 and
    int64, uint64 becomes float64, and byte order becomes the machine's.

    Raises
    ------
    DataError
        For objects, text, dates, complex numbers and records.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind not in "buif":
        said = {"O": "Python objects", "U": "text", "S": "text", "c": "complex numbers"}
        raise DataError(
            f"{what} holds {said.get(kind, f'values of dtype {values.dtype}')}: give real numbers "
            "(float16/32/64, integers or bool), or a CSV or Parquet table if it has text columns."
        )
    wider = {("u", 2): np.int32, ("u", 4): np.int64, ("u", 8): np.float64, ("f", 16): np.float64}
    target: Any = wider.get((kind, size), values.dtype.newbyteorder("="))
    return values.astype(target, copy=False)


def check_shape(shape: tuple[int, ...], what: str) -> None:
    """Raise unless ``shape`` is that of at least one row with at least one column."""
    if len(shape) < 2:
        raise DataError(
            f"{what} has {len(shape)} dimension{'s' * (len(shape) != 1)} and needs at least two: "
            "one row for each example, one column for each feature."
        )
    if 0 in shape:
        raise DataError(f"{what} is empty (its shape is {tuple(shape)}): give at least one row.")


def as_tensor(values: np.ndarray, what: str) -> Shaped[Tensor, "rows width"]:
    """``values`` (rows, …) as a tensor (rows, width), sharing memory where that is possible."""
    values = numeric(values, what)
    check_shape(values.shape, what)
    flat = np.ascontiguousarray(values.reshape(len(values), -1))
    return torch.from_numpy(flat if flat.flags.writeable else flat.copy())


def check_finite(rows: Rows, what: str, names: Sequence[str] = ()) -> None:
    """Raise a DataError that counts the NaN and infinite values and places the first of them."""
    if not rows.dtype.is_floating_point:
        return
    bad, first = 0, (0, 0)
    for (start, _), values in zip(rows.blocks(), rows.spans(rows.blocks()), strict=True):
        wrong = ~torch.isfinite(values)
        count = int(wrong.sum())
        if count and not bad:
            row, column = (int(i) for i in wrong.nonzero()[0])
            first = (start + row, column)
        bad += count
    if bad:
        column = f"'{names[first[1]]}'" if names else str(first[1])
        raise DataError(
            f"{what} holds {bad} NaN or infinite value{'s' * (bad != 1)}, the first in row "
            f"{first[0]}, column {column} (counted from 0): remove or fill them."
        )


def fingerprint(rows: Rows) -> str:
    """SHA-256 of the shape, the dtype and the content of ``rows``.

    Up to 256 MiB every byte counts; beyond, 64 blocks of 1 MiB at fixed places, first and last
    among them. In-memory and streamed rows of the same content have the same fingerprint.
    """
    digest = hashlib.sha256(f"{rows.length} x {rows.width} {rows.dtype}".encode())
    step = max(1, BLOCK_BYTES // rows.row_bytes)
    starts = np.arange(0, rows.length, step)
    if rows.length * rows.row_bytes > WHOLE_BYTES:
        picked = np.linspace(0, len(starts) - 1, SAMPLED_BLOCKS).round().astype(int)
        starts = starts[np.unique(picked)]
    spans = [(int(start), min(int(start) + step, rows.length)) for start in starts]
    for values in rows.spans(spans):
        digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()
