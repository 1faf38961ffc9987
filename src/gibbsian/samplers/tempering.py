"""Parallel tempering: chains at many temperatures that trade places."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine, Clamps, State
from gibbsian.path import (
    BaseRatePath,
    check_levels,
    check_start,
    data_statistics,
    reference,
)
from gibbsian.samplers.annealed import anneal
from gibbsian.samplers.base import ChainState, Info, Sampler, as_rows
from gibbsian.samplers.gibbs import Gibbs
from gibbsian.samplers.ladder import Exchange, exchange, place


class Tempering(Sampler):
    """Parallel tempering, or replica exchange (Swendsen & Wang 1986; Hukushima & Nemoto 1996).

    For RBMs Desjardins et al. (2010). A ladder of levels 0 = β_0 < … < β_K = 1 stands on the base-rate path
    from a reference machine (W = 0) to the machine. A step makes Gibbs sweeps at every level, then swaps
    the states of neighbouring levels with probability min(1, e^Δ),
    Δ = [F_{i+1}(x_{i+1}) − F_i(x_{i+1})] − [F_{i+1}(x_i) − F_i(x_i)]. At level 0 a sweep is a fresh exact
    sample, so what comes up the ladder has forgotten where it was: the top level crosses between modes
    that Gibbs never leaves.

    The fields of all levels come from the same matrix product, and the swaps need no more: a step costs as
    much as Gibbs on K + 1 times the chains. The levels below the top live in ``ChainState.extra``. Each
    chain has a ladder of its own, so chains stay independent. Only even layers (the visible one) may be
    held.

    Parameters
    ----------
    reference : BoltzmannMachine or Tensor (rows, visible)
        A machine with W = 0 (`gibbsian.path.reference`), or data rows that the visible units of one are
        fitted to; its other units are then the machine's own.
    levels : int or sequence of float, optional
        Values of β that rise from exactly 0 to exactly 1; or how many, placed by a pilot run for equal
        acceptance at each `init`. Unless given, as many as an acceptance of about 0.3 needs. Give values for
        training, where the machine of the pilot has learned nothing yet.
    sweeps : int
        Gibbs sweeps at each level in a step.

    Raises
    ------
    GibbsianError
        If a setting is impossible; and, of `init` and `step`, if the reference does not fit the machine.

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

    def __init__(
        self,
        reference: BoltzmannMachine | Float[Tensor, "rows n"] | Any,
        levels: int | Sequence[float] | None = None,
        sweeps: int = 1,
    ) -> None:
        self.sweeps = whole(sweeps, "The number of sweeps of tempering")
        self.levels: int | None = None
        self.betas: list[float] | None = None
        if levels is not None and not isinstance(levels, int):
            self.betas = check_levels(levels)
        elif levels is not None:
            self.levels = whole(levels, "The number of levels of tempering", 2)
        self._reference = reference if isinstance(reference, BoltzmannMachine) else None
        self._rows = None if self._reference else as_rows(reference, _REFERENCE)
        self._statistics: tuple[Mapping[str, Tensor], int] | None = None
        self._known: BaseRatePath | None = None

    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Place the visible layer at the top; fill the levels below by annealing from the reference."""
        _check_clamps(clamps)
        path, chains = self._path(machine), len(visible)
        top = Gibbs().init(machine, visible, generator, clamps).layers
        betas = self.betas or place(path, self.levels, generator)
        below: list[State] = []
        anneal(path, betas[:-1], chains, generator, clamps, sweeps=self.sweeps,
               visit=lambda k, layers, fields: below.append(tuple(layers)))  # fmt: skip
        lower = {f"lower_{i}": torch.cat([s[i] for s in below]) for i in range(len(top))}
        place_of = torch.arange(len(betas), device=visible.device)[:, None].repeat(1, chains)
        extra = {
            "betas": torch.tensor(betas, dtype=torch.float64), "replica": place_of,
            "direction": _turned(torch.zeros_like(place_of))[0],
            "round_trips": torch.zeros_like(place_of[0]),
        }  # fmt: skip
        return ChainState(top, lower | extra)

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Sweep every level, and swap neighbours between the halves of the last sweep."""
        _check_clamps(clamps)
        betas, path = state.extra["betas"].tolist(), self._path(machine)
        rows = levels_of(state)
        for turn in range(self.sweeps):
            _draw(path, betas, rows, path.fields(0, rows), generator, clamps)
            fields = path.fields(1, rows)
            if turn < self.sweeps - 1:
                _draw(path, betas, rows, fields, generator)
        # The odd layers are summed out in the swaps, and drawn at the level where their row ends up.
        swaps = self._swap(path, betas, rows, fields, generator)
        _draw(path, betas, rows, fields, generator)
        return _state(state, rows, fields, swaps)

    def _swap(
        self, path: BaseRatePath, betas: Sequence[float], rows: Sequence[Tensor],
        fields: Mapping[int, Tensor], generator: Generator | None,
    ) -> Exchange:  # fmt: skip
        return exchange(path, betas, rows, fields, generator)

    def _path(self, machine: BoltzmannMachine) -> BaseRatePath:
        """Return the path to the machine as it is now."""
        path = self._known
        if path is None or path.target is not machine or not _alike(path.start, machine):
            path = BaseRatePath(self._start(machine), machine)
        if self._rows is not None:
            # Nothing is kept of the machine that the rows were first seen with, so runs resume bit for bit.
            for ours, theirs in zip(path.start.layers[1:], machine.layers[1:], strict=True):
                ours.load_state_dict(theirs.state_dict())
        path.refresh()
        self._known = path
        return path

    def _start(self, machine: BoltzmannMachine) -> BoltzmannMachine:
        """Return the reference that was given, or one fitted to the rows that were."""
        if self._reference is not None:
            check_start(machine, self._reference)
            return self._reference
        assert self._rows is not None
        if self._statistics is None:
            machine.check(self._rows, "the rows of the reference")
            self._statistics = data_statistics(machine.layers[0], [self._rows])
        return reference(machine, self._statistics)


_REFERENCE = "The reference of tempering is a machine with W = 0 or data rows to fit one to"


def _alike(a: BoltzmannMachine, b: BoltzmannMachine) -> bool:
    one, other = next(a.parameters()), next(b.parameters())
    return a.sizes == b.sizes and one.dtype == other.dtype and one.device == other.device


def levels_of(state: ChainState) -> list[Tensor]:
    """Return the states of all levels, one tensor (levels · chains, n) a layer, the top last."""
    return [torch.cat([state.extra[f"lower_{i}"], s]) for i, s in enumerate(state.layers)]


def _draw(
    path: BaseRatePath, betas: Sequence[float], rows: list[Tensor], fields: Mapping[int, Tensor],
    generator: Generator | None, clamps: Clamps | None = None,
) -> None:  # fmt: skip
    """Draw layers at all levels, given the fields that the target makes of the other layers."""
    for i, f in fields.items():
        parts, change = f.unflatten(0, (len(betas), -1)), path.shift(i)
        if change is None:
            pairs = zip(betas, parts, strict=True)
            drawn = torch.stack([path.at(b).layers[i].sample(b * p, generator) for b, p in pairs])
        else:
            at = torch.tensor(betas, dtype=change.dtype, device=change.device)[:, None]
            moved = torch.addcmul(((1 - at) * change)[:, None], at[:, None], parts)
            drawn = path.target.layers[i].sample(moved, generator)
        if clamps and i in clamps:
            drawn = clamps[i].apply(drawn)
        rows[i] = drawn.flatten(0, 1)


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
    extra = {**lower, **moved, "betas": before.extra["betas"], "round_trips": trips}
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


def _check_clamps(clamps: Clamps | None) -> None:
    odd = [i for i in clamps or {} if i % 2]
    if odd:
        raise GibbsianError(
            f"Tempering holds units of even layers only, and layer {odd[0]} is odd; use gb.Gibbs() for it."
        )
