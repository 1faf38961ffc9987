"""Files of every known format; large arrays are read in blocks and never held whole."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from gibbsian.data.hdf5 import Hdf5Rows, hdf5_keys, read_hdf5
from gibbsian.data.idx import looks_like_idx, read_idx
from gibbsian.data.rows import (
    BLOCK_BYTES,
    MemoryRows,
    Rows,
    Span,
    StreamedRows,
    as_tensor,
    check_shape,
    held,
    numeric,
)
from gibbsian.data.source import Pathlike, Source, as_vector
from gibbsian.data.tables import read_csv, table_source
from gibbsian.errors import DataError

MEMORY_BYTES = 2**30  # larger files are streamed: a fixed number, so that a rerun does the same
_HDF5 = (".h5", ".hdf5", ".hdf")
_TABLES = (".csv", ".tsv", ".csv.gz", ".parquet", ".pq")

Inside = dict[str, Callable[[], np.ndarray]]


def read_file(
    path: Pathlike,
    *,
    key: str | None = None,
    labels: Any = None,
    weights: Any = None,
    like: Source | None = None,
    in_memory: bool | None = None,
) -> Source:
    """The source in a file, its format told by the suffix (IDX: by the content).

    Parameters
    ----------
    path : .npy, .npz, .csv, .tsv, .csv.gz, .parquet, .h5, .hdf5, or IDX, plain or gzipped.
    key : which array of an .npz or HDF5 file.
    labels, weights : a column name (tables), a key (npz, HDF5), the path of a file of their own, an
        array, or None.
    like : a source whose columns are to be matched (tables).
    in_memory : False to leave .npy, HDF5 and Parquet rows in their file; None decides by size.

    Raises
    ------
    DataError
        If the file is missing, unreadable, damaged, ambiguous or empty.
    """
    file = Path(path)
    check_readable(file)
    name = file.name.lower()
    sides = {"labels": labels, "weights": weights}
    asked = [value for value in sides.values() if isinstance(value, str)]
    if name.endswith(".npz"):
        source, inside = _npz(file, key, asked)
    elif name.endswith(_HDF5):
        source, inside = _hdf5(file, key, asked, in_memory)
    elif key is not None:
        raise DataError(f"{file} has no arrays to choose by key = '{key}': leave key out.")
    elif name.endswith(_TABLES):
        source, inside = table_source(file, asked, like, in_memory)
    else:
        source, inside = _single(file, in_memory), {}
    for kind, value in sides.items():
        if isinstance(value, str) and value in inside:
            setattr(source, kind, inside[value]())
            source.inside += (value,)
        else:
            setattr(source, kind, outside(value, kind, f"{file}", list(inside)))
    return source


def check_readable(file: Path) -> None:
    """Raise a DataError unless ``file`` is a file that may be opened and isn't empty."""
    if file.is_dir():
        raise DataError(f"{file} is a folder: give a file, or name a data set and set --data-dir.")
    if not file.exists():
        raise DataError(f"there is no file {file}: check the path.")
    try:
        with file.open("rb") as stream:
            if not stream.read(1):
                raise DataError(f"{file} is empty: fetch or write it again.")
    except OSError as error:
        raise DataError(f"{file} can't be opened ({error.strerror}).") from error


def outside(value: Any, kind: str, what: str, known: Sequence[str]) -> np.ndarray | None:
    """Labels or weights from a file of their own or an array; ``known`` is what else there was."""
    if value is None or not isinstance(value, str | os.PathLike):
        return None if value is None else as_vector(value)
    if not Path(value).exists():
        listed = f"; {what} has {', '.join(known[:20])}" if known else ""
        raise DataError(
            f"{kind} = '{value}' is neither inside {what} nor a file: give a column, a key or a "
            "path"
            f"{listed}."
        )
    return read_vector(Path(value))


def read_vector(file: Path) -> np.ndarray:
    """One value for each row from a file of its own: .npy, .npz, IDX or a one-column CSV."""
    check_readable(file)
    name = file.name.lower()
    if name.endswith((".csv", ".tsv", ".txt", ".csv.gz")):
        table = read_csv(file)
        if table.num_columns != 1:
            raise DataError(f"{file} has {table.num_columns} columns: labels need exactly one.")
        return table.column(0).to_numpy()
    if name.endswith(".npz"):
        return _open_npz(file, lambda arrays: arrays[_pick(list(arrays.files), None, [], file)])
    return _npy(file) if name.endswith(".npy") else _idx(file)


def _shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return tuple(shape[1:]) if len(shape) > 2 else None


def array_source(values: np.ndarray, what: str) -> Source:
    """The source of an array (rows, …) in memory."""
    rows = MemoryRows(as_tensor(values, what))
    return Source(what, rows, _shape(values.shape))


def _pick(keys: list[str], key: str | None, used: Sequence[str], file: Path) -> str:
    """``key``, or the only one of ``keys`` that isn't used for labels or weights."""
    listed = ", ".join(keys) if keys else "none at all"
    if key is not None:
        if key not in keys:
            raise DataError(f"{file} has no array '{key}': its arrays are {listed}.")
        return key
    left = [name for name in keys if name not in used]
    if len(left) != 1:
        raise DataError(f"{file} needs a key to choose one of its arrays: they are {listed}.")
    return left[0]


def _npy(file: Path, mmap: bool = False) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{file} holds Python objects, which gibbsian never unpickles: save plain numbers."
            ) from error
        # NumPy takes junk for a pickle, and advises to load it as one: that advice is left out.
        why = "it is not in that format" if "pickle" in str(error) else str(error)
        raise DataError(
            f"{file} can't be read as .npy ({why}): it may be truncated; write it again."
        ) from error


def _idx(file: Path) -> np.ndarray:
    if not looks_like_idx(file):
        raise DataError(
            f"{file} is of no known format: give .npy, .npz, .csv, .parquet, .h5 or an IDX file."
        )
    return read_idx(file)


def _single(file: Path, in_memory: bool | None) -> Source:
    """A file of one array: .npy or IDX."""
    if not file.name.lower().endswith(".npy"):
        return array_source(_idx(file), str(file))
    small = file.stat().st_size <= MEMORY_BYTES
    if in_memory or (in_memory is None and small):
        return array_source(_npy(file), str(file))
    mapped = _npy(file, mmap=True)
    # Only in C order do the rows follow one another in the file.
    if not isinstance(mapped, np.memmap) or not mapped.flags.c_contiguous:
        return array_source(_npy(file), str(file))
    return Source(str(file), NpyRows(file, mapped), _shape(mapped.shape))


@final
class NpyRows(StreamedRows):
    """The rows of a .npy file, read by plain file reads, so that no page of it stays mapped.

    Parameters
    ----------
    file : the file.
    mapped : its memory map, of which only the header is used.
    """

    def __init__(self, file: Path, mapped: np.memmap) -> None:
        check_shape(mapped.shape, str(file))
        self._file, self._stored = file, mapped.dtype
        self._offset = int(getattr(mapped, "offset", 0))
        self.length, self.width = len(mapped), int(np.prod(mapped.shape[1:]))
        self.dtype = torch.from_numpy(numeric(np.empty(0, mapped.dtype), str(file))).dtype
        self.block = max(1, BLOCK_BYTES // self.row_bytes)

    def spans(self, spans: Sequence[Span]) -> Iterator[Shaped[Tensor, "rows width"]]:
        """The rows of each span."""
        row = self.width * self._stored.itemsize
        with self._file.open("rb") as stream:
            for start, stop in spans:
                stream.seek(self._offset + start * row)
                values = np.fromfile(stream, self._stored, (stop - start) * self.width)
                if values.size != (stop - start) * self.width:
                    raise DataError(f"{self._file} became shorter while it was read.")
                values = values.reshape(stop - start, self.width)
                yield torch.from_numpy(numeric(values, str(self._file)))


def _open_npz(file: Path, use: Callable[[Any], Any]) -> Any:
    """``use`` of the opened archive, with one sentence for whatever is wrong with the file."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if not hasattr(arrays, "files"):
                raise DataError(f"{file} is not an .npz archive.")
            return use(arrays)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        if "Object arrays" in str(error):
            raise DataError(
                f"{file} holds Python objects, which gibbsian never unpickles: save plain numbers."
            ) from error
        raise DataError(
            f"{file} can't be read as .npz ({error}): it may be truncated; write it again."
        ) from error


def _npz(file: Path, key: str | None, asked: Sequence[str]) -> tuple[Source, Inside]:
    keys: list[str] = _open_npz(file, lambda arrays: list(arrays.files))

    def read(name: str) -> np.ndarray:
        return _open_npz(file, lambda arrays: arrays[name])

    source = array_source(read(_pick(keys, key, asked, file)), str(file))
    return source, {name: partial(read, name) for name in keys}


def _hdf5(
    file: Path, key: str | None, asked: Sequence[str], in_memory: bool | None
) -> tuple[Source, Inside]:
    keys = hdf5_keys(file)
    used = [name.strip("/") for name in asked]
    rows = Hdf5Rows(file, _pick(keys, key and key.strip("/"), used, file))
    small = rows.length * rows.row_bytes <= MEMORY_BYTES
    kept: Rows = held(rows) if in_memory or (in_memory is None and small) else rows
    inside = {name: partial(read_hdf5, file, name) for name in keys}
    inside |= {f"/{name}": read for name, read in inside.items()}
    return Source(str(file), kept, _shape(rows.shape)), inside
