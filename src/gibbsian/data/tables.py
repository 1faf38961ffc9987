"""CSV and Parquet tables, read with pyarrow: numbers as they are, text columns as codes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from gibbsian.data.rows import BLOCK_BYTES, Rows, Span, StreamedRows, check_shape, held
from gibbsian.data.source import Source
from gibbsian.errors import DataError, GibbsianWarning

_INTS = (np.int8, np.int16, np.int32, np.int64)


@dataclass
class _Field:
    """A feature column: its place in the file, and what a first pass found out about it."""

    place: int
    name: str
    text: bool = False
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.bool_))
    categories: list[str] = field(default_factory=list)


def read_csv(path: Path) -> Any:
    """The CSV (or TSV, or gzipped CSV) file as a pyarrow table.

    The delimiter is whichever of comma, semicolon and tab is commonest in the first line; a first
    line of numbers only is data, and the columns are then called "0", "1", ….

    Raises
    ------
    DataError
        If the file can't be read as a table.
    """
    import pyarrow as pa
    from pyarrow import csv

    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            first = stream.read(2**20).decode("utf-8-sig").split("\n", 1)[0].strip()
        delimiter = max(",;\t", key=first.count)
        cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
        names = [str(i) for i in range(len(cells))] if all(map(_is_number, cells)) else None
        return csv.read_csv(
            str(path),
            read_options=csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=delimiter),
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path} can't be read as a CSV table ({_brief(error)}).") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _brief(error: Exception) -> str:
    return str(error).split("\n", 1)[0].rstrip(".")


def table_source(
    path: Path, asked: Sequence[str], like: Source | None, in_memory: bool | None
) -> tuple[Source, dict[str, Callable[[], np.ndarray]]]:
    """The source in a CSV or Parquet file, and its columns that are not features.

    Parameters
    ----------
    path : the file; ".parquet" or ".pq" means Parquet, anything else CSV.
    asked : names of columns that are not features, if they exist.
    like : a source whose columns and category codes are to be matched.
    in_memory : whether a Parquet file is read whole (None: if it unpacks to at most 1 GiB).

    Returns
    -------
    The source, and a mapping from every column name to a function that gives its values (only
    those in ``asked`` may be called).

    Raises
    ------
    DataError
        If the file or a column can't be used; the sentence names it.
    """
    parquet = path.suffix.lower() in (".parquet", ".pq")
    pieces: _Pieces = _ParquetPieces(path) if parquet else _Pieces(path, read_csv(path))
    names = pieces.names
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise DataError(f"{path} has several columns named '{repeated.pop()}': rename them.")
    sides = [name for name in names if name in asked]
    features = [_Field(i, name) for i, name in enumerate(names) if name not in sides]
    check_shape((pieces.length, len(features)), f"{path}")
    _match(features, like, path)
    vectors = _survey(pieces, features, [names.index(name) for name in sides])
    dtype = np.result_type(*(column.dtype for column in features))
    rows: Rows = TableRows(pieces, features, dtype)
    small = rows.length * rows.row_bytes <= 2**30
    if in_memory or not parquet or (in_memory is None and small):
        rows = held(rows)
    source = Source(
        what=str(path),
        rows=rows,
        names=tuple(column.name for column in features),
        categories=tuple(tuple(column.categories) for column in features),
    )
    found = dict(zip(sides, vectors, strict=True))
    return source, {name: partial(found.__getitem__, name) for name in names}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _match(features: list[_Field], like: Source | None, path: Path) -> None:
    """Check the columns against those of ``like`` and start from its category codes."""
    if like is None:
        return
    if tuple(column.name for column in features) != like.names:
        raise DataError(
            f"{path} has other columns than {like.what}: they must have the same names in the same "
            f"order ({_listed(like.names)})."
        )
    for column, known in zip(features, like.categories, strict=True):
        column.categories = list(known)


class _Pieces:
    """A table in memory, as one piece of rows; the base of one that stays in its file."""

    def __init__(self, path: Path, table: Any) -> None:
        self.path = path
        self.names: list[str] = list(table.schema.names)
        self.starts = [0, table.num_rows]
        self._read = lambda piece, places: table.select(places)

    @property
    def length(self) -> int:
        """Number of rows."""
        return self.starts[-1]

    def read(self, piece: int, places: list[int]) -> Any:
        """The columns ``places`` of one piece, as a pyarrow table."""
        import pyarrow as pa

        try:
            return self._read(piece, places)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path} can't be read ({_brief(error)}).") from error


@final
class _ParquetPieces(_Pieces):
    """The row groups of a Parquet file, each read when asked for."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self.path = path
        try:
            with parquet.ParquetFile(path) as file:
                groups = range(file.metadata.num_row_groups)
                sizes = [file.metadata.row_group(i).num_rows for i in groups]
                self.names = list(file.schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} can't be read as Parquet ({_brief(error)}).") from error
        self.starts = [0, *np.cumsum(sizes).tolist()]
        self._read = self._group

    def _group(self, piece: int, places: list[int]) -> Any:
        from pyarrow import parquet

        with parquet.ParquetFile(self.path) as file:
            names = [self.names[i] for i in places]
            return file.read_row_group(piece, columns=names, use_threads=False).select(names)


def _survey(pieces: _Pieces, features: list[_Field], sides: list[int]) -> list[np.ndarray]:
    """One pass: the type and categories of every feature; the label and weight columns."""
    vectors: list[list[np.ndarray]] = [[] for _ in sides]
    places = [column.place for column in features] + sides
    new: list[set[str]] = [set() for _ in features]
    for piece, start in enumerate(pieces.starts[:-1]):
        table = pieces.read(piece, places)
        for i, column in enumerate(features):
            _survey_column(table.column(i), column, new[i], start, pieces.path)
        for i, vector in enumerate(vectors):
            values = _plain(table.column(len(features) + i))
            if values.null_count:
                raise DataError(
                    f"the column '{pieces.names[sides[i]]}' of {pieces.path} has "
                    f"{values.null_count} missing values: fill them or drop those rows."
                )
            vector.append(values.to_numpy())
    for column, found in zip(features, new, strict=True):
        if column.text:
            column.categories += sorted(found - set(column.categories))
            column.dtype = _smallest(0, len(column.categories))
            _warn_mixed(column, pieces.path)
        elif column.categories:
            raise DataError(
                f"the column '{column.name}' of {pieces.path} holds numbers, and text in the "
                "training file: make them agree."
            )
    return [np.concatenate(vector) for vector in vectors]


def _compute() -> Any:
    """pyarrow.compute, whose functions are made at run time and unknown to type checkers."""
    from pyarrow import compute

    return compute


def _warn_mixed(column: _Field, path: Path) -> None:
    """Warn of a column that looks like numbers with some other mark among them."""
    text = [name for name in column.categories if not _is_number(name)]
    if 0 < len(text) < len(column.categories) / 2:
        warnings.warn(
            f"the column '{column.name}' of {path} mixes numbers with text such as '{text[0]}' and "
            "is "
            "taken as categories: remove the text if it should be numbers.",
            GibbsianWarning,
            stacklevel=2,
        )


def _plain(values: Any) -> Any:
    """A column without dictionary encoding, its large strings and decimals made plain."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_dictionary(kind):
        return _plain(values.cast(kind.value_type))
    if pa.types.is_decimal(kind):
        return values.cast(pa.float64())
    return values


def _survey_column(values: Any, column: _Field, found: set[str], start: int, path: Path) -> None:
    """Widen what is known of ``column`` by one piece of it."""
    import pyarrow as pa

    pc = _compute()

    values = _plain(values)
    if values.null_count:
        first = start + pc.index(values.is_null(), True).as_py()
        raise DataError(
            f"the column '{column.name}' of {path} has missing values, the first in row {first} "
            "(counted from 0): fill them or drop those rows."
        )
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column.text = True
        found.update(pc.unique(values).to_pylist())
    elif pa.types.is_integer(kind):
        low, high = (pc.min_max(values)[end].as_py() for end in ("min", "max"))
        column.dtype = np.result_type(column.dtype, _smallest(low or 0, high or 0))
    elif pa.types.is_floating(kind):
        column.dtype = np.result_type(column.dtype, kind.to_pandas_dtype())
    elif not pa.types.is_boolean(kind):
        raise DataError(
            f"the column '{column.name}' of {path} has the type {kind}, which is neither a number "
            "nor text: convert or drop it."
        )


def _smallest(low: int, high: int) -> np.dtype:
    """The smallest signed integer dtype for [low, high]; unsigned bytes would mean grey levels."""
    for kind in _INTS:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64)


@final
class TableRows(StreamedRows):
    """The rows of a table: numbers in one common dtype, text as its code.

    Parameters
    ----------
    pieces : the table, piece by piece.
    features : its feature columns, surveyed.
    dtype : the common dtype.
    """

    def __init__(self, pieces: _Pieces, features: list[_Field], dtype: np.dtype) -> None:
        self.length, self.width = pieces.length, len(features)
        self.dtype = torch.from_numpy(np.empty(0, dtype)).dtype
        self._pieces, self._features, self._dtype = pieces, features, dtype
        largest = max(np.diff(pieces.starts), default=1)
        self.block = max(int(largest), math.ceil(BLOCK_BYTES / self.row_bytes))

    def spans(self, spans: Sequence[Span]) -> Iterator[Shaped[Tensor, "rows width"]]:
        """The rows of each span, the row groups that it touches read one by one."""
        starts = self._pieces.starts
        held, matrix = -1, np.empty((0, self.width), self._dtype)
        for start, stop in spans:
            out = np.empty((stop - start, self.width), self._dtype)
            piece = int(np.searchsorted(starts, start, side="right")) - 1
            while piece < len(starts) - 1 and starts[piece] < stop:
                if piece != held:
                    held, matrix = piece, self._matrix(piece)
                low, high = max(start, starts[piece]), min(stop, starts[piece + 1])
                out[low - start : high - start] = matrix[low - starts[piece] : high - starts[piece]]
                piece += 1
            yield torch.from_numpy(out)

    def _matrix(self, piece: int) -> np.ndarray:
        import pyarrow as pa

        pc = _compute()

        table = self._pieces.read(piece, [column.place for column in self._features])
        out = np.empty((table.num_rows, self.width), self._dtype)
        for i, column in enumerate(self._features):
            values = _plain(table.column(i))
            if column.text:
                known = pa.array(column.categories, values.type)
                values = pc.index_in(values, value_set=known)
            out[:, i] = values.to_numpy()
        return out
