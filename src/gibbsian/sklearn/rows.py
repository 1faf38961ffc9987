"""Rows as scikit-learn hands them over, and checks of plain arguments."""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, final

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import gen_batches
from torch import Generator, Tensor, nn

from gibbsian.data.rows import Rows, Span
from gibbsian.errors import TrainingError
from gibbsian.units.base import Domain

CHUNK = 4096  # rows of a sparse matrix that are made dense together


@final
class Unchecked(Domain):
    """A domain whose values are not refused; whoever uses it has warned."""

    def __init__(self, inner: Domain) -> None:
        self.inner, self.size = inner, inner.size

    def check(self, x: Tensor) -> None:
        """Accept everything."""

    def noise(self, chains: int, generator: Generator | None) -> Tensor:
        return self.inner.noise(chains, generator)

    def blocks(self) -> list[Tensor | None]:
        return self.inner.blocks()

    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        return self.inner.natural({k: t.clamp(0, 1) for k, t in mean.items()}, rows)


@final
class SparseRows(Rows):
    """Rows of a sparse matrix, made dense a batch at a time."""

    in_memory = True

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.length, self.width = matrix.shape
        self.dtype, self.block = torch_dtype(matrix.dtype), CHUNK

    def spans(self, spans: Sequence[Span]) -> Iterator[Tensor]:
        return (torch.from_numpy(self.matrix[start:stop].toarray()) for start, stop in spans)

    def take(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self.matrix[index.numpy()].toarray())


def dense(X: Any, machine: nn.Module, rows: int = CHUNK) -> Iterator[Tensor]:
    """Yield the rows of an array or sparse matrix in the machine's dtype, some at a time."""
    like = next(machine.parameters())
    for part in gen_batches(X.shape[0], rows):
        x = X[part].toarray() if sparse.issparse(X) else X[part]
        yield torch.tensor(x, dtype=like.dtype)


def torch_dtype(dtype: Any) -> torch.dtype:
    """Return float32 for float32, and float64 for all else."""
    return torch.float32 if dtype == np.float32 else torch.float64


def seed_of(rng: np.random.RandomState) -> int:
    """Draw a seed."""
    return int(rng.randint(2**31 - 1))


def generator_of(rng: np.random.RandomState) -> Generator:
    """Make a generator with a seed that is drawn."""
    return Generator().manual_seed(seed_of(rng))


def whole(value: Any, name: str, least: int = 1) -> int:
    """Return `value` as an int if it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise TrainingError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return int(value)


def number(value: Any, name: str) -> float:
    """Return `value` as a float if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
        raise TrainingError(f"{name} must be a number, and {value!r} is not.")
    return float(value)
