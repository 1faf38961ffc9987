"""Free energies of rows, a chunk at a time, and their gap between training and validation rows."""

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.errors import DataError, GibbsianError
from gibbsian.machine import BoltzmannMachine

_CHUNK_ELEMENTS = 2**22


def free_energies(
    machine: BoltzmannMachine, x: Float[Tensor, "rows n"], what: str = "The rows"
) -> Float[Tensor, " rows"]:
    """Return F(v) = −log Σ_h exp(−E(v, h)) of each row in nats, summed in float64.

    Raises
    ------
    DataError
        If there are no rows, or they are outside the domain of the visible units.
    GibbsianError
        If the machine has more than one hidden layer.
    """
    check_rows(machine, x, what)
    like = next(machine.parameters())
    chunk = max(1, _CHUNK_ELEMENTS // sum(machine.sizes))
    with torch.no_grad():
        return torch.cat([machine.free_energy(part.to(like)) for part in x.split(chunk)])


def free_energy_gap(
    machine: BoltzmannMachine,
    train: Float[Tensor, "rows n"],
    validation: Float[Tensor, "others n"],
) -> float:
    """Return the mean free energy of validation rows minus that of training rows, in nats per row.

    It needs no log Z. Near 0 the machine treats both alike; a gap that grows while training goes on
    is overfitting (Hinton 2010, §6). Compare as many training rows as validation rows.

    Raises
    ------
    DataError
        If either has no rows, or they are outside the domain of the visible units.
    GibbsianError
        If the machine has more than one hidden layer.
    """
    free = free_energies(machine, validation, "The validation rows")
    return float(free.mean() - free_energies(machine, train, "The training rows").mean())


def check_rows(machine: BoltzmannMachine, x: Tensor, what: str = "The rows") -> None:
    """Raise unless `x` are rows of the visible layer, at least one."""
    if x.ndim == 2 and len(x) == 0:
        raise DataError(f"{what} are none, and an evaluation needs at least one row.")
    machine.check(x, what)


def check_one_hidden_layer(machine: BoltzmannMachine, what: str) -> None:
    """Raise a `GibbsianError` if the free energy of the visible layer has no closed form."""
    if len(machine.layers) != 2:
        raise GibbsianError(
            f"{what} needs the free energy of the visible layer, which has a closed form with one "
            f"hidden layer only, and this machine has {len(machine.layers) - 1}."
        )
