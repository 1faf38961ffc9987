"""Dataset and Split: raw rows, split and transformed, as whole tensors, chunks or batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Generator, Tensor

from gibbsian.data.rows import Rows, Span
from gibbsian.data.splits import permutation
from gibbsian.data.steps import white
from gibbsian.data.transforms import Transform
from gibbsian.errors import DataError

BUFFER_BYTES = 2**24  # streamed rows are shuffled in a buffer of about this size
SCATTERED_ROWS = 10_000  # the head of a streamed split is a random sample of it
_EPOCH = 2  # the key of the epochs' orders, apart from that of the split


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for one update.

    Attributes
    ----------
    x : transformed rows (batch, n), float32.
    index : their places in the split (batch,), int64.
    labels, weights : of these rows, int64 and float32, or None.
    """

    x: Float[Tensor, "batch n"]
    index: Int64[Tensor, " batch"]
    labels: Int64[Tensor, " batch"] | None
    weights: Float[Tensor, " batch"] | None


@final
class Split:
    """One part of a data set: the rows ``rows[index]``, seen through a transform.

    Rows in memory are in random order. Of streamed rows the first 10,000 are a random sample of the
    part and the rest follow in file order, so that ``tensor(limit)`` is fair and ``chunks`` is
    fast.

    Attributes
    ----------
    index : the row numbers in the source, int64.
    labels : int64 array, or None.
    weights : float64 array, or None.
    transform : the fitted transform.
    """

    def __init__(
        self,
        rows: Rows,
        index: np.ndarray,
        labels: np.ndarray | None,
        weights: np.ndarray | None,
        transform: Transform,
    ) -> None:
        if not rows.in_memory:
            head, tail = index[:SCATTERED_ROWS], np.sort(index[SCATTERED_ROWS:])
            index = np.concatenate([head, tail])
        self.index = index
        self.labels = None if labels is None else labels[index]
        self.weights = None if weights is None else weights[index]
        self.transform = transform
        self._rows = rows
        self._index = torch.from_numpy(index)
        self._labels = None if self.labels is None else torch.from_numpy(self.labels)
        self._weights = None if self.weights is None else torch.from_numpy(self.weights).float()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_features(self) -> int:
        """The number of transformed columns."""
        return self.transform.n_features

    @property
    def in_memory(self) -> bool:
        """False if the rows are read from their file when they are needed."""
        return self._rows.in_memory

    def raw(self, index: Tensor | np.ndarray | Sequence[int]) -> Shaped[Tensor, "rows width"]:
        """The raw rows at the places ``index`` of this split, in their source dtype."""
        places = torch.as_tensor(index, dtype=torch.int64)
        return self._rows.take(self._index[places])

    def batch(self, places: Int64[Tensor, " batch"], generator: Generator | None) -> Batch:
        """The batch of the rows at ``places``; a random transform draws from ``generator``."""
        raw = self._rows.take(self._index.index_select(0, places))
        return self._batch(raw, places, generator)

    def _batch(self, raw: Tensor, places: Tensor, generator: Generator | None) -> Batch:
        return Batch(
            self.transform(raw, generator),
            places,
            None if self._labels is None else self._labels.index_select(0, places),
            None if self._weights is None else self._weights.index_select(0, places),
        )

    def raw_chunks(self, rows: int | None = None, limit: int | None = None) -> Iterator[Tensor]:
        """The (first ``limit``) raw rows in chunks of ``rows``, by default of about 4 MiB."""
        size = self._chunk_rows() if rows is None else rows
        if size < 1:
            raise DataError(f"a chunk of {rows} rows is impossible: ask for at least one.")
        stop = len(self) if limit is None else min(limit, len(self))
        for start in range(0, stop, size):
            yield self._rows.take(self._index[start : min(start + size, stop)])

    def _chunk_rows(self) -> int:
        return max(1, 2**22 // self._rows.row_bytes)

    def chunks(
        self,
        rows: int = 1024,
        limit: int | None = None,
        generator: Generator | int | None = None,
        noisy: bool = True,
    ) -> Iterator[Float[Tensor, "rows n"]]:
        """The (first ``limit``) transformed rows in chunks of ``rows``.

        A random transform draws from ``generator``: a torch.Generator, or a seed (None means 0). Without
        ``noisy`` the noise of "dequantise" is left out.
        """
        source = seeded(generator)
        return (self.transform(raw, source, noisy) for raw in self.raw_chunks(rows, limit))

    def tensor(
        self,
        limit: int | None = None,
        generator: Generator | int | None = None,
        noisy: bool = True,
    ) -> Float[Tensor, "rows n"]:
        """The (first ``limit``) transformed rows as one tensor, the same for the same seed.

        Without ``noisy`` the noise of "dequantise" is left out.
        """
        return torch.cat(list(self.chunks(limit=limit, generator=generator, noisy=noisy)))

    def streamed(
        self, batch_size: int, seed: int, epoch: int, start: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Places and raw rows of an epoch's batches, read block by block in shuffled order.

        The order is a function of (seed, epoch). Blocks come in random order; those that fill the
        buffer together are shuffled row by row. ``start`` batches are skipped, mostly unread.
        """
        order = np.argsort(self.index)
        ranked = self.index[order]
        blocks = self._rows.blocks()
        edges = np.searchsorted(ranked, [begin for begin, _ in blocks] + [self._rows.length])
        shuffled = permutation(len(blocks), seed, _EPOCH, epoch)
        size = max(4, BUFFER_BYTES // (self._rows.block * self._rows.row_bytes))
        skip = start * batch_size
        places = torch.empty(0, dtype=torch.int64)
        raw = torch.empty((0, self._rows.width), dtype=self._rows.dtype)
        for number, first in enumerate(range(0, len(shuffled), size)):
            group = [b for b in np.sort(shuffled[first : first + size]) if edges[b] < edges[b + 1]]
            count = int(sum(edges[b + 1] - edges[b] for b in group))
            if skip >= count:
                skip -= count
                continue
            mixed = permutation(count, seed, _EPOCH, epoch, number)[skip:] + len(places)
            skip = 0
            turn = torch.from_numpy(np.concatenate([np.arange(len(places)), mixed]))
            held = [torch.from_numpy(order[edges[b] : edges[b + 1]]) for b in group]
            places = torch.cat([places, *held])
            raw = self._refilled(raw, [(blocks[b], ranked[edges[b] : edges[b + 1]]) for b in group])
            whole = len(turn) // batch_size * batch_size
            for at in range(0, whole, batch_size):
                now = turn[at : at + batch_size]
                yield places[now], raw[now]
            places, raw = places[turn[whole:]], raw[turn[whole:]]
        if len(places):
            yield places, raw

    def _refilled(self, raw: Tensor, wanted: list[tuple[Span, np.ndarray]]) -> Tensor:
        """``raw`` followed by the ``wanted`` rows of each block."""
        total = len(raw) + sum(len(rows) for _, rows in wanted)
        buffer = torch.empty((total, self._rows.width), dtype=self._rows.dtype)
        buffer[: len(raw)] = raw
        done = len(raw)
        read = self._rows.spans([block for block, _ in wanted])
        for ((begin, _), rows), values in zip(wanted, read, strict=True):
            buffer[done : done + len(rows)] = values[torch.from_numpy(rows - begin)]
            done += len(rows)
        return buffer


def seeded(generator: Generator | int | None) -> Generator:
    """``generator`` itself, or a new one from a seed (None means 0)."""
    if isinstance(generator, Generator):
        return generator
    return Generator().manual_seed(generator or 0)


@final
class Dataset:
    """Train, validation and test rows with the transform fitted on the train rows.

    Attributes
    ----------
    name : how the source is called.
    train, validation, test : the parts; validation and test may be None.
    transform : the fitted transform.
    image_shape : the shape of one row as an image, (H, W), (C, H, W) or (H, W, C), or None.
    label_names : names of the labels 0, 1, …, or None if labels are plain numbers.
    spec : TOML-able dict such that ``load(**spec)`` gives this data set again. Rows, labels or
        weights passed as arrays appear as "array" and must be passed again.
    fingerprint : SHA-256 of the content, before splitting and transforming.
    """

    def __init__(
        self,
        name: str,
        parts: dict[str, Split | None],
        transform: Transform,
        image_shape: tuple[int, ...] | None,
        label_names: tuple[str, ...] | None,
        spec: dict[str, Any],
    ) -> None:
        train = parts["train"]
        assert train is not None
        self.name = name
        self.train: Split = train
        self.validation = parts["validation"]
        self.test = parts["test"]
        self.transform = transform
        self.image_shape = image_shape
        self.label_names = label_names
        self.spec = spec

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the rows, labels and weights of the source."""
        return self.spec["fingerprint"]

    @property
    def n_features(self) -> int:
        """The number of transformed columns."""
        return self.transform.n_features

    @property
    def layout(self) -> list[tuple[str, int]]:
        """What the transformed columns are; see ``Transform``."""
        return self.transform.layout

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{role} {len(part)}" for role, part in self._parts().items() if part is not None
        )
        return f"Dataset({self.name}: {sizes}; {self.n_features} columns, {self.transform.names})"

    def _parts(self) -> dict[str, Split | None]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def split(self, name: str) -> Split:
        """The part called "train", "validation" or "test".

        Raises
        ------
        DataError
            If there is no such part.
        """
        part = self._parts().get(name)
        if part is None:
            raise DataError(f"{self.name} has no {name} part: load it with {name} rows.")
        return part

    def batches_per_epoch(self, batch_size: int, split: str = "train") -> int:
        """Whole batches in an epoch, or 1 if the part is smaller than a batch."""
        if batch_size < 1:
            raise DataError(f"a batch of {batch_size} rows is impossible: ask for at least one.")
        return max(1, len(self.split(split)) // batch_size)

    def batches(
        self,
        batch_size: int,
        *,
        epoch: int,
        seed: int,
        generator: Generator | None = None,
        start: int = 0,
        split: str = "train",
    ) -> Iterator[Batch]:
        """The batches of one epoch, from batch ``start`` on.

        The order of rows is a function of (seed, epoch) alone; random transforms draw from
        ``generator`` (on the CPU), so a run that restores it and asks for the same ``start`` gets
        the same batches bit for bit. The last, partial batch is dropped, unless it is the only one.

        Parameters
        ----------
        batch_size : rows of a batch.
        epoch, seed : integers that fix the order.
        generator : needed if ``transform.random``.
        start : number of batches to skip; nothing is drawn for them.
        split : "train", "validation" or "test".

        Raises
        ------
        DataError
            For an impossible size, an unknown part, or a missing generator.
        """
        count = self.batches_per_epoch(batch_size, split)
        part = self.split(split)
        return _batches(part, batch_size, range(start, count), seed, epoch, generator)

    @cached_property
    def _value_range(self) -> tuple[float, float]:
        """The range that pictures go from black to white over."""
        if self.train.raw([0]).dtype in (torch.uint8, torch.bool):
            return 0.0, white(self.train.raw_chunks)
        ends = [torch.aminmax(x) for x in self.train.raw_chunks()]
        return min(float(e.min) for e in ends), max(float(e.max) for e in ends)

    def to_images(self, x: Float[Tensor, "rows n"]) -> np.ndarray:
        """Rows of a machine as pictures: grey (rows, H, W) or colour (rows, H, W, 3), in [0, 1].

        The transform is inverted, and the range of the raw training rows (0 to 255 for uint8)
        mapped to [0, 1] and cut there.

        Raises
        ------
        DataError
            If the rows are not images.
        """
        raw = self.transform.inverse(x.detach().cpu().float())
        shape = self.image_shape
        if shape is None or int(np.prod(shape)) != raw.shape[1]:
            raise DataError(
                f"the rows of {self.name} have no image shape: load them with image_shape=(height, "
                "width)."
            )
        low, high = self._value_range
        grey = ((raw - low) / ((high - low) or 1)).clamp(0, 1).numpy().reshape(len(raw), *shape)
        if grey.ndim == 4 and shape[0] in (1, 3):
            grey = grey.transpose(0, 2, 3, 1)
        return grey[..., 0] if grey.ndim == 4 and grey.shape[-1] == 1 else grey


def _batches(
    part: Split,
    batch_size: int,
    numbers: range,
    seed: int,
    epoch: int,
    generator: Generator | None,
) -> Iterator[Batch]:
    if part.in_memory:
        order = torch.from_numpy(permutation(len(part), seed, _EPOCH, epoch))
        for b in numbers:
            yield part.batch(order[b * batch_size : (b + 1) * batch_size], generator)
        return
    source = part.streamed(batch_size, seed, epoch, numbers.start)
    for _, (places, raw) in zip(numbers, source, strict=False):
        yield part._batch(raw, places, generator)
