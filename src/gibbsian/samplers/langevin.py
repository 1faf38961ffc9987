"""Langevin moves of real-valued visible units, with Gibbs steps of all others."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import number, switch, whole
from gibbsian.errors import DataError, GibbsianError
from gibbsian.machine import BoltzmannMachine, Clamp, Clamps
from gibbsian.samplers.base import ChainState, Info, Sampler
from gibbsian.samplers.gibbs import Gibbs, draw
from gibbsian.units import base as unit
from gibbsian.units.base import Units


class Langevin(Sampler):
    """Langevin moves on the energy of the visible layer, adjusted by Metropolis's rule or not.

    Where the visible units are Gaussian with precisions γ, a move of size η is

        v′ = v − η ∇U(v) + √(2η) ξ,    ξ ~ N(0, 1)

    for each chain by itself: neither the energy nor its gradient is divided by the number of chains. U
    is the free energy F(v) with the odd layers summed out, or the energy E(v, h) at hidden states h that are
    drawn by Gibbs steps in between (Gibbs–Langevin: Liao et al. 2022). All other layers are drawn by
    block Gibbs.

    Adjusted moves (MALA: Roberts & Tweedie 1996) are accepted with probability min(1, r),

        log r = U(v) − U(v′) − ‖v − v′ + η∇U(v′)‖²/4η + ‖v′ − v + η∇U(v)‖²/4η,

    and leave the machine's distribution as it is. Unadjusted ones are biased: at W = 0 their variance is
    1/(γ(1 − ηγ/2)) in place of 1/γ.

    Parameters
    ----------
    size : float
        η; in units of each column's variance 1/γ if `scaled`, else in squared units of the data. ηγ must
        be below 2, or the chains diverge.
    adjusted : bool
        Whether moves are accepted or rejected.
    hidden : {"summed", "sampled"}
        Which U: F(v), or E(v, h).
    moves : int
        Langevin moves a step.
    scaled : bool
        Give each column the size η/γ: one η then suits columns of any scale.

    Raises
    ------
    GibbsianError
        If a setting is impossible; from `init` also if the visible layer is not real-valued or the moves are
        too large for it.
    """

    # Moves start from where the visible layer was.
    draws_visible = False

    def __init__(
        self,
        size: float = 0.1,
        adjusted: bool = True,
        hidden: str = "summed",
        moves: int = 1,
        scaled: bool = True,
    ) -> None:
        if not number(size, "The size of Langevin moves") > 0:
            raise GibbsianError(f"The size of Langevin moves must be positive, not {size!r}.")
        if hidden not in ("summed", "sampled"):
            raise GibbsianError(f"Hidden layers are summed or sampled, not {hidden!r}.")
        self.size, self.hidden = float(size), hidden
        self.adjusted = switch(adjusted, "Whether Langevin moves are adjusted")
        self.scaled = switch(scaled, "Whether Langevin moves are scaled")
        self.moves = whole(moves, "The number of Langevin moves a step")

    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Place the chains as block Gibbs does."""
        self._sizes(machine.layers[0])
        return Gibbs().init(machine, visible, generator, clamps)

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Move the visible layer, then draw the other even layers and the odd ones."""
        layers, sizes = list(state.layers), self._sizes(machine.layers[0])
        accepted = torch.zeros_like(layers[0][:, 0])
        for _ in range(self.moves):
            layers[0], taken = self._move(machine, layers, sizes, generator, clamps)
            accepted += taken / self.moves
        if len(layers) > 2:
            if self.hidden == "summed":
                # The visible layer moved with the odd ones summed out: these are drawn anew first.
                draw(machine, layers, 1, generator, clamps)
            v = layers[0]
            draw(machine, layers, 0, generator, clamps)
            layers[0] = v
        fields = draw(machine, layers, 1, generator, clamps)
        return ChainState(tuple(layers)), Info(fields, {"acceptance": accepted})

    def _move(
        self, machine: BoltzmannMachine, layers: list[Tensor], sizes: Tensor,
        generator: Generator | None, clamps: Clamps | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the visible layer after a move, and which chains took it."""
        v = layers[0]
        clamp = clamps.get(0) if clamps else None
        energy, drift = self._look(machine, layers, clamps)
        noise = torch.randn(v.shape, generator=generator, dtype=v.dtype, device=v.device)
        ahead = v - sizes * drift
        new = ahead + (2 * sizes).sqrt() * noise
        if clamp is not None:
            new = clamp.apply(new)
        if not self.adjusted:
            return new, torch.ones_like(v[:, 0])
        energy_new, drift_new = self._look(machine, [new, *layers[1:]], clamps)
        back = new - sizes * drift_new
        log_r = energy - energy_new + _distance(new, ahead, sizes, clamp)
        log_r = log_r - _distance(v, back, sizes, clamp)
        u = torch.rand(log_r.shape, generator=generator, dtype=v.dtype, device=v.device)
        taken = u.log() < log_r
        return torch.where(taken[:, None], new, v), taken.to(v.dtype)

    def _look(
        self, machine: BoltzmannMachine, layers: list[Tensor], clamps: Clamps | None
    ) -> tuple[Tensor, Tensor]:
        """Return U and ∇U: γ(v − m) with m = E[v | odd layers], at their states or at their means."""
        units, v = machine.layers[0], layers[0]
        precision = unit.tail_precision(units)
        if self.hidden == "sampled":
            drift = precision * (v - unit.mean(units, machine.field(0, layers)))
            return 0.5 * (drift**2 / precision).sum(dim=-1, dtype=unit.accumulator(v)), drift
        fields = machine.fields(1, layers)
        energy = machine.marginal_energy(layers, clamps=clamps, fields=fields)
        at = list(layers)
        for i, f in fields.items():
            at[i] = unit.mean(machine.layers[i], f)
            at[i] = clamps[i].apply(at[i]) if clamps and i in clamps else at[i]
        return energy, precision * (v - unit.mean(units, machine.field(0, at)))

    def _sizes(self, units: Units) -> Float[Tensor, " n"]:
        """Return η of each column, or refuse it.

        Raises
        ------
        GibbsianError
            If the units are not real-valued or a size is too large.
        """
        if not _is_real(units):
            raise GibbsianError(
                "Langevin moves need a visible layer of Gaussian units throughout; sample this machine "
                "with gb.Gibbs()."
            )
        precision = unit.tail_precision(units)
        sizes = self.size / precision if self.scaled else torch.full_like(precision, self.size)
        worst = float((sizes * precision).max())
        if not worst < 2:
            raise GibbsianError(
                f"Langevin moves of size {self.size:g} times a precision come to {worst:.3g} and must stay "
                f"below 2, or the chains diverge; use a size below {2 * self.size / worst:.3g}."
            )
        return sizes


def _distance(a: Tensor, b: Tensor, sizes: Tensor, clamp: Clamp | None) -> Tensor:
    """Return ‖a − b‖²/4η over the columns that are not held."""
    terms = (a - b) ** 2 / (4 * sizes)
    if clamp is not None:
        terms = terms.masked_fill(clamp.mask, 0)
    return terms.sum(dim=-1, dtype=unit.accumulator(a))


def _is_real(units: Units) -> bool:
    """Tell whether every column takes any real number."""
    if any(b is not None for b in units.domain.blocks()):
        return False
    try:
        for value in (-math.pi, math.pi):
            unit.check(units, torch.full((1, units.size), value))
    except DataError:
        return False
    return True
