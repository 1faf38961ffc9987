"""Rates-FPCD: a sampler that fast weights keep moving, driven by the data's mean statistics."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import number, switch
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine, Clamp, Clamps, State
from gibbsian.samplers.base import ChainState, Info, Sampler, as_rows
from gibbsian.samplers.gibbs import Gibbs, draw
from gibbsian.units import base as unit

# Clamped Gibbs sweeps for the data's statistics in a machine with more than one hidden layer.
_SWEEPS = 10
# Copies of a chain's fast couplings while they move: before and after, decayed, the products of its states,
# their distance from the data's, and the state that a caller may hold.
_FAST = 6


class RatesFPCD(Sampler):
    """Rates-FPCD (Breuleux, Bengio & Vincent 2011): Gibbs steps under θ + θ_F, for trained machines.

    With S̄ the mean statistics of the data (states of the units, and products along couplings; those of the
    hidden units by their conditional means), each chain has fast weights θ_F of its own, as in the paper,
    where there is one chain. A step is

        s ~ Gibbs under θ + θ_F,    θ_F ← decay · θ_F + rate · (S̄ − T(s)).

    So a chain is driven away from where it stays longer than the data do. **This is no sampler of the
    machine**: it perturbs the distribution, the more the higher the rate (the tests measure by how much), and
    its chains are no basis for likelihoods. It is meant for seeing many modes in few steps. With a
    rate of 0 it is block Gibbs.

    With ``statistics="sampled"`` a draw takes the place of S̄ at each step: a row of the data for each chain,
    with sampled hidden units. So FPCD's own chains move once nothing is learned (Tieleman & Hinton 2009). The
    draw's mean is S̄, so both drive chains to the same means, rates without the noise and the work of drawing.

    Biases and couplings have fast weights, for units of any family; precisions keep to the machine's.

    Parameters
    ----------
    data : Tensor (rows, n)
        Rows whose statistics drive the chains.
    rate : float
        ε, the learning rate of the fast weights.
    decay : float
        α, what is left of them after a step.
    shared : bool
        Give all chains the same fast weights, driven by their mean statistics. This takes the memory of one
        copy of the couplings and not one a chain, and drives their mean but hardly each of them.
    statistics : {"rates", "sampled"}
        What stands for the data: their means, or rows drawn anew.

    Raises
    ------
    GibbsianError
        If the rate or the decay is impossible, there are no such statistics, or the data are no rows of
        values.

    References
    ----------
    Breuleux, Bengio & Vincent (2011), "Quickly generating representative samples from an RBM-derived
    process".

    Tieleman & Hinton (2009), "Using fast weights to improve persistent contrastive divergence".
    """

    # The visible layer is drawn by a machine that is a little off.
    draws_visible = False

    def __init__(
        self,
        data: Any,
        rate: float = 0.005,
        decay: float = 0.95,
        shared: bool = False,
        statistics: str = "rates",
    ) -> None:
        if number(rate, "The learning rate of fast weights") < 0:
            raise GibbsianError(
                f"The learning rate of fast weights is 0 or positive, not {rate!r}."
            )
        if not 0 <= number(decay, "The decay of fast weights") < 1:
            raise GibbsianError(f"The decay of fast weights lies in [0, 1), not {decay!r}.")
        if statistics not in ("rates", "sampled"):
            raise GibbsianError(
                f"The statistics of the data are 'rates' or 'sampled', not {statistics!r}."
            )
        self.data = as_rows(data, "Rates-FPCD takes rows of data that drive its chains")
        self.rate, self.decay = float(rate), float(decay)
        self.shared = switch(shared, "Whether fast weights are shared")
        self.statistics = statistics

    @torch.no_grad()
    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Place the chains as block Gibbs does, form S̄, and begin with fast weights of 0."""
        state = Gibbs().init(machine, visible, generator, clamps)
        machine.check(self.data)
        rows = self._rows(machine, generator)
        extra, count = {}, 1 if self.shared else len(visible)
        for k, t in _mean(machine, rows, generator).items():
            if self.statistics == "rates":
                extra[f"rates.{k}"] = t
            extra[f"fast.{k}"] = t.new_zeros(count, *t.shape)
        return ChainState(state.layers, extra)

    def _rows(
        self, machine: BoltzmannMachine, generator: Generator | None, count: int | None = None
    ) -> Float[Tensor, "rows n"]:
        """Return the data as states of the visible layer, all rows or some at random."""
        like, rows = next(machine.parameters()), self.data
        if count is not None:
            drawn = torch.randint(len(rows), (count,), generator=generator, device=like.device)
            rows = rows[drawn.to(rows.device)]
        return unit.states(machine.layers[0], rows.to(like), generator)

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Draw the even layers, then the odd ones, under θ + θ_F; then move θ_F."""
        layers, extra = list(state.layers), dict(state.extra)
        fields: dict[int, Tensor] = {}
        for parity in (0, 1):
            fields = machine.fields(parity, layers)
            for i, f in fields.items():
                push = self._push(machine, layers, extra, i)
                s = machine.layers[i].sample((f + push).contiguous(), generator)
                layers[i] = clamps[i].apply(s) if clamps and i in clamps else s
        wanted = self._wanted(machine, extra, len(layers[0]), generator)
        for k, now in self._statistics(machine, layers).items():
            gap = wanted[k] - now
            extra[f"fast.{k}"] = torch.add(self.decay * extra[f"fast.{k}"], gap, alpha=self.rate)
        return ChainState(tuple(layers), extra), Info(fields)

    def footprint(self, machine: BoltzmannMachine) -> int:
        """Count fast couplings of each chain's own as well."""
        own = 0 if self.shared else sum(c.weight.numel() for c in machine.joints)
        return super().footprint(machine) + _FAST * own

    def _wanted(
        self,
        machine: BoltzmannMachine,
        extra: dict[str, Tensor],
        chains: int,
        generator: Generator | None,
    ) -> dict[str, Tensor]:
        """Return S̄, or the statistics of a row of the data for each chain."""
        if self.statistics == "rates":
            return {k.removeprefix("rates."): t for k, t in extra.items() if k.startswith("rates.")}
        layers = list(_beside(machine, self._rows(machine, generator, chains), generator))
        draw(machine, layers, 1, generator)
        return self._statistics(machine, layers)

    def _push(
        self, machine: BoltzmannMachine, layers: list[Tensor], extra: dict[str, Tensor], i: int
    ) -> Tensor:
        """Return the field of the fast weights on layer i: a bias is a field that is always there."""
        total = extra[f"fast.layer.{i}"].to(layers[0])
        if i > 0:
            total = total + self._through(machine.joints[i - 1].up, layers[i - 1], extra, i - 1)
        if i < len(machine.joints):
            total = total + self._through(machine.joints[i].down, layers[i + 1], extra, i)
        return total

    def _through(
        self, way: Callable[..., Tensor], s: Tensor, extra: dict[str, Tensor], joint: int
    ) -> Tensor:
        """Return the field that fast couplings make of states, each chain with its own unless shared."""
        couplings = extra[f"fast.joint.{joint}"]
        return way(s, couplings[0]) if self.shared else torch.vmap(way)(s, couplings)

    def _statistics(self, machine: BoltzmannMachine, layers: list[Tensor]) -> dict[str, Tensor]:
        """Return the statistics of each chain, or their mean."""
        if self.shared:
            return {k: t[None] for k, t in _averages(machine, layers).items()}
        found = {f"layer.{i}": s for i, s in enumerate(layers)}
        for i, c in enumerate(machine.joints):
            each = torch.vmap(c.statistics)(layers[i][:, None], layers[i + 1][:, None])
            found[f"joint.{i}"] = each
        return found


def _averages(machine: BoltzmannMachine, state: list[Tensor]) -> dict[str, Tensor]:
    """Return mean states of all layers, and mean statistics of all couplings."""
    found = {f"layer.{i}": s.mean(dim=0) for i, s in enumerate(state)}
    for i, c in enumerate(machine.joints):
        found[f"joint.{i}"] = c.statistics(state[i], state[i + 1])
    return found


def _mean(
    machine: BoltzmannMachine, rows: Float[Tensor, "rows n"], generator: Generator | None
) -> dict[str, Tensor]:
    """Return S̄: mean statistics with the rows as visible layer and the odd layers at their means."""
    state = _beside(machine, rows, generator)
    values = list(state)
    for i, f in machine.fields(1, state).items():
        values[i] = unit.mean(machine.layers[i], f)
    return _averages(machine, values)


def _beside(
    machine: BoltzmannMachine, rows: Float[Tensor, "rows n"], generator: Generator | None
) -> State:
    """Return states with the rows as visible layer; odd layers, which follow from the even, are any."""
    if len(machine.layers) == 2:
        return rows, rows
    held = {0: Clamp(torch.ones_like(rows, dtype=torch.bool), rows)}
    chain = Gibbs().init(machine, rows, generator, held)
    for _ in range(_SWEEPS):
        chain, _ = Gibbs().step(machine, chain, generator, held)
    return chain.layers
