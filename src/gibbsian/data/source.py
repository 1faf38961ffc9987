"""What every reader hands over: raw rows with their labels, weights and column names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gibbsian.data.rows import Rows
from gibbsian.errors import DataError

Pathlike = str | os.PathLike[str]


@dataclass
class Source:
    """Raw rows and what belongs to them.

    Attributes
    ----------
    what : how messages call this source.
    rows : the raw rows.
    shape : the shape of one row before it was flattened, if it has more than one axis.
    labels, weights : arrays of one value for each row, or None.
    label_names : names of the labels 0, 1, …, where the source knows them.
    names, categories : of the columns of a table; see ``Columns``.
    test : the test part that belongs to a named set.
    inside : the columns or keys of the source's own file that became labels or weights.
    """

    what: str
    rows: Rows
    shape: tuple[int, ...] | None = None
    labels: np.ndarray | None = None
    weights: np.ndarray | None = None
    label_names: tuple[str, ...] | None = None
    names: tuple[str, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()
    test: Source | None = None
    inside: tuple[str, ...] = ()


def encode_labels(
    parts: Sequence[tuple[str, np.ndarray | None, int]],
) -> tuple[list[np.ndarray | None], tuple[str, ...] | None]:
    """Labels as int64 with one code for each text, the same for all parts.

    Parameters
    ----------
    parts : for each part its name for messages, its labels or None, and its number of rows.

    Returns
    -------
    The encoded labels of each part, and the sorted texts if the labels are text.

    Raises
    ------
    DataError
        For labels of another length, of more than one axis, or neither whole numbers nor text.
    """
    arrays = [
        None if values is None else _vector(values, "labels", what, n) for what, values, n in parts
    ]
    given = [values for values in arrays if values is not None]
    if not any(values.dtype.kind in "US" for values in given):
        return [None if values is None else _whole(values) for values in arrays], None
    names = sorted({str(v) for values in given for v in values.tolist()})
    code = {name: i for i, name in enumerate(names)}
    encoded = [
        None
        if values is None
        else np.array([code[str(v)] for v in values.tolist()], dtype=np.int64)
        for values in arrays
    ]
    return encoded, tuple(names)


def _vector(values: np.ndarray, kind: str, what: str, n: int) -> np.ndarray:
    """``values`` as one array axis of length ``n``; byte strings become text."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"the {kind} of {what} have shape {values.shape}: give one value for each row."
        )
    if len(values) != n:
        raise DataError(
            f"there are {len(values)} {kind} for the {n} rows of {what}: give one value for each "
            "row."
        )
    if values.dtype.kind == "O" and all(isinstance(v, str | bytes) for v in values):
        values = np.array([v.decode() if isinstance(v, bytes) else v for v in values])
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    return values


def _whole(values: np.ndarray) -> np.ndarray:
    """Labels as int64; a DataError unless they are whole numbers."""
    if values.dtype.kind in "bui":
        return values.astype(np.int64)
    finite = values.dtype.kind == "f" and bool(np.isfinite(values).all())
    if not finite or bool((values != np.round(values)).any()):
        raise DataError(
            f"the labels are neither whole numbers nor text (their dtype is {values.dtype}): "
            "labels name classes, so give integers or strings."
        )
    return values.astype(np.int64)


def check_weights(values: np.ndarray | None, what: str, n: int) -> np.ndarray | None:
    """Row weights as float64; a DataError unless they are finite, at least 0, and not all 0."""
    if values is None:
        return None
    vector = _vector(values, "weights", what, n)
    weights = vector.astype(np.float64) if vector.dtype.kind in "buif" else None
    if weights is None or not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise DataError(
            f"the weights of {what} must be finite numbers of at least 0: remove or mend the "
            "others."
        )
    if not weights.any():
        raise DataError(f"the weights of {what} are all 0: give some row a positive weight.")
    return weights


def select_classes(classes: Iterable[int | str], names: Sequence[str] | None) -> list[int]:
    """The label codes of ``classes``, given as numbers or as names.

    Raises
    ------
    DataError
        If a class is neither a number nor a known name.
    """
    codes: list[int] = []
    for wanted in classes:
        text = str(wanted)
        if names is not None and text in names:
            codes.append(list(names).index(text))
            continue
        try:
            codes.append(int(text))
        except ValueError as error:
            known = f": the classes are {', '.join(names)}" if names else ", and labels are numbers"
            raise DataError(f"there is no class '{wanted}'{known}.") from error
    return codes


def as_vector(values: Any) -> np.ndarray:
    """Labels or weights given as a list, array or tensor, as a NumPy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)
