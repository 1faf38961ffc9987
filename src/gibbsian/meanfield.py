"""Mean field: the factorial q over all hidden layers that fits the posterior given v.

    log p(v) ≥ E_q[−E(v, h)] + H(q) − log Z,   q(h) = Π_l p(h_l | f_l),

one field f_l on each hidden layer. Given the others, the best f_l is the field that the neighbours' means
make on layer l (Salakhutdinov & Hinton 2009, eq. 8), for units of any family. Layers of one parity do not
meet, so they are updated together, and no update lowers the bound.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.arguments import number, whole
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine, State
from gibbsian.moments import Terms
from gibbsian.units import base as unit

SWEEPS, TOLERANCE = 50, 1e-3


@dataclass(frozen=True)
class MeanField:
    """What `infer` found.

    Attributes
    ----------
    means : tuple of Tensor (rows, n_l)
        The rows themselves, and E_q[h_l] of each hidden layer.
    fields : dict of int to Tensor (rows, n_l)
        The field f_l that makes q on each hidden layer.
    sweeps : int
        Sweeps done.
    change : float
        The largest change of a mean in the last sweep.
    """

    means: State
    fields: Mapping[int, Tensor]
    sweeps: int
    change: float


@torch.no_grad()
def infer(
    machine: BoltzmannMachine,
    v: Float[Tensor, "rows n"],
    sweeps: int = SWEEPS,
    tolerance: float = TOLERANCE,
    damping: float = 0.0,
) -> MeanField:
    """Return q given the rows `v`, from an upward pass and sweeps over both parities.

    Parameters
    ----------
    machine : BoltzmannMachine
    v : Tensor (rows, n)
        Valid rows of the visible layer.
    sweeps : int
        Most sweeps. With one hidden layer q is the posterior at once.
    tolerance : float
        The largest change of a mean in a sweep at which they end.
    damping : float
        Share of the old fields that is kept at each update, in [0, 1). Updates by parity go uphill
        without any; damped ones do so more slowly, and can end at another optimum.

    Raises
    ------
    GibbsianError
        If a setting is impossible.
    """
    whole(sweeps, "The number of sweeps of mean field", 1)
    if number(tolerance, "The tolerance of mean field") < 0:
        raise GibbsianError(f"The tolerance of mean field must be 0 or more, not {tolerance!r}.")
    if not 0 <= number(damping, "The damping of mean field") < 1:
        raise GibbsianError(f"The damping of mean field lies in [0, 1), not {damping!r}.")
    means, fields = _upward(machine, v)
    below = fields[1]  # what the rows send up, the same in every sweep
    odd, even = machine.parity(1), list(machine.parity(0))[1:]
    done, change = 1, 0.0
    if even:
        for done in range(1, sweeps + 1):  # noqa: B007
            moved = [_update(machine, i, means, fields, below, damping) for i in (*odd, *even)]
            change = float(torch.stack(moved).max())
            if change < tolerance:
                break
        for i in odd:  # q of the odd layers is the exact conditional of the even means
            _update(machine, i, means, fields, below, 0.0)
    return MeanField(tuple(means), fields, done, change)


def _upward(machine: BoltzmannMachine, v: Tensor) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Return means and fields of each layer from the layer below alone."""
    means, fields = [v], {}
    for i, joint in enumerate(machine.joints, start=1):
        fields[i] = joint.up(means[-1])
        means.append(unit.mean(machine.layers[i], fields[i]))
    return means, fields


def _update(
    machine: BoltzmannMachine, layer: int, means: list[Tensor], fields: dict[int, Tensor],
    below: Tensor, damping: float,
) -> Tensor:  # fmt: skip
    """Move q of one layer to its neighbours' field; return the largest change of its mean."""
    field = below if layer == 1 else machine.joints[layer - 1].up(means[layer - 1])
    if layer < len(machine.joints):
        field = field + machine.joints[layer].down(means[layer + 1])
    if damping:
        field = field.lerp(fields[layer], damping)
    mean = unit.mean(machine.layers[layer], field)
    change = (mean - means[layer]).abs().max()
    means[layer], fields[layer] = mean, field
    return change


@torch.no_grad()
def terms(machine: BoltzmannMachine, q: MeanField) -> Terms:
    """Return the sufficient statistics of the rows under q.

    Those of a layer are E_q[T_k(h_l)], which for Gaussian or Binomial units are not T_k of the mean; those of
    couplings are products of means, since q is factorial.
    """
    found = {}
    for i, u in enumerate(machine.layers):
        each = u.conditional(q.fields[i]) if i else u.statistics(q.means[0])
        for k, t in each.items():
            found[f"units.{i}.{k}"] = t
    return Terms(machine.joints, q.means, found)


@torch.no_grad()
def free_bound(machine: BoltzmannMachine, q: MeanField) -> Float[Tensor, " rows"]:
    """Return E_q[−E(v, h)] + H(q) of each row in nats: log p(v) + log Z is no smaller.

    With H(f) − E_f[e(h)] = Γ(f) − f·m this is −e(v) + Σ_l (Γ_l(f_l) − f_l·m_l) + Σ_l ⟨m_l, c_l m_{l+1}⟩.
    With one hidden layer it is −F(v). Sums are in float64.
    """
    wide = unit.accumulator(q.means[0])
    total = -unit.energy(machine.layers[0], q.means[0])
    for i, f in q.fields.items():
        terms = unit.log_partition_sum(machine.layers[i], f)
        total = total + terms - (f * q.means[i]).sum(dim=-1, dtype=wide)
    for i, joint in enumerate(machine.joints):
        total = total + (joint.up(q.means[i]) * q.means[i + 1]).sum(dim=-1, dtype=wide)
    return total
