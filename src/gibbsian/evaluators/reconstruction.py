"""How well one step down from the hidden layer gives a row back."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian import meanfield
from gibbsian.errors import GibbsianError
from gibbsian.evaluators.free_energy import check_rows
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers.base import as_generator
from gibbsian.units import base as unit

_CHUNK_ELEMENTS = 2**22


@dataclass(frozen=True)
class Reconstruction:
    """Means over rows of what one step v → h → E[v | h] loses.

    Attributes
    ----------
    squared_error : float
        Per visible column: mean of (v_i − E[v_i | h])² over rows and columns.
    squared_error_sum : float
        Per row: the same summed over columns.
    cross_entropy : float
        Per row, in nats: mean of −log p(v | h), summed over columns. For bits it is the usual
        −Σ v log p + (1 − v) log(1 − p), and rates may stand for v; for real columns it is a density.
    """

    squared_error: float
    squared_error_sum: float
    cross_entropy: float


def reconstruction(
    machine: BoltzmannMachine,
    x: Float[Tensor, "rows n"],
    hidden: str = "mean",
    generator: Generator | int | None = None,
) -> Reconstruction:
    """Return the errors of one-step reconstructions of rows.

    v → h → E[v | h], with h = E[h | v] (``hidden="mean"``, no randomness) or a sample of it
    (``hidden="sample"``). In a deep machine h is the first hidden layer, by mean field of all. A small error
    says that the hidden layer holds the row, not that samples of the machine look like rows.

    Raises
    ------
    DataError
        If there are no rows, or they are outside the domain of the visible units.
    GibbsianError
        If `hidden` is neither of the two words.
    """
    if hidden not in ("mean", "sample"):
        raise GibbsianError(f"The hidden layer is taken by 'mean' or by 'sample', not {hidden!r}.")
    check_rows(machine, x)
    generator = as_generator(generator, machine)
    v = x.to(next(machine.parameters()))
    units, wide = machine.layers[0], unit.accumulator(v)
    squared = torch.zeros((), dtype=wide, device=v.device)
    nats = torch.zeros_like(squared)
    with torch.no_grad():
        for part in v.split(max(1, _CHUNK_ELEMENTS // sum(machine.sizes[:2]))):
            f = _down(machine, part, hidden, generator)
            squared += ((part - unit.mean(units, f)) ** 2).sum(dtype=wide)
            nats += unit.energy(units, part).sum() - (f * part).sum(dtype=wide)
            nats += units.log_partition(f).sum(dtype=wide)
    per_row = float(squared) / len(v)
    return Reconstruction(per_row / units.size, per_row, float(nats) / len(v))


def _down(
    machine: BoltzmannMachine, v: Float[Tensor, "rows n"], hidden: str, generator: Generator
) -> Float[Tensor, "rows n"]:
    """Return the visible fields that the first hidden layer, given v, sends back."""
    found = meanfield.infer(machine, v)
    if hidden == "mean":
        return machine.field(0, found.means)
    return machine.joints[0].down(machine.layers[1].sample(found.fields[1], generator))


def reconstruction_error(machine: BoltzmannMachine, x: Float[Tensor, "rows n"]) -> float:
    """Return the mean squared error per visible column of E[v | E[h | v]]."""
    return reconstruction(machine, x).squared_error
