"""The IDX format of the MNIST files, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from gibbsian.errors import DataError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def looks_like_idx(path: Path) -> bool:
    """True if the file at ``path`` starts like IDX (two zero bytes) or like gzip."""
    with path.open("rb") as file:
        head = file.read(2)
    return head in (b"\x1f\x8b", b"\x00\x00")


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file; gzip is recognised by its content, not by the name.

    Raises
    ------
    DataError
        If the file can't be read, isn't IDX, is damaged, or has another length than it states.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} can't be read ({error}): it may be truncated; fetch it again."
        ) from error
    if len(data) < 4 or data[:2] != b"\x00\x00" or data[2] not in _TYPES or data[3] == 0:
        raise DataError(f"{path} is not an IDX file: its first four bytes are {data[:4].hex(' ')}.")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise DataError(f"{path} is truncated inside its IDX header: fetch it again.")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    dtype = np.dtype(_TYPES[data[2]])
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        raise DataError(
            f"{path} is damaged: its IDX header promises {expected} bytes and {len(data) - start} "
            "follow; fetch it again."
        )
    values = np.frombuffer(data, dtype=dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)
