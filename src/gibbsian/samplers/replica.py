"""Replica exchange on any ladder: chains at many levels that trade places."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian import memory
from gibbsian.arguments import whole
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine, Clamps
from gibbsian.samplers.base import ChainState, Info, Sampler
from gibbsian.samplers.gibbs import Gibbs
from gibbsian.samplers.ladder import Exchange, exchange
from gibbsian.samplers.levels import Levels


class ReplicaExchange(Sampler):
    """Replica exchange, or parallel tempering (Swendsen & Wang 1986; Hukushima & Nemoto 1996).

    A step makes Gibbs sweeps at every level of a ladder of machines, then swaps the states of neighbouring
    levels with probability min(1, e^Δ), Δ = [F_{i+1}(x_{i+1}) − F_i(x_{i+1})] − [F_{i+1}(x_i) − F_i(x_i)]. At
    level 0 a sweep is a fresh exact sample, so what comes up the ladder has forgotten where it was. The
    levels below the top live in ``ChainState.extra``. Each chain has a ladder of its own, so chains stay
    independent. Only even layers (the visible one) may be held.

    Parameters
    ----------
    sweeps : int
        Gibbs sweeps at each level in a step.

    Notes
    -----
    ``Info.diagnostics`` holds ``acceptance`` (levels − 1,), the share of chains whose neighbours swapped in
    this step; ``gains`` (levels − 1, 2, chains), F_i − F_{i+1} in nats at both levels before their swap; and
    ``round_trips`` (chains,), how often a replica came from the bottom to the top and back since `init`.
    ``extra`` holds ``replica`` and ``direction`` (levels, chains): which replica stands where, and 1 where
    it was at the bottom last, −1 where at the top after that, 0 where it has not been at the bottom.
    """

    # What stands at the top may have come there by a swap.
    draws_visible = False

    def __init__(self, sweeps: int = 1) -> None:
        self.sweeps = whole(sweeps, "The number of sweeps of tempering")

    @abstractmethod
    def first(
        self, machine: BoltzmannMachine, generator: Generator | None
    ) -> tuple[Levels, Mapping[str, Tensor]]:
        """Return the levels for new chains, and what the state has to keep to find them again."""

    @abstractmethod
    def levels_at(self, machine: BoltzmannMachine, state: ChainState) -> Levels:
        """Return the levels of these chains, for the machine as it is now."""

    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Place the visible layer at the top; fill the levels below by annealing from the reference."""
        check_clamps(clamps, "Tempering")
        chains = len(visible)
        top = Gibbs().init(machine, visible, generator, clamps).layers
        levels, kept = self.first(machine, generator)
        memory.check(
            visible, chains * levels.size * self.footprint(machine),
            f"{chains:,} chains at {levels.size} levels of tempering",
            "ask for fewer chains or levels",
        )  # fmt: skip
        with torch.no_grad():
            below = levels.climb(chains, generator, clamps, self.sweeps)
        lower = {f"lower_{i}": torch.cat([s[i] for s in below]) for i in range(len(top))}
        place_of = torch.arange(levels.size, device=visible.device)[:, None].repeat(1, chains)
        extra = {
            **kept, "replica": place_of, "direction": _turned(torch.zeros_like(place_of))[0],
            "round_trips": torch.zeros_like(place_of[0]),
        }  # fmt: skip
        return ChainState(top, lower | extra)

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Sweep every level, and swap neighbours between the halves of the last sweep."""
        check_clamps(clamps, "Tempering")
        levels, rows = self.levels_at(machine, state), levels_of(state)
        for turn in range(self.sweeps):
            levels.draw(rows, levels.fields(0, rows), generator, clamps)
            fields = levels.fields(1, rows)
            if turn < self.sweeps - 1:
                levels.draw(rows, fields, generator)
        # The odd layers are summed out in the swaps, and drawn at the level where their row ends up.
        swaps = self._swap(levels, rows, fields, generator)
        levels.draw(rows, fields, generator)
        return _state(state, rows, fields, swaps)

    def _swap(
        self, levels: Levels, rows: Sequence[Tensor], fields: Mapping[int, Tensor],
        generator: Generator | None,
    ) -> Exchange:  # fmt: skip
        return exchange(levels, rows, fields, generator)


def levels_of(state: ChainState) -> list[Tensor]:
    """Return the states of all levels, one tensor (levels · chains, n) a layer, the top last."""
    return [torch.cat([state.extra[f"lower_{i}"], s]) for i, s in enumerate(state.layers)]


def check_clamps(clamps: Clamps | None, who: str) -> None:
    """Refuse held units of odd layers, which are summed out.

    Raises
    ------
    GibbsianError
        If there are any.
    """
    odd = [i for i in clamps or {} if i % 2]
    if odd:
        raise GibbsianError(
            f"{who} holds units of even layers only, and layer {odd[0]} is odd; use gb.Gibbs() for it."
        )


def _state(
    before: ChainState, rows: Sequence[Tensor], fields: Mapping[int, Tensor], swaps: Exchange
) -> tuple[ChainState, Info]:
    """Take the top off the levels, and count who came to either end."""
    levels, chains = before.extra["replica"].shape
    split = (levels - 1) * chains
    moved = {
        k: before.extra[k].flatten()[swaps.order].view(levels, chains)
        for k in ("replica", "direction")
    }
    moved["direction"], home = _turned(moved["direction"])
    trips = before.extra["round_trips"] + home
    lower = {f"lower_{i}": s[:split] for i, s in enumerate(rows)}
    extra = {**before.extra, **lower, **moved, "round_trips": trips}
    told = {
        "acceptance": swaps.accepted.double().mean(dim=1),
        "gains": swaps.gains,
        "round_trips": trips,
    }
    top = ChainState(tuple(s[split:] for s in rows), extra)
    return top, Info({i: f[split:] for i, f in fields.items()}, told)


def _turned(direction: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the replicas at both ends; return the directions, and 1 for each that came home from the top."""
    home, out = (direction[0] == -1).long(), direction.clone()
    out[0] = 1
    # Only who has been at the bottom is on a round trip.
    out[-1] = torch.where(direction[-1] == 1, -1, direction[-1])
    return out, home
