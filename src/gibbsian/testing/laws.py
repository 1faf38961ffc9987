"""The truth about single blocks of units under a field: values and probabilities."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gibbsian.testing.tables import lower_end, quadrature
from gibbsian.units import base as unit
from gibbsian.units.base import Units


@dataclass(frozen=True)
class Law:
    """The truth about one block under a field.

    Attributes
    ----------
    part : slice
        Columns of the block.
    rows : Tensor (K, n)
        States of the whole layer in which only this block varies.
    probabilities : Tensor (K,)
        Probability of each, with quadrature weights for real units.
    log_z, entropy : float
        log Σ exp(f·s − e(s)) over the block, and the entropy in nats.
    finite : bool
        Whether the block has finitely many values.
    """

    part: slice
    rows: Tensor
    probabilities: Tensor
    log_z: float
    entropy: float
    finite: bool


def laws(units: Units, f: Tensor) -> list[Law]:
    """List the law of each block under the field `f`, (n,), by enumeration or quadrature."""
    base, found, first = _base(units), [], 0
    for block, width in zip(units.domain.blocks(), units.domain.widths, strict=True):
        part = slice(first, first + width)
        found.append(_law(units, f, base, part, block))
        first += width
    return found


def _law(units: Units, f: Tensor, base: Tensor, part: slice, block: Tensor | None) -> Law:
    def rows(values: Tensor) -> Tensor:
        whole = base.expand(len(values), -1).clone()
        whole[:, part] = values
        return whole

    def log_density(values: Tensor) -> Tensor:
        s = rows(values)
        return (s * f - unit.energy_terms(units, s))[:, part].sum(dim=-1)

    if block is None:
        low = lower_end(units, part.start)
        x, log_w = quadrature(lambda x: log_density(x[:, None]), low)
        values = x[:, None]
    else:
        values, log_w = block.double(), torch.zeros(len(block)).double()
    logits = log_density(values)
    log_z = (logits + log_w).logsumexp(dim=0)
    p = (logits + log_w - log_z).exp()
    entropy = -(p * (logits - log_z)).sum()
    return Law(part, rows(values), p, float(log_z), float(entropy), block is not None)


def _base(units: Units) -> Tensor:
    return units.domain.noise(1, Generator().manual_seed(0)).double()


def expected(units: Units, found: list[Law], of: Callable[[Tensor], Tensor]) -> Tensor:
    """Return E[T(s)] of a T that acts on each block by itself, under the laws of all blocks."""
    base = of(_base(units))
    return base[0] + sum(law.probabilities @ (of(law.rows) - base) for law in found)
