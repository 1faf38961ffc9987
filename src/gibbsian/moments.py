"""Sums of sufficient statistics over rows of states, of which those of couplings wait to be read.

Σ_r w_r T(row r) is a mean where the weights w are all alike, a gradient where the data's rows are
weighted −1/n and the model's 1/m. For a connection it is as large as the couplings, so it is kept
as its rows: they can be centred, and multiplied into the couplings, without ever forming it.
"""

from collections import UserDict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gibbsian.connections import Connection


def shares(n: int, weights: Tensor | None, like: Tensor) -> Tensor:
    """Return what each of n rows weighs in a mean: 1/n, or `weights` over their sum (unless all are 0)."""
    if weights is None:
        return _uniform(n, like.dtype, like.device)
    total = weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return (weights / total).to(like.dtype)


def signed(n: int, m: int, weights: tuple[Tensor | None, Tensor | None], like: Tensor) -> Tensor:
    """Return the weights of a gradient's rows: those of n rows of data, negative, and of m of the model."""
    data, model = weights
    if data is None and model is None:
        return _contrast(n, m, like.dtype, like.device)
    return torch.cat([-shares(n, data, like), shares(m, model, like)])


# Constants that every update needs; nobody writes into them.


@lru_cache(maxsize=16)
def _uniform(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((n,), 1 / n, dtype=dtype, device=device)


@lru_cache(maxsize=16)
def _contrast(n: int, m: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.cat([-_uniform(n, dtype, device), _uniform(m, dtype, device)])


@dataclass(frozen=True)
class Rows:
    """A sum Σ_r w_r ∂⟨a_r, c b_r⟩/∂W for a connection c, not carried out.

    `a` (rows, n) and `b` (rows, m) are states of the lower and the upper layer, `w` (rows,) the weights.
    """

    connection: Connection
    a: Tensor
    b: Tensor
    w: Tensor

    def centred(self, low: Tensor, high: Tensor) -> "Rows":
        """Return the sum for states a − low and b − high."""
        return Rows(self.connection, self.a - low, self.b - high, self.w)

    def total(self, out: Tensor | None = None) -> Tensor:
        """Carry the sum out, into `out` if given."""
        return self.connection.statistics(self.a, self.b, self.w, out)

    def add_to(self, p: Tensor, scale: float) -> None:
        """Add the sum, times a number, to a tensor."""
        self.connection.add_statistics(p, self.a, self.b, self.w, scale)

    def fields(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fields (down, up) that the sum makes of two states, in place of the couplings."""
        if self.connection.is_matrix:
            a, b, w = self.a, self.b, self.w
            return (w * (b @ high)) @ a, (w * (a @ low)) @ b
        total = self.total()
        return self.connection.down(high, total), self.connection.up(low, total)


class Moments(UserDict[str, Tensor]):
    """Tensors by the names of parameters; an entry kept as `Rows` is summed when it is first read."""

    def __init__(self, entries: Mapping[str, Tensor | Rows]) -> None:
        super().__init__()
        self.data: dict[str, Any] = dict(entries)

    def __getitem__(self, name: str) -> Tensor:
        return self.write(name, None)

    def rows(self, name: str) -> Rows | None:
        """Return an entry that is still to be summed, None where it is a tensor by now."""
        found = self.data[name]
        return found if isinstance(found, Rows) else None

    def write(self, name: str, out: Tensor | None) -> Tensor:
        """Return an entry; if it is still to be summed it is summed into `out`."""
        rows = self.rows(name)
        if rows is not None:
            self.data[name] = rows.total(out)
        return self.data[name]

    def entries(self) -> dict[str, Tensor | Rows]:
        """Return all entries as they are."""
        return dict(self.data)


def combined(parts: Sequence[tuple[float, Moments]]) -> Moments:
    """Return the sum of moments of one machine, each times a number; sums that wait go on waiting."""
    (_, first), *_ = parts
    return Moments({name: _combined(name, parts) for name in first})


def _combined(name: str, parts: Sequence[tuple[float, Moments]]) -> Tensor | Rows:
    found = [(scale, m.rows(name)) for scale, m in parts]
    waiting = [(scale, r) for scale, r in found if r is not None]
    if len(waiting) < len(found):
        return torch.stack([scale * m[name] for scale, m in parts]).sum(dim=0)
    return Rows(
        waiting[0][1].connection,
        torch.cat([r.a for _, r in waiting]),
        torch.cat([r.b for _, r in waiting]),
        torch.cat([scale * r.w for scale, r in waiting]),
    )


@dataclass(frozen=True)
class Terms:
    """Sufficient statistics of rows of states.

    Attributes
    ----------
    joints : sequence of Connection
    values : sequence of Tensor (rows, n_l)
        A state or its expectation, one a layer.
    units : dict of str to Tensor (rows, n)
        T_k of the units of each layer, or their expectations, by the names of their parameters.
    """

    joints: Sequence[Connection]
    values: Sequence[Tensor]
    units: Mapping[str, Tensor]

    def sums(self, weights: Tensor, names: Container[str] | None = None) -> Moments:
        """Return the sums with one weight a row, all of them or those named."""
        found: dict[str, Tensor | Rows] = {}
        for k, t in self.units.items():
            if names is None or k in names:
                found[k] = weights @ t
        for i, c in enumerate(self.joints):
            k = f"connections.{i}.weight"
            if names is None or k in names:
                found[k] = Rows(c, self.values[i], self.values[i + 1], weights)
        return Moments(found)

    def part(self, rows: slice) -> "Terms":
        """Return the terms of some of the rows."""
        values = [v[rows] for v in self.values]
        return Terms(self.joints, values, {k: t[rows] for k, t in self.units.items()})

    def above(self, others: "Terms") -> "Terms":
        """Return these rows and, below them, those of other terms of the same machine."""
        values = [torch.cat(pair) for pair in zip(self.values, others.values, strict=True)]
        units = {k: torch.cat([t, others.units[k]]) for k, t in self.units.items()}
        return Terms(self.joints, values, units)
