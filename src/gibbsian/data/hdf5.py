"""HDF5 files: one data set as rows, read in whole chunks and never held whole if large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from gibbsian.data.rows import BLOCK_BYTES, Span, StreamedRows, check_shape, numeric
from gibbsian.errors import DataError


def hdf5_keys(file: Path) -> list[str]:
    """The names of all data sets in ``file``.

    Raises
    ------
    DataError
        If the file isn't HDF5 or is damaged.
    """
    import h5py

    keys: list[str] = []
    try:
        with h5py.File(file, "r") as opened:
            opened.visititems(
                lambda name, item: keys.append(name) if isinstance(item, h5py.Dataset) else None
            )
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{file} can't be read as HDF5 ({error}): it may be truncated; write it again."
        ) from error
    return keys


def read_hdf5(file: Path, key: str) -> np.ndarray:
    """The whole data set ``key``."""
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            return np.asarray(opened[key])
    except (OSError, RuntimeError) as error:
        raise DataError(f"'{key}' in {file} can't be read ({error}).") from error


@final
class Hdf5Rows(StreamedRows):
    """The rows of a data set in an HDF5 file; blocks are whole chunks of it.

    Parameters
    ----------
    file : the file.
    key : the name of the data set.
    """

    def __init__(self, file: Path, key: str) -> None:
        import h5py

        self._file, self._key = file, key
        what = f"'{key}' in {file}"
        with h5py.File(file, "r") as opened:
            data = opened[key]
            assert isinstance(data, h5py.Dataset)
            shape: tuple[int, ...] = data.shape or ()
            check_shape(shape, what)
            self.shape, self.length, self.width = shape, len(data), int(np.prod(shape[1:]))
            self.dtype = torch.from_numpy(numeric(np.empty(0, data.dtype), what)).dtype
            chunk = data.chunks[0] if data.chunks else 1
        self.block = chunk * max(1, BLOCK_BYTES // (self.row_bytes * chunk))

    def spans(self, spans: Sequence[Span]) -> Iterator[Shaped[Tensor, "rows width"]]:
        """The rows of each span."""
        import h5py

        what = f"'{self._key}' in {self._file}"
        try:
            with h5py.File(self._file, "r") as opened:
                data = opened[self._key]
                assert isinstance(data, h5py.Dataset)
                for start, stop in spans:
                    values = np.asarray(data[start:stop]).reshape(stop - start, self.width)
                    yield torch.from_numpy(numeric(values, what))
        except (OSError, RuntimeError) as error:
            raise DataError(f"{what} can't be read ({error}): the file may be damaged.") from error
