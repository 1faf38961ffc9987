"""Bridges: log Z along a ladder of levels, by Bennett's acceptance ratio on each rung."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import number, whole
from gibbsian.bennett import log_ratio
from gibbsian.errors import GibbsianError
from gibbsian.evaluators.annealing import check_ends
from gibbsian.machine import BoltzmannMachine, State
from gibbsian.path import BaseRatePath
from gibbsian.samplers import ChainState, Info, Tempering, TrajectoryTempering, run
from gibbsian.samplers.base import as_generator
from gibbsian.samplers.replica import ReplicaExchange
from gibbsian.trajectory import Trajectory

Z95 = 1.959964

# Blocks of draws that errors are resampled from, replicates of them, and draws kept of each rung.
_BLOCKS, _REPLICATES, _DRAWS = 50, 1000, 1000


@dataclass(frozen=True)
class Bridge:
    """An estimate of log Z_1 − log Z_0 between two neighbours.

    Attributes
    ----------
    log_ratio : float
        log Z_1 − log Z_0, in nats.
    standard_error : float
        From a block bootstrap, so that it holds for correlated draws.
    """

    log_ratio: float
    standard_error: float


@dataclass(frozen=True)
class Ladder:
    """What tempering says of log Z, and of itself.

    Attributes
    ----------
    log_z, standard_error : float
        The estimate in nats, and its error from a bootstrap over whole chains (or blocks of their draws).
    low, high : float
        95 % interval: the outer ends of those by all draws and by their later half, which lie apart where
        chains still climb the ladder. A mode that no level found is missing.
    drift : float
        log Z by the later half of the draws minus that by all of them. Chains begin at the bottom, and as
        long as that shows they find log Z too small.
    betas : tuple of float
        The levels of a path; none for a trajectory.
    rungs : Tensor (levels − 1,)
        log Z_{i+1} − log Z_i, in float64.
    acceptance : Tensor (levels − 1,)
        Share of swaps that were accepted on each rung.
    round_trips : int
        How often a replica came from the bottom to the top and back, over all chains.
    chains, steps : int
        Chains of each level, and steps after the burn-in.
    state : tuple of Tensor (chains, n)
        States of the machine at the end, one tensor a layer: starts for `reverse_ais`.
    updates : tuple of float
        Where the machines of a trajectory stood, in updates; none for a path.
    """

    log_z: float
    standard_error: float
    low: float
    high: float
    drift: float
    betas: tuple[float, ...]
    rungs: Float[Tensor, " rungs"]
    acceptance: Float[Tensor, " rungs"]
    round_trips: int
    chains: int
    steps: int
    state: State
    updates: tuple[float, ...] = ()

    @property
    def log_zs(self) -> Float[Tensor, " levels"]:
        """Return log Z of every level in nats, the machine's own last, in float64."""
        above = self.rungs.flip(0).cumsum(0).flip(0)
        return self.log_z - torch.cat([above, above.new_zeros(1)])

    @property
    def samples(self) -> Float[Tensor, "chains visible"]:
        """Visible states of the machine at the end, one a chain."""
        return self.state[0]

    @property
    def doubt(self) -> str | None:
        """Say in a sentence why not to believe the estimate; None where nothing speaks against it."""
        worst = int(self.acceptance.argmin())
        if float(self.acceptance[worst]) < 0.05:
            return (
                f"Only {float(self.acceptance[worst]):.1%} of the swaps between levels {worst} and "
                f"{worst + 1} were accepted; give more levels."
            )
        if self.round_trips < self.chains:
            return (
                f"The {self.chains} chains made {self.round_trips} round trips of the ladder, fewer than "
                "one each; give more steps."
            )
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the states."""
        names = (
            "log_z",
            "standard_error",
            "low",
            "high",
            "drift",
            "round_trips",
            "chains",
            "steps",
            "doubt",
        )
        lists = {
            "betas": list(self.betas), "acceptance": self.acceptance.tolist(), "rungs": self.rungs.tolist(),
            "updates": list(self.updates), "log_zs": self.log_zs.tolist(),
        }  # fmt: skip
        return {k: getattr(self, k) for k in names} | lists


def bar(
    w0: Float[Tensor, "*draws0"],
    w1: Float[Tensor, "*draws1"],
    generator: Generator | int | None = None,
) -> Bridge:
    """Estimate log Z_1 − log Z_0 by Bennett's (1976) acceptance ratio.

    With w0 = F_1(x_0) − F_0(x_0) at n_0 samples x_0 of machine 0, w1 = F_0(x_1) − F_1(x_1) at n_1 samples of
    machine 1, and M = log(n_0/n_1), the log ratio is −d where Σ σ(d − M − w0) = Σ σ(M − w1 − d). With
    independent samples it is the maximum-likelihood estimate (Shirts et al. 2003).

    Parameters
    ----------
    w0, w1 : Tensor (draws,) or (draws, chains)
        Reduced energies in nats, in the order of drawing; the draws of a chain may be correlated.
    generator : torch.Generator or int
        Of the bootstrap, or a seed; seed 0 unless given.

    Raises
    ------
    GibbsianError
        If there are fewer than two of either, or one is not a number.
    """
    both = [_columns(w) for w in (w0, w1)]
    d = -log_ratio(*both)
    g = [torch.sigmoid(d - _share(both) - both[0]), torch.sigmoid(_share(both) - both[1] - d)]
    seeded = _seeded(generator)
    # One Newton step of the equation, from sums over blocks that are drawn anew with replacement.
    parts = [_blocks(t).sum(dim=0) for t in g]
    slopes = [_blocks(t * (1 - t)).sum(dim=0) for t in g]
    picks = [_replicates(len(p), seeded) for p in parts]
    value = picks[0] @ parts[0] - picks[1] @ parts[1]
    slope = picks[0] @ slopes[0] + picks[1] @ slopes[1]
    return Bridge(-d, _spread(value[None], slope[None]))


def ladder_log_z(
    machine: BoltzmannMachine,
    reference: BoltzmannMachine | Trajectory,
    chains: int = 100,
    levels: int | Sequence[float] | None = None,
    steps: int = 2000,
    generator: Generator | int | None = None,
    burn: int | None = None,
    progress: Callable[[float], None] | None = None,
    round_trips: float = 0.0,
    longest: int | None = None,
) -> Ladder:
    """Estimate log Z by tempering and a bridge on each rung of its ladder.

    log Z = log Z_0 + Σ_i (log Z_{i+1} − log Z_i), with `bar` on the reduced energies that the swaps compute
    anyway. Unlike AIS it needs no rare chain to carry the weight; and the top level holds equilibrium
    samples, from which reverse AIS may start.

    Parameters
    ----------
    machine : BoltzmannMachine
    reference : BoltzmannMachine or Trajectory
        The same with W = 0 (`gibbsian.path.reference`), from which levels lead to the machine on the
        base-rate path; or a trajectory whose machines are the levels.
    chains : int
        Chains of each level, which are independent ladders.
    levels : int or sequence of float, optional
        Levels on the path: see `gibbsian.samplers.Tempering`.
    steps : int
        Steps of the ladder after the burn-in.
    generator : torch.Generator or int
        Source of randomness, or a seed; seed 0 unless given.
    burn : int, optional
        Steps before anything is kept; half of `steps` unless given.
    progress : callable, optional
        Called with the fraction done, about a hundred times; it falls back where steps are doubled.
    round_trips : float
        Round trips that the chains shall make each, on average. While they have made fewer, `steps` and
        `burn` are doubled, and the steps that were made serve.
    longest : int, optional
        Steps that doubling stops at; four times `steps` unless given.

    Raises
    ------
    GibbsianError
        If a setting is impossible, the reference does not fit, or log Z is infinite or not a number.
    """
    base = reference.machines[0] if isinstance(reference, Trajectory) else reference
    check_ends(machine, base)
    chains, steps = whole(chains, "The number of chains"), whole(steps, "The number of steps", 2)
    burn = steps // 2 if burn is None else whole(burn, "The number of steps of the burn-in", 0)
    wanted = chains * number(round_trips, "The number of round trips", GibbsianError)
    longest = 4 * steps if longest is None else whole(longest, "The most steps of the ladder", 2)
    generator = as_generator(generator, machine)
    sampler, start = _sampler(reference, levels), BaseRatePath(base, base)
    first = start.draw(chains, generator)[0].to(next(machine.parameters()))
    state = sampler.init(machine, first, generator)
    state, _ = run(sampler, machine, state, burn, generator)
    climb = _Climb(state, burn, progress)
    while True:
        state = climb.go(sampler, machine, state, burn, steps, generator)
        if climb.round_trips(state) >= wanted or 2 * steps > longest:
            break
        burn, steps = 2 * burn, 2 * steps
    levels_at = (_betas(state), _updates(reference, len(climb.draws[0].acceptance) + 1))
    return _estimate(climb, start.log_z0(), state, levels_at, chains, steps)


def _estimate(
    climb: "_Climb", log_z0: float, state: ChainState,
    levels_at: tuple[tuple[float, ...], tuple[float, ...]], chains: int, steps: int,
) -> Ladder:  # fmt: skip
    """Bridge the rungs, by all draws and by their later half; `levels_at` are betas and updates."""
    draws = torch.stack([d.gains for d in climb.draws]).double()
    acceptance = torch.stack([d.acceptance for d in climb.draws]).mean(dim=0)
    (rungs, error), (late, late_error) = _rungs(draws), _rungs(draws[len(draws) // 2 :])
    value, drift = log_z0 + float(rungs.sum()), float(late.sum() - rungs.sum())
    low = value - max(Z95 * error, Z95 * late_error - drift)
    high = value + max(Z95 * error, Z95 * late_error + drift)
    betas, updates = levels_at
    return Ladder(
        value, error, low, high, drift, betas, rungs, acceptance, climb.round_trips(state), chains,
        steps, state.layers, updates,
    )  # fmt: skip


@dataclass(frozen=True)
class _Draw:
    """What is kept of a step: reduced energies on each rung, shares of swaps, round trips so far."""

    step: int
    gains: Float[Tensor, "rungs two chains"]
    acceptance: Float[Tensor, " rungs"]
    round_trips: int


class _Climb:
    """Runs a ladder, keeps its draws after the burn-in, and goes on for longer where it has to."""

    def __init__(
        self, state: ChainState, done: int, progress: Callable[[float], None] | None
    ) -> None:
        self.draws: list[_Draw] = []
        self.done, self.progress, self._thin = done, progress, 1
        self._trips = _round_trips(state)

    def go(
        self, sampler: ReplicaExchange, machine: BoltzmannMachine, state: ChainState, burn: int,
        steps: int, generator: Generator,
    ) -> ChainState:  # fmt: skip
        """Make the steps that are missing from so many after so many of burn-in, and forget the burn-in's."""
        # By doubling, or draws that were kept would not be among those of the longer ladder.
        while steps > self._thin * _DRAWS:
            self._thin *= 2
        thin, whole_way, before = self._thin, burn + steps, self.done
        gone = [d.round_trips for d in self.draws if d.step <= burn]
        self._trips = gone[-1] if gone else self._trips
        self.draws = [d for d in self.draws if d.step > burn and d.step % thin == 0]

        def visit(i: int, now: ChainState, info: Info) -> None:
            step = before + i
            if step % thin == 0:
                seen = info.diagnostics
                share = seen["acceptance"].cpu().double()
                self.draws.append(_Draw(step, seen["gains"].cpu(), share, _round_trips(now)))
            if self.progress and (step % max(1, whole_way // 100) == 0 or step == whole_way):
                self.progress(step / whole_way)

        state, _ = run(sampler, machine, state, whole_way - before, generator, visit=visit)
        self.done = whole_way
        return state

    def round_trips(self, state: ChainState) -> int:
        """Return how many round trips all chains have made since the burn-in."""
        return _round_trips(state) - self._trips


def _round_trips(state: ChainState) -> int:
    return int(state.extra["round_trips"].sum())


def _sampler(
    reference: BoltzmannMachine | Trajectory, levels: int | Sequence[float] | None
) -> ReplicaExchange:
    """Return replica exchange on the path, or along the trajectory."""
    if not isinstance(reference, Trajectory):
        return Tempering(reference, levels)
    if levels is not None:
        raise GibbsianError(
            "The levels of a trajectory are its machines; leave levels out, and place them by "
            "trajectory.refined()."
        )
    return TrajectoryTempering(reference)


def _betas(state: ChainState) -> tuple[float, ...]:
    return tuple(state.extra["betas"].tolist()) if "betas" in state.extra else ()


def _updates(reference: BoltzmannMachine | Trajectory, levels: int) -> tuple[float, ...]:
    """Return where the machines of the levels stood, that of the sampled machine one after the last."""
    if not isinstance(reference, Trajectory):
        return ()
    return (*reference.updates, reference.updates[-1] + 1)[:levels]


def _rungs(gains: Float[Tensor, "draws rungs two chains"]) -> tuple[Tensor, float]:
    """Return the log ratio of each rung, and the standard error of their sum.

    All rungs are resampled together, block by block: swaps correlate them.
    """
    found, values, slopes = [], [], []
    for low, high in gains.permute(1, 2, 0, 3):
        # gains are F_i − F_{i+1} at level i and at level i + 1
        w0, w1 = -low, high
        d = -log_ratio(w0, w1)
        g0, g1 = torch.sigmoid(d - w0), torch.sigmoid(-w1 - d)
        found.append(-d)
        values.append(_blocks(g0 - g1).sum(dim=0))
        slopes.append(_blocks(g0 * (1 - g0) + g1 * (1 - g1)).sum(dim=0))
    picks = _replicates(len(values[0]), Generator().manual_seed(0))
    error = _spread(torch.stack(values) @ picks.T, torch.stack(slopes) @ picks.T)
    return torch.tensor(found, dtype=torch.float64), error


def _columns(w: Tensor) -> Float[Tensor, "draws chains"]:
    w = w.double().cpu()
    if w.ndim not in (1, 2) or w.shape[0] < 2 or not bool(torch.isfinite(w).all()):
        raise GibbsianError(
            "The acceptance ratio needs at least two finite reduced energies of either machine, as "
            f"(draws,) or (draws, chains); these have shape {tuple(w.shape)}."
        )
    return w if w.ndim == 2 else w[:, None]


def _share(w: Sequence[Tensor]) -> float:
    return math.log(w[0].numel() / w[1].numel())


def _spread(values: Tensor, slopes: Tensor) -> float:
    """Return the standard deviation of Newton steps of the replicates, summed over rungs."""
    moved = values / slopes
    # Without any overlap the equation is flat, and nothing bounds its solution.
    return float(moved.sum(dim=0).std()) if bool(slopes.all()) else math.inf


def _blocks(t: Float[Tensor, "draws chains"]) -> Float[Tensor, "inside blocks"]:
    """Cut draws into blocks, each a whole chain where there are enough of them, else a stretch of one.

    Draws that fill no block at the end are left out.
    """
    draws, chains = t.shape
    parts = min(draws, 1 if chains >= _BLOCKS // 2 else math.ceil(_BLOCKS / chains))
    inside = draws // parts
    return t[: parts * inside].reshape(parts, inside, chains).transpose(0, 1).reshape(inside, -1)


def _replicates(blocks: int, generator: Generator) -> Float[Tensor, "replicates blocks"]:
    """Return how often each block is drawn in each replicate of the bootstrap."""
    drawn = torch.randint(blocks, (_REPLICATES, blocks), generator=generator)
    one = torch.ones((), dtype=torch.float64).expand(drawn.shape)
    return torch.zeros(_REPLICATES, blocks, dtype=torch.float64).scatter_add(1, drawn, one)


def _seeded(generator: Generator | int | None) -> Generator:
    if isinstance(generator, Generator):
        return generator
    return Generator().manual_seed(whole(0 if generator is None else generator, "The seed", 0))
