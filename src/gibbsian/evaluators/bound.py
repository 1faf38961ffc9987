"""The variational bound on the likelihood of rows under deep machines.

    log p(v) ≥ E_q[−E(v, h)] + H(q) − log Z,   q by mean field.

It needs log Z. With an upper bound of log Z in its place, as reverse AIS gives on average, it stays a lower
bound; with a lower one, as AIS gives, it need not.
"""

import copy
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian import meanfield
from gibbsian.evaluators.belief import Partition
from gibbsian.evaluators.free_energy import check_rows
from gibbsian.machine import BoltzmannMachine
from gibbsian.units import base as unit

_CHUNK_ELEMENTS = 2**22


@torch.no_grad()
def variational_free_energies(
    machine: BoltzmannMachine,
    x: Float[Tensor, "rows n"],
    what: str = "The rows",
    sweeps: int = meanfield.SWEEPS,
    tolerance: float = meanfield.TOLERANCE,
) -> Float[Tensor, " rows"]:
    """Return E_q[E(v, h)] − H(q) of each row in nats: F(v) is no larger. For one hidden layer it is F(v).

    q is found in the machine's own precision; what it bounds is then computed in float64 throughout, since
    large terms cancel. (A bound holds for any q.)

    Parameters
    ----------
    machine : BoltzmannMachine
        Of any depth.
    x : Tensor (rows, visible)
        States of the visible units.
    what : str
        What the rows are called in an error.
    sweeps, tolerance
        Of mean field: see `gibbsian.meanfield.infer`.

    Raises
    ------
    DataError
        If there are no rows, or they are outside the domain of the visible units.
    """
    check_rows(machine, x, what)
    like = next(machine.parameters())
    wide = copy.deepcopy(machine).to(unit.accumulator(like))
    found = []
    for part in x.split(max(1, _CHUNK_ELEMENTS // sum(machine.sizes))):
        q = meanfield.infer(machine, part.to(like), sweeps, tolerance)
        fields = {i: f.to(next(wide.parameters())) for i, f in q.fields.items()}
        hidden = (unit.mean(wide.layers[i], f) for i, f in fields.items())
        means = (part.to(next(wide.parameters())), *hidden)
        found.append(-meanfield.free_bound(wide, replace(q, fields=fields, means=means)))
    return torch.cat(found)


def variational_bound(
    machine: BoltzmannMachine, x: Float[Tensor, "rows n"], log_z: float | Partition
) -> Float[Tensor, " rows"]:
    """Return E_q[−E(v, h)] + H(q) − log Z of each row in nats, in float64: log p(v) is no smaller.

    That holds with the true log Z or any number above it.

    Parameters
    ----------
    machine : BoltzmannMachine
    x : Tensor (rows, visible)
        States of the visible units.
    log_z : float or Partition
        log Z, or what `gibbsian.evaluators.partition` found.
    """
    value = log_z.log_z if isinstance(log_z, Partition) else float(log_z)
    return -variational_free_energies(machine, x) - value
