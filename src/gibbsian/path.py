"""Paths from a machine that is sampled exactly to the machine that is asked about."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian import units as families
from gibbsian.arguments import whole
from gibbsian.connections import Scaled
from gibbsian.errors import DataError, GibbsianError
from gibbsian.machine import BoltzmannMachine, State
from gibbsian.units import base as unit
from gibbsian.units.base import Units

# Rows whose statistics are formed at once.
_ROWS = 512


def data_statistics(
    units: Units,
    chunks: Iterable[Float[Tensor, "_ n"]],
    weights: Float[Tensor, " rows"] | Float[np.ndarray, " rows"] | None = None,
) -> tuple[dict[str, Tensor], int]:
    """Return the mean of each sufficient statistic over the data, in float64, and the row count.

    `weights` of the rows, in the order of the chunks, make it the weighted mean.

    Raises
    ------
    DataError
        If there are no rows.
    """
    totals: dict[str, Tensor] = {}
    rows = 0
    like = next(units.parameters())
    wide = unit.accumulator(like)
    for x in (piece for chunk in chunks for piece in chunk.split(_ROWS)):
        w = (
            None
            if weights is None
            else torch.as_tensor(weights[rows : rows + len(x)]).to(like.device, wide)
        )
        rows += len(x)
        # Squares are formed in float64 too, or a mean far from 0 would drown the variance.
        for k, t in units.statistics(x.to(device=like.device, dtype=wide)).items():
            part = t.sum(dim=0) if w is None else w @ t
            totals[k] = totals[k] + part if k in totals else part
    if rows == 0:
        raise DataError("The data have no rows, so nothing can be fitted to them.")
    total = rows if weights is None else float(weights.sum())
    return {k: t / total for k, t in totals.items()}, rows


def fit_units(units: Units, mean: Mapping[str, Tensor], rows: int) -> None:
    """Set the units' parameters to the independent units with these (smoothed) mean statistics."""
    with torch.no_grad():
        # On the CPU, in float64, which not every device has.
        for name, value in units.domain.natural(
            {k: t.cpu() for k, t in mean.items()}, rows
        ).items():
            p = units.get_parameter(name)
            p.copy_(value.to(p.dtype))


def reference(
    machine: BoltzmannMachine, data: Float[Tensor, "rows n"] | tuple[Mapping[str, Tensor], int]
) -> BoltzmannMachine:
    """Build the reference machine: W = 0, visible units fitted to the data, the others as the data see them.

    Hidden units keep their parameters, but for biases that gain the field Wᵀ⟨v⟩ of the data's mean (and so on
    upwards): on the way to the machine, couplings then only replace a mean field by the true one. Its samples
    are exact and its log Z is known. `data` are rows, or what `data_statistics` returned for them.
    """
    base = copy.deepcopy(machine)
    stats = data if isinstance(data, tuple) else data_statistics(base.layers[0], [data])
    fit_units(base.layers[0], *stats)
    with torch.no_grad():
        for c in base.joints:
            c.weight.zero_()
    settle(base, machine, stats[0])
    return base


@torch.no_grad()
def settle(base: BoltzmannMachine, machine: BoltzmannMachine, mean: Mapping[str, Tensor]) -> None:
    """Give a reference the hidden layers of the machine, in the field of the layers below at their means.

    `mean` are the mean statistics of the visible layer, of the data.
    """
    state = unit.state_mean(machine.layers[0], mean).to(next(machine.parameters()))
    for ours, theirs, joint in zip(
        base.layers[1:], machine.layers[1:], machine.joints, strict=True
    ):
        ours.load_state_dict(theirs.state_dict())
        field = joint.up(state)
        leaves = unit.leaves(ours)
        for leaf, part in zip(leaves, field.split([m.size for m in leaves]), strict=True):
            leaf.get_parameter("bias").add_(part)
        state = unit.mean(theirs, field)


class BaseRatePath:
    """The straight path from a reference machine (W = 0) to a target, in natural parameters.

    At β the natural parameters are (1 − β) η_0 + β η_1 and the couplings β W: precisions are
    interpolated themselves, never their logarithms, so proper ends give a proper path. (The
    base-rate path of Salakhutdinov & Murray 2008.)

    Parameters
    ----------
    start : BoltzmannMachine
        A machine with all couplings 0, of the target's shape: see `reference`.
    target : BoltzmannMachine
    """

    def __init__(self, start: BoltzmannMachine, target: BoltzmannMachine) -> None:
        self.start, self.target = start, target
        self._scaled = [Scaled(c, 1.0) for c in target.joints]
        self._moving = BoltzmannMachine(copy.deepcopy(target.layers), self._scaled)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the parameters of both ends as they are now."""
        ends = list(zip(self.start.layers, self.target.layers, strict=True))
        self._naturals = [(unit.natural(u0), unit.natural(u1)) for u0, u1 in ends]
        self._ends = []
        for u, (u0, u1) in zip(self._moving.layers, ends, strict=True):
            named = zip(
                u.named_parameters(), u1.parameters(), _naturals(u0), _naturals(u1), strict=True
            )
            for (k, p), now, e0, e1 in named:
                p.copy_(now)
                if not torch.equal(e0, e1):
                    self._ends.append((p, e0, e1, unit.is_log(k)))

    def at(self, beta: float) -> BoltzmannMachine:
        """Return the machine at β in [0, 1]: one object, which moves with each call."""
        for c in self._scaled:
            c.factor = beta
        with torch.no_grad():
            for p, e0, e1, logarithm in self._ends:
                now = torch.lerp(e0, e1, beta)
                p.copy_(now.log() if logarithm else now)
        return self._moving

    @torch.no_grad()
    def gain(
        self, state: Sequence[Tensor], fields: Mapping[int, Tensor], low: float, high: float,
        kept: int = 0,
    ) -> Float[Tensor, "*batch"]:  # fmt: skip
        """Return F_low − F_high, the layers of one parity summed out (the odd ones), in float64.

        It is what AIS needs of two free energies, in one pass over the fields: with the fields f of
        the target on the odd layers, and energies e_β linear in β,
        (high − low) Σ_kept (η_1 − η_0)·T(s) + Σ_summed [Γ_high(high f) − Γ_low(low f)].

        Parameters
        ----------
        state : sequence of Tensor
            States; those of summed layers are not used.
        fields : mapping of int to Tensor
            Fields on the summed layers at β = 1.
        low, high : float
            Two values of β.
        kept : int
            Parity of the layers that are not summed out.
        """
        total = torch.zeros((), dtype=unit.accumulator(state[kept]), device=state[kept].device)
        for i in self.target.parity(kept):
            statistics = self.target.layers[i].statistics(state[i])
            for k, (e0, e1) in self._moved(i).items():
                total = total + (high - low) * (statistics[k].to(e1) @ (e1 - e0)).to(total.dtype)
        for i, f in fields.items():
            total = total + self._summed_gain(i, f, low, high)
        return total.expand(state[kept].shape[:-1])

    def _moved(self, layer: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Return both ends of the natural parameters of a layer that differ."""
        start, target = self._naturals[layer]
        pairs = {k: (start[k].detach(), target[k].detach()) for k in target}
        return {k: pair for k, pair in pairs.items() if not torch.equal(*pair)}

    def _summed_gain(self, layer: int, f: Tensor, low: float, high: float) -> Tensor:
        units = self.target.layers[layer]
        if units.gain is not None:
            b0, b1 = (ends["bias"].detach() for ends in self._naturals[layer])
            return units.gain(f, torch.lerp(b0, b1, low), torch.lerp(b0, b1, high), low, high)
        after = unit.log_partition_sum(self.at(high).layers[layer], high * f)
        return after - unit.log_partition_sum(self.at(low).layers[layer], low * f)

    def fields(self, parity: int, state: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return the target's fields on the layers of one parity, in the dtype of its parameters."""
        full = next(self.target.parameters()).dtype  # products may be in a narrower one
        return {i: f.to(full) for i, f in self.target.fields(parity, state).items()}

    def shift(self, layer: int) -> Float[Tensor, " n"] | None:
        """Return how much the biases of a layer change from the target to the start, where nothing else does.

        At β the layer then is the target's in the field β f + (1 − β) shift, so that one draw serves
        all β. None where other parameters change.
        """
        moved = self._moved(layer)
        if any(k.rpartition(".")[2] != "bias" for k in moved):
            return None
        start, target = self._naturals[layer]
        changes = [start[k] - target[k] for k in target if k.rpartition(".")[2] == "bias"]
        return torch.cat(changes).detach()

    def log_z0(self) -> float:
        """Return the log partition function of the start, exactly: Σ_l Γ_l(0)."""
        with torch.no_grad():
            terms = [u.log_partition(_row(u)) for u in self.start.layers]
        return sum(float(t.sum(dtype=unit.accumulator(t))) for t in terms)

    def draw(self, chains: int, generator: torch.Generator | None) -> State:
        """Draw exact samples of the start."""
        like = [_row(u) for u in self.start.layers]
        pairs = zip(self.start.layers, like, strict=True)
        return tuple(u.sample(r.new_zeros(chains, u.size), generator) for u, r in pairs)


def check_start(machine: BoltzmannMachine, reference: BoltzmannMachine | Any) -> None:
    """Raise a `GibbsianError` unless a path leads from the reference to the machine."""
    if not isinstance(reference, BoltzmannMachine):
        raise GibbsianError(
            "The reference is a machine with W = 0, such as gibbsian.path.reference(machine, rows), not "
            f"{type(reference).__name__}."
        )
    if [families.spec(u) for u in reference.layers] != [families.spec(u) for u in machine.layers]:
        raise GibbsianError(
            f"The reference machine has layers of {reference.sizes} units and the machine of "
            f"{machine.sizes}, or their units differ; build it with gibbsian.path.reference."
        )
    if any(bool(c.weight.any()) for c in reference.joints):
        raise GibbsianError(
            "The reference machine has couplings, so it cannot be sampled exactly; build it with "
            "gibbsian.path.reference."
        )


def check_levels(betas: Sequence[float] | Tensor | Any) -> list[float]:
    """Return β_0 = 0 … β_K = 1 as a list of floats.

    Raises
    ------
    GibbsianError
        If they do not rise from 0 to 1.
    """
    try:
        values = [float(b) for b in betas]
    except (TypeError, ValueError):
        values = []
    rising = all(a < b for a, b in pairwise(values))
    if len(values) < 2 or values[0] != 0 or values[-1] != 1 or not rising:
        raise GibbsianError(
            "The levels of a path are numbers that rise from exactly 0 to exactly 1, such as "
            f"[0, 0.5, 1], and {betas!r:.60} are not."
        )
    return values


def levels_or_number(
    levels: int | Sequence[float] | None, what: str
) -> tuple[int | None, list[float] | None]:
    """Return how many levels a ladder should have, or the values of β that were given; None for the other.

    Raises
    ------
    GibbsianError
        If they are fewer than two, or do not rise from 0 to 1.
    """
    if levels is None:
        return None, None
    if isinstance(levels, int) or not hasattr(levels, "__len__"):  # of Python or of NumPy
        return whole(levels, f"The number of levels of {what}", 2), None
    return None, check_levels(levels)


def _row(units: Units) -> Tensor:
    like = next(units.parameters())
    return torch.zeros(units.size, dtype=like.dtype, device=like.device)


def _naturals(units: Units) -> list[Tensor]:
    values = unit.natural(units)
    return [values[k].detach().clone() for k, _ in units.named_parameters()]
