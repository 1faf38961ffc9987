"""How well a machine takes flipped bits back: by one pass through it, and by its posterior."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian import repair
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import Gibbs
from gibbsian.samplers.gibbs import draw
from gibbsian.units import base as unit

_SURE = 1e-6


@dataclass(frozen=True)
class Denoised:
    """Damaged rows, and what a machine makes of them.

    Attributes
    ----------
    original, damaged : Tensor (rows, n)
    restored : mapping of str to Tensor (rows, n)
        "mean-field": see `gibbsian.repair.reconstruct`. "posterior": the mean of v given the damaged row,
        where all columns are two-valued.
    errors : mapping of str to mapping
        For "damaged" and each of `restored`: mean "squared" error per column and its standard error over
        rows "squared_se"; where all columns are two-valued also the share of "wrong" ones, after the likelier
        value was taken, and "wrong_se".
    """

    original: Tensor
    damaged: Tensor
    restored: Mapping[str, Tensor]
    errors: Mapping[str, dict[str, float | None]]

    def as_dict(self) -> dict[str, Any]:
        """Return the errors and the number of rows as plain values."""
        return {"rows": len(self.original), **self.errors}


def denoise(
    machine: BoltzmannMachine,
    x: Float[Tensor, "rows n"],
    flip: float,
    steps: int = 100,
    generator: Generator | None = None,
) -> Denoised:
    """Damage rows as `gibbsian.repair.denoise` does, and restore them in both ways.

    Parameters
    ----------
    machine : BoltzmannMachine
    x : Tensor (rows, n)
        States of the visible units.
    flip : float
        Fraction of the entries that is damaged.
    steps : int
        Gibbs steps of the posterior's chains, one chain a row.
    generator : torch.Generator, optional

    Raises
    ------
    GibbsianError
        If `flip` is no fraction.
    """
    damaged = repair.denoise(machine, x, flip, generator, sweeps=0).damaged
    restored = {"mean-field": repair.reconstruct(machine, damaged)}
    values = _two_values(machine)
    if values is not None:
        restored["posterior"] = posterior(machine, damaged, flip, steps, generator)
    middle = None if values is None else values.mean(dim=0).to(x)
    rows = {"damaged": damaged, **restored}
    return Denoised(x, damaged, restored, {k: _errors(r, x, middle) for k, r in rows.items()})


@torch.no_grad()
def posterior(
    machine: BoltzmannMachine,
    damaged: Float[Tensor, "rows n"],
    flip: float,
    steps: int,
    generator: Generator | None,
) -> Float[Tensor, "rows n"]:
    """Return the mean of v given a row whose entries were flipped with probability `flip`, by Gibbs chains.

    p(v | ṽ) ∝ p(v) Π_i p(ṽ_i | v_i): the flips add ±log((1 − p)/p)/(b − a) to the field on a column with
    values a < b, towards the value seen. Of all estimates of v from ṽ this mean has the least squared error
    if the machine is right. Chains start at the damaged rows; the second half of their steps counts.
    """
    values = _two_values(machine)
    assert values is not None
    low, high = values.to(damaged)
    p = min(max(flip, _SURE), 1 - _SURE)
    towards = torch.where(damaged > (low + high) / 2, 1.0, -1.0).to(damaged)
    shift = math.log((1 - p) / p) / (high - low) * towards
    layers = list(Gibbs().init(machine, damaged, generator).layers)
    total, kept = torch.zeros_like(damaged), max(1, steps // 2)
    for i in range(max(1, steps)):
        fields = machine.fields(0, layers)
        fields[0] = fields[0] + shift
        draw(machine, layers, 0, generator, fields=fields)
        draw(machine, layers, 1, generator)
        if i >= steps - kept:
            total += unit.mean(machine.layers[0], fields[0])
    return total / kept


def _two_values(machine: BoltzmannMachine) -> Float[Tensor, "2 n"] | None:
    """Return both values of each visible column, the lower first; None where one has more."""
    tables = machine.layers[0].domain.blocks()
    pairs = [t for t in tables if t is not None and tuple(t.shape) == (2, 1)]
    if len(pairs) < len(tables):
        return None
    return torch.cat(pairs, dim=1).sort(dim=0).values


def _errors(
    rows: Float[Tensor, "rows n"], x: Float[Tensor, "rows n"], middle: Float[Tensor, " n"] | None
) -> dict[str, float | None]:
    squared, squared_se = _mean(((rows - x) ** 2).mean(dim=1))
    wrong: tuple[float | None, float | None] = (None, None)
    if middle is not None:
        wrong = _mean(((rows > middle) != (x > middle)).to(x).mean(dim=1))
    return {
        "squared": squared, "squared_se": squared_se, "wrong": wrong[0], "wrong_se": wrong[1],
    }  # fmt: skip


def _mean(values: Float[Tensor, " rows"]) -> tuple[float, float | None]:
    """Return the mean over rows and its standard error."""
    n = len(values)
    wide = values.double()
    return float(wide.mean()), float(wide.std() / n**0.5) if n > 1 else None
