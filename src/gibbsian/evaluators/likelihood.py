"""The likelihood of rows, between two bounds: mean LL = −⟨F⟩ − log Z."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.errors import GibbsianError, GibbsianWarning
from gibbsian.estimators.online import OnlineLogZ
from gibbsian.evaluators import exact as enumeration
from gibbsian.evaluators.ais import ais, reverse_ais
from gibbsian.evaluators.belief import Belief, Partition
from gibbsian.evaluators.blocks import check_states
from gibbsian.evaluators.bound import variational_free_energies
from gibbsian.evaluators.bridge import Ladder, ladder_log_z
from gibbsian.evaluators.free_energy import check_rows, free_energies
from gibbsian.evaluators.schedule import adapted
from gibbsian.machine import BoltzmannMachine, State
from gibbsian.path import BaseRatePath
from gibbsian.path import reference as fit_reference
from gibbsian.samplers import Gibbs, Tempering, run, start
from gibbsian.samplers.base import as_generator
from gibbsian.trajectory import Trajectory

StageProgress = Callable[[str, float], None]
_LEAST_STEPS, _MOST_STEPS = 20, 5_000  # of the ladder
# Round trips of each chain that more steps are made for. After two or three, log Z of machines on MNIST was
# 0.3 to 0.5 nat low.
_ROUND_TRIPS = 5.0


def partition(
    machine: BoltzmannMachine,
    data: Float[Tensor, "rows n"],
    *,
    reference: BoltzmannMachine | None = None,
    chains: int = 100,
    temperatures: int = 10_000,
    equilibrate: int = 1000,
    starts: Mapping[str, State] | None = None,
    limit_bits: float = 20,
    sampled: bool = True,
    ladder_steps: int | None = None,
    trajectory: Trajectory | None = None,
    online: OnlineLogZ | None = None,
    generator: Generator | int | None = None,
    progress: StageProgress | None = None,
) -> Partition:
    """Find log Z of a machine of any depth: exactly where small, by a ladder, and between two bounds.

    What came out says which of them to believe: see `Partition.believed`.

    Parameters
    ----------
    machine : BoltzmannMachine
    data : Tensor (rows, visible)
        Training rows: the reference machine is fitted to them, and chains start from them.
    reference : BoltzmannMachine, optional
        The reference machine itself.
    chains, temperatures : int
        Of AIS and of each reverse AIS; all share one schedule, found by a pilot run.
    equilibrate : int
        Gibbs steps of the data- and of the noise-started chains before reverse AIS.
    starts : mapping of "data" and "noise" to states, optional
        Chains that have made these steps already.
    limit_bits : float
        log Z is enumerated as well where one side has at most 2**limit_bits states.
    sampled : bool
        False asks for the enumeration alone.
    ladder_steps : int, optional
        Steps of tempering, whose rungs give log Z (`ladder_log_z`) and whose top gives reverse AIS
        starts at equilibrium. Unless given, as many as cost twice what AIS does, from 20 to 5,000, and up
        to four times as many where the chains make fewer than five round trips each; 0 leaves tempering
        out, and the trajectory.
    trajectory : Trajectory, optional
        Machines that training passed, along which a second ladder leads to this one.
    online : OnlineLogZ, optional
        What training knows of log Z, to set beside the rest.
    generator : torch.Generator or int
        Source of randomness, or a seed.
    progress : callable, optional
        Called with the name of the stage and the fraction of it that is done.

    Raises
    ------
    GibbsianError
        If a setting is impossible, log Z is infinite, or an enumeration asked for alone is too long.
    """
    side = enumeration.enumerable_side(machine)
    small = side is not None and side[1] <= 2**limit_bits
    exact = enumeration.log_z(machine, limit_bits) if small or not sampled else None
    if not sampled:
        return Partition(exact, None, {}, online=online)
    chains = whole(chains, "The number of chains of AIS", 2)
    temperatures = whole(temperatures, "The number of temperatures of AIS")
    equilibrate = whole(equilibrate, "The number of steps before reverse AIS", 0)
    if ladder_steps is not None:
        ladder_steps = whole(ladder_steps, "The number of steps of the ladder", 0)
    generator = as_generator(generator, machine)
    base = fit_reference(machine, data) if reference is None else reference

    betas = adapted(machine, base, temperatures, generator)
    forward = ais(machine, base, chains, betas, generator, _told(progress, "AIS"))
    if starts is None:
        starts = {k: _equilibrated(machine, chains, k, equilibrate, generator, data)
                  for k in ("data", "noise")}  # fmt: skip
    ladder = _ladder(machine, base, chains, temperatures, ladder_steps, generator, progress)
    way = None
    if trajectory is not None:
        along = trajectory.to(machine)
        way = _ladder(machine, along, chains, temperatures, ladder_steps, generator, progress)
    if ladder is not None:
        starts = {**starts, "ladder": ladder.state}
    if way is not None and way.doubt is None:  # else its top is where it began
        starts = {**starts, "trajectory": way.state}
    backward = {
        k: reverse_ais(machine, base, s, betas, generator, _told(progress, f"reverse AIS from {k}"))
        for k, s in starts.items()
    }
    return Partition(exact, forward, backward, equilibrate, ladder, way, online)


def _ladder(
    machine: BoltzmannMachine,
    base: BoltzmannMachine | Trajectory,
    chains: int,
    temperatures: int,
    steps: int | None,
    generator: Generator,
    progress: StageProgress | None,
) -> Ladder | None:
    """Run a ladder for as long as was asked for, or as its round trips need."""
    if steps == 0:
        return None
    stage, way, levels = "tempering", "a ladder", None
    try:
        if isinstance(base, Trajectory):
            stage, way = "trajectory", "its trajectory"
            base = base.refined(generator=generator)
        else:
            levels = Tempering(base).placed(BaseRatePath(base, machine), generator)
    except GibbsianError as error:
        warnings.warn(f"no likelihood by {way}: {error}", GibbsianWarning, stacklevel=3)
        return None
    count, wanted = len(base) if levels is None else len(levels), 0.0  # type: ignore[arg-type]
    if steps is None:
        steps = min(max(2 * temperatures // count, _LEAST_STEPS), _MOST_STEPS)
        wanted = _ROUND_TRIPS
    return ladder_log_z(
        machine, base, chains, levels, max(steps, 2), generator, progress=_told(progress, stage),
        round_trips=wanted,
    )  # fmt: skip


def _told(progress: StageProgress | None, stage: str) -> Callable[[float], None] | None:
    return None if progress is None else partial(progress, stage)


def _equilibrated(
    machine: BoltzmannMachine,
    chains: int,
    where: str,
    steps: int,
    generator: Generator,
    data: Tensor,
) -> State:
    sampler = Gibbs()
    visible = start(machine, chains, where, generator, data)
    state = sampler.init(machine, visible, generator)
    return run(sampler, machine, state, steps, generator)[0].layers


@dataclass(frozen=True)
class LogLikelihood:
    """The likelihood of rows under a machine, in nats per row.

    Attributes
    ----------
    mean : float
        Mean over rows with the log Z to believe, or by forward AIS (optimistic) where there is none.
    standard_error : float
        Of the mean over rows (NaN for a single row); that of log Z is apart, in `partition`.
    rows : Tensor (rows,)
        Each row's, with the same log Z.
    mean_free_energy : float
        For a bound, E_q[E] − H(q) in its place, which is no smaller.
    partition : Partition
    units : str
        What the number is a likelihood of: a probability, or a density and in which units; or a bound on it.
    is_bound : bool
        Whether it is the variational lower bound of a deep machine. Given log Z the likelihood is no
        smaller; with the log Z of reverse AIS, an upper bound on average, it stays a bound, with that of AIS
        it need not.
    """

    mean: float
    standard_error: float
    rows: Float[Tensor, " rows"]
    mean_free_energy: float
    partition: Partition
    units: str
    is_bound: bool = False

    @property
    def ais(self) -> float | None:
        """Mean with log Z by AIS: optimistic on average."""
        estimate = self.partition.ais
        return None if estimate is None else -self.mean_free_energy - estimate.log_z

    @property
    def ladder(self) -> float | None:
        """Mean with log Z by tempering and bridges."""
        ladder = self.partition.ladder
        return None if ladder is None else -self.mean_free_energy - ladder.log_z

    @property
    def trajectory(self) -> float | None:
        """Mean with log Z along the machines that training passed."""
        way = self.partition.trajectory
        return None if way is None else -self.mean_free_energy - way.log_z

    @property
    def online(self) -> float | None:
        """Mean with the log Z that training carried along."""
        known = self.partition.online
        return None if known is None else -self.mean_free_energy - known.log_z

    @property
    def believed(self) -> Belief | None:
        """Mean with the log Z to believe, and the interval that log Z leaves it; None without one.

        The error of a mean over few rows, `standard_error`, comes on top.
        """
        known, free = self.partition.believed, self.mean_free_energy
        if known is None:
            return None
        return Belief(known.name, -free - known.value, -free - known.high, -free - known.low)

    @property
    def reverse(self) -> dict[str, float]:
        """Mean with log Z by reverse AIS: pessimistic on average, by start of the chains."""
        found = self.partition.reverse.items()
        return {k: -self.mean_free_energy - e.log_z for k, e in found}

    def _errors(self) -> dict[str, float]:
        """Return the standard error of log Z of each estimate, the lowest of the reverse ones for these."""
        p, reverse = self.partition, self.reverse
        found = {"ladder": p.ladder, "trajectory": p.trajectory, "online": p.online, "ais": p.ais}
        if reverse:
            found["reverse_ais"] = p.reverse[min(reverse, key=lambda k: reverse[k])]
        return {k: e.standard_error for k, e in found.items() if e is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `reverse_ais` is the lowest of the reverse ones."""
        p, reverse, gaps = self.partition, self.reverse, self.partition.gaps
        exact = None if p.exact is None else -self.mean_free_energy - p.exact
        believed = self.believed
        out: dict[str, Any] = {
            "believed": believed.as_dict() if believed else None,
            "ladder": self.ladder,
            "trajectory": self.trajectory,
            "online": self.online,
            "ais": self.ais,
            "reverse_ais": min(reverse.values(), default=None),
            "standard_errors_log_z": self._errors(),
            "gap": max(gaps.values(), default=None),
            "ess": p.ais.ess if p.ais else None,
            "exact": exact,
            "converged": p.converged,
            "rows": len(self.rows),
            "standard_error_rows": self.standard_error if len(self.rows) > 1 else None,
            "standard_error_log_z": p.standard_error,
            "units": self.units,
            "is_bound": self.is_bound,
        }
        for k, value in reverse.items():
            out |= {f"reverse_ais_{k}": value, f"gap_{k}": gaps[k], f"ess_{k}": p.reverse[k].ess}
        return out


def log_likelihood(
    machine: BoltzmannMachine,
    x: Float[Tensor, "rows n"],
    log_z: float | Partition,
    dequantisation: str | None = None,
) -> LogLikelihood:
    """Return the likelihood of rows: log p(v) = −F(v) − log Z.

    Under more than one hidden layer it is the variational bound E_q[−E] + H(q) − log Z, which log p(v) is no
    smaller than (`gibbsian.evaluators.bound`).

    Parameters
    ----------
    machine : BoltzmannMachine
    x : Tensor (rows, visible)
        States of the visible units: bits, not rates.
    log_z : float or Partition
        log Z, or what `partition` found.
    dequantisation : str, optional
        The noise that was added to rows of real-valued columns, in words for the report.

    Raises
    ------
    DataError
        If the rows are not states of the visible units.
    """
    check_rows(machine, x)
    check_states(machine.layers[0], x, "Likelihoods")
    known = log_z if isinstance(log_z, Partition) else Partition(float(log_z), None, {})
    shallow = len(machine.layers) == 2
    free = free_energies(machine, x) if shallow else variational_free_energies(machine, x)
    rows = -free - known.log_z
    error = float(rows.std() / len(rows) ** 0.5) if len(rows) > 1 else float("nan")
    return LogLikelihood(
        float(rows.mean()),
        error,
        rows,
        float(free.mean()),
        known,
        likelihood_units(machine, dequantisation),
        not shallow,
    )


def likelihood_units(machine: BoltzmannMachine, dequantisation: str | None = None) -> str:
    """Say what a likelihood of this machine is a likelihood of."""
    blocks = machine.layers[0].domain.blocks()
    real = sum(b is None for b in blocks)
    what = "the log of" if len(machine.layers) == 2 else "a variational lower bound on the log of"
    if not real:
        return f"nats per row: {what} a probability"
    noise = dequantisation or (
        "no dequantisation noise stated, so on values of a grid it has no upper limit and compares "
        "models of the same rows only"
    )
    return (
        f"nats per row: {what} a density in the {real} real-valued columns of the transformed rows "
        f"({noise})"
    )
