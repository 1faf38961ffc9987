"""Tempered transitions: proposals that climb down a ladder to its exact end and up again."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.machine import BoltzmannMachine, Clamps
from gibbsian.path import BaseRatePath, levels_or_number
from gibbsian.samplers.base import ChainState, Info, Sampler
from gibbsian.samplers.gibbs import Gibbs, draw
from gibbsian.samplers.ladder import place
from gibbsian.samplers.origin import Origin
from gibbsian.samplers.replica import check_clamps

# Standard deviation of a proposal's log weight that levels are counted for.
_SPREAD = 1.0
# Levels are passed one after another, so that there may be many.
_MOST = 100_000


class TemperedTransitions(Sampler):
    """Tempered transitions (Neal 1996): each chain heats up to independence and cools down again, or stays.

    On the levels β_K = 1 > … > β_0 = 0 of the base-rate path, a proposal starts at the chain's state x, moves
    by Gibbs sweeps at β_{K−1}, …, β_0 (there it is a fresh exact sample), β_1, …, β_{K−1}, and is accepted
    with probability min(1, w),

        log w = Σ_down [F_k(x) − F_{k−1}(x)] + Σ_up [F_{k−1}(x) − F_k(x)],

    each term at the state before the level changes, the odd layers summed out: such sweeps of the even layers
    are reversible, as the method needs. A step also makes a Gibbs sweep at β = 1. Nothing but the chain
    itself is kept, so it takes the memory of Gibbs, where tempering keeps all levels; but a proposal passes
    the ladder twice and may be refused as a whole.

    Parameters
    ----------
    reference : BoltzmannMachine or Tensor (rows, visible)
        A machine with W = 0 (`gibbsian.path.reference`), or data rows to fit one to.
    levels : int or sequence of float, optional
        Values of β that rise from exactly 0 to exactly 1; or how many, placed by a pilot run at each `init`.
        Unless given, 2Λ² for a path of thermodynamic length Λ, for log weights of a standard deviation of
        about 1.
    sweeps : int
        Gibbs sweeps at each level.

    Raises
    ------
    GibbsianError
        If a setting is impossible; and, of `init` and `step`, if the reference does not fit the machine.

    Notes
    -----
    ``Info.diagnostics`` holds ``acceptance`` (chains,), 1 where the proposal was accepted and 0 elsewhere,
    and ``log_weight`` (chains,) in nats.
    """

    # What stands after a step may be older than its fields.
    draws_visible = False

    def __init__(
        self,
        reference: BoltzmannMachine | Float[Tensor, "rows n"] | Any,
        levels: int | Sequence[float] | None = None,
        sweeps: int = 1,
    ) -> None:
        self.sweeps = whole(sweeps, "The number of sweeps of tempered transitions")
        self.levels, self.betas = levels_or_number(levels, "tempered transitions")
        self._origin = Origin(reference, "tempered transitions")

    def footprint(self, machine: BoltzmannMachine) -> int:
        """Count the proposal, which walks beside its chain."""
        return 2 * super().footprint(machine)

    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Place the visible layer, and the levels where they were not given."""
        check_clamps(clamps, "A tempered transition")
        path = self._origin.path(machine)
        layers = Gibbs().init(machine, visible, generator, clamps).layers
        betas = self.betas or place(path, self.levels, generator, _count, _MOST)
        return ChainState(layers, {"betas": torch.tensor(betas, dtype=torch.float64)})

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Make a Gibbs sweep, propose, and accept or not; then draw the odd layers."""
        check_clamps(clamps, "A tempered transition")
        path, betas = self._origin.path(machine), state.extra["betas"].tolist()
        layers = list(state.layers)
        draw(machine, layers, 0, generator, clamps)
        fields = path.fields(1, layers)
        walk = _Walk(path, layers, fields, generator, clamps, self.sweeps)
        log_weight = walk.there_and_back(betas)
        hit = self._accepted(log_weight, generator)
        for i in machine.parity(0):
            layers[i] = torch.where(hit[:, None], walk.layers[i].to(layers[i]), layers[i])
        fields = {i: torch.where(hit[:, None], walk.fields[i], f) for i, f in fields.items()}
        draw(machine, layers, 1, generator, fields=fields)
        told = {"acceptance": hit.double(), "log_weight": log_weight}
        return ChainState(tuple(layers), state.extra), Info(fields, told)

    def _accepted(self, log_weight: Tensor, generator: Generator | None) -> Tensor:
        u = torch.rand(
            log_weight.shape, generator=generator, dtype=log_weight.dtype, device=log_weight.device
        )
        return u.log() < log_weight


def _count(length: float) -> int:
    """Return how many levels a path of this length needs: K = 2 Λ² / s², at least 2."""
    return max(2, 1 + math.ceil(2 * length**2 / _SPREAD**2))


class _Walk:
    """Even layers on their way along the path, with the target's fields on the odd ones."""

    def __init__(
        self, path: BaseRatePath, layers: list[Tensor], fields: dict[int, Tensor],
        generator: Generator | None, clamps: Clamps | None, sweeps: int,
    ) -> None:  # fmt: skip
        self.path, self.layers, self.fields = path, list(layers), fields
        self.generator, self.clamps, self.sweeps = generator, clamps, sweeps

    def there_and_back(self, betas: Sequence[float]) -> Float[Tensor, " chains"]:
        """Walk to β = 0 and back; return log w."""
        last = len(betas) - 1
        total = torch.zeros(len(self.layers[0]), dtype=torch.float64, device=self.layers[0].device)
        for k in range(last, 0, -1):
            total = total - self._gain(betas[k - 1], betas[k])
            self._move(betas[k - 1])
        for k in range(last):
            total = total + self._gain(betas[k], betas[k + 1])
            if k + 1 < last:
                self._move(betas[k + 1])
        return total

    def _gain(self, low: float, high: float) -> Float[Tensor, " chains"]:
        return self.path.gain(self.layers, self.fields, low, high)

    def _move(self, beta: float) -> None:
        """Make Gibbs sweeps at β: odd given even, then even given odd."""
        now = self.path.at(beta)
        for _ in range(self.sweeps):
            above = {i: beta * f for i, f in self.fields.items()}
            draw(now, self.layers, 1, self.generator, None, above)
            below = {i: beta * f for i, f in self.path.fields(0, self.layers).items()}
            draw(now, self.layers, 0, self.generator, self.clamps, below)
            self.fields = self.path.fields(1, self.layers)
