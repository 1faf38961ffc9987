"""A data set whose rows carry their labels: what the top machine of a deep belief network is trained on."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Generator, Tensor

from gibbsian.data import Dataset, Split, Transform
from gibbsian.data.rows import Rows, Span
from gibbsian.errors import DataError


class LabelledRows(Rows):
    """Raw rows with a block of one-of-K label columns behind them, joined as they are read.

    Parameters
    ----------
    rows : Rows
    places : array (length,)
        The column of each row's label in the block.
    width : int
        K.
    """

    def __init__(self, rows: Rows, places: np.ndarray, width: int) -> None:
        self.rows, self.places, self.labels = rows, torch.from_numpy(places), width
        self.length, self.width, self.dtype = rows.length, rows.width + width, rows.dtype
        self.block, self.in_memory = rows.block, rows.in_memory

    def _with(self, values: Tensor, places: Tensor) -> Tensor:
        hot = torch.zeros(len(values), self.labels, dtype=values.dtype)
        return torch.cat([values, hot.scatter_(1, places[:, None], 1)], dim=1)

    def spans(self, spans: Sequence[Span]) -> Iterator[Shaped[Tensor, "rows width"]]:
        """The rows of each span."""
        for (start, stop), values in zip(spans, self.rows.spans(spans), strict=True):
            yield self._with(values, self.places[start:stop])

    def take(self, index: Shaped[Tensor, " rows"]) -> Shaped[Tensor, "rows width"]:
        """The rows ``index``."""
        return self._with(self.rows.take(index), self.places[index])


class Beside(Transform):
    """A fitted transform of the first columns, with the last ones, the labels', left as they are."""

    def __init__(self, below: Transform, labels: int) -> None:
        super().__init__(below.steps)
        self.below, self.labels, self.random = below, labels, below.random

    @property
    def layout(self) -> list[tuple[str, int]]:
        """The blocks of the transform below, and one of the labels."""
        return [*self.below.layout, ("onehot", self.labels)]

    @property
    def n_features(self) -> int:
        """The columns of the transform below and the labels."""
        return self.below.n_features + self.labels

    def __call__(
        self, raw: Tensor, generator: Generator | None = None, noisy: bool = True
    ) -> Tensor:
        """Return the transformed rows with their labels."""
        rows = self.below(raw[:, : -self.labels], generator, noisy)
        return torch.cat([rows, raw[:, -self.labels :].to(rows)], dim=1)

    def inverse(self, x: Tensor) -> Tensor:
        """Return raw rows, without the labels."""
        return self.below.inverse(x[:, : -self.labels])

    @property
    def noise(self) -> Tensor:
        """Return that of the rows; labels have none."""
        return torch.cat([self.below.noise, torch.zeros(self.labels).double()])

    def state(self) -> dict[str, Any]:
        """Return the state of the transform below."""
        return self.below.state()


def classes_of(data: Dataset) -> list[int]:
    """Return the labels that training rows have, in ascending order.

    Raises
    ------
    DataError
        If they have none, or all the same.
    """
    labels = data.train.labels
    if labels is None:
        raise DataError(
            f"{data.name} has no labels to be joined to the top machine; name them with --labels, or "
            "train without."
        )
    found = [int(y) for y in np.unique(labels)]
    if len(found) < 2:
        raise DataError(
            f"All training rows of {data.name} have the label {found[0]}; keep rows of two classes at "
            "least, or train without labels."
        )
    return found


def beside(data: Dataset, classes: Sequence[int]) -> Dataset:
    """Return a data set with a block of label columns behind each row's own.

    Raises
    ------
    DataError
        If a row has no label, or one that is none of `classes`.
    """
    transform = Beside(data.transform, len(classes))
    parts = {
        k: _labelled(data._parts()[k], transform, classes, k)
        for k in ("train", "validation", "test")
    }
    digest = hashlib.sha256(f"{data.fingerprint} beside {list(classes)}".encode())
    spec = {"source": "array", "fingerprint": digest.hexdigest()}  # no file holds these rows
    return Dataset(f"{data.name} with labels", parts, transform, None, data.label_names, spec)


def check_labels(data: Dataset, classes: Sequence[int]) -> None:
    """Refuse data with a row that `beside` would refuse, before anything is trained.

    Raises
    ------
    DataError
        If a row has no label, or one that is none of `classes`.
    """
    for name, part in data._parts().items():
        if part is not None:
            _known_labels(part, classes, name)


def _known_labels(part: Split, classes: Sequence[int], name: str) -> np.ndarray:
    """Return a part's labels, all of them among the classes."""
    if part.labels is None:
        raise DataError(
            f"The {name} rows have no labels to join; give them labels, or leave them out."
        )
    foreign = ~np.isin(part.labels, np.asarray(classes))
    if foreign.any():
        raise DataError(
            f"A {name} row has the label {part.labels[foreign][0]}, which no training row has; split with "
            "another seed, or keep rows of known classes only."
        )
    return part.labels


def _labelled(
    part: Split | None, transform: Transform, classes: Sequence[int], name: str
) -> Split | None:
    """Return a part whose rows carry their labels."""
    if part is None:
        return None
    labels = _known_labels(part, classes, name)
    known = np.asarray(classes)
    # Labels of the source's rows that belong to other parts are not known here, nor ever read.
    places = np.zeros(part._rows.length, dtype=np.int64)
    order = np.argsort(known)
    places[part.index] = order[np.searchsorted(known[order], labels)]
    other = copy.copy(part)
    other._rows, other.transform = LabelledRows(part._rows, places, len(classes)), transform
    return other
