"""The likelihood of rows, between two bounds: mean LL = −⟨F⟩ − log Z."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.errors import GibbsianError
from gibbsian.evaluators import exact as enumeration
from gibbsian.evaluators.ais import Estimate, ais, reverse_ais
from gibbsian.evaluators.blocks import check_states
from gibbsian.evaluators.free_energy import check_rows, free_energies
from gibbsian.evaluators.schedule import adapted
from gibbsian.machine import BoltzmannMachine, State
from gibbsian.path import reference as fit_reference
from gibbsian.samplers import Gibbs, run, start
from gibbsian.samplers.base import as_generator

# Two bounds further apart than this, in nats, do not say what log Z is.
LARGEST_GAP = 0.5
# An estimate that rests on fewer effective chains than this has no error bar worth the name.
LOWEST_ESS = 10.0

StageProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Partition:
    """What is known of a machine's log Z.

    Attributes
    ----------
    exact : float or None
        By enumeration, where the machine is small enough.
    ais : Estimate or None
        Forward: a lower bound on average, so an optimistic likelihood.
    reverse : mapping of str to Estimate
        Reverse, from "data"-started and from "noise"-started chains: upper bounds on average,
        conditional on these chains being at equilibrium.
    equilibration : int or None
        Gibbs steps the reverse chains had made before.
    """

    exact: float | None
    ais: Estimate | None
    reverse: Mapping[str, Estimate]
    equilibration: int | None = None

    @property
    def log_z(self) -> float:
        """The value to use where one is needed: exact if known, else forward AIS."""
        if self.exact is not None:
            return self.exact
        if self.ais is None:
            raise GibbsianError("No estimate of log Z was made; ask for the exact one or for AIS.")
        return self.ais.log_z

    @property
    def gaps(self) -> dict[str, float]:
        """Upper minus lower bound on log Z in nats, for each kind of start of the reverse chains."""
        if self.ais is None:
            return {}
        return {k: e.log_z - self.ais.log_z for k, e in self.reverse.items()}

    @property
    def converged(self) -> bool:
        """Whether log Z is exact, or the bounds and the effective numbers of chains allow belief."""
        return self.exact is not None or not (self._doubts() or self.ais is None)

    def words(self) -> list[str]:
        """Say in plain sentences what the numbers are worth."""
        if self.exact is not None:
            return ["log Z is exact, by enumeration, so the bounds serve for comparison only."]
        if self.ais is None:
            return []
        doubts = self._doubts()
        if doubts:
            return [f"Not converged: {d}" for d in doubts]
        widest = max((abs(g) for g in self.gaps.values()), default=0.0)
        fewest = min(e.ess for e in (self.ais, *self.reverse.values()))
        return [
            "Converged, on condition that the reverse chains started at equilibrium: the bounds on "
            f"log Z lie within {widest:.2f} nat of each other, on at least {fewest:.0f} effective "
            f"chains of {self.ais.chains}."
        ]

    def _doubts(self) -> list[str]:
        forward, found = self.ais, []
        if forward is None:
            return found
        for k, gap in self.gaps.items():
            error = math.hypot(self.reverse[k].standard_error, forward.standard_error)
            if gap > LARGEST_GAP:
                found.append(
                    f"AIS and reverse AIS from {k}-started chains differ by {gap:.2f} nats (more than "
                    f"{LARGEST_GAP}); use more temperatures, and longer chains before."
                )
            elif gap < -LARGEST_GAP and gap < -3 * error:
                found.append(
                    f"reverse AIS from {k}-started chains lies {-gap:.2f} nats on the wrong side of "
                    "AIS, so these chains were not at equilibrium; run them longer before."
                )
            elif gap < -LARGEST_GAP:
                found.append(
                    f"AIS and reverse AIS from {k}-started chains crossed by {-gap:.2f} nats, with a "
                    f"standard error of {error:.2f}; use more temperatures or more chains."
                )
        named = {"AIS": forward} | {f"reverse AIS from {k}": e for k, e in self.reverse.items()}
        for k, e in named.items():
            if e.ess < min(LOWEST_ESS, e.chains / 2):
                found.append(
                    f"{k} rests on {e.ess:.1f} effective chains of {e.chains}; use more temperatures."
                )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        out: dict[str, Any] = {
            "exact": self.exact,
            "ais": self.ais.as_dict() if self.ais else None,
            "converged": self.converged,
            "equilibration_steps": self.equilibration,
        }
        return out | {f"reverse_ais_{k}": e.as_dict() for k, e in self.reverse.items()}


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
    generator: Generator | int | None = None,
    progress: StageProgress | None = None,
) -> Partition:
    """Find log Z of a machine of any depth: exactly where small, and between two bounds.

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
        return Partition(exact, None, {})
    generator = as_generator(generator, machine)
    base = fit_reference(machine, data) if reference is None else reference

    temperatures = whole(temperatures, "The number of temperatures of AIS")
    betas = adapted(machine, base, temperatures, generator)
    forward = ais(machine, base, chains, betas, generator, _told(progress, "AIS"))
    if starts is None:
        starts = {k: _equilibrated(machine, chains, k, equilibrate, generator, data)
                  for k in ("data", "noise")}  # fmt: skip
    backward = {
        k: reverse_ais(machine, base, s, betas, generator, _told(progress, f"reverse AIS from {k}"))
        for k, s in starts.items()
    }
    return Partition(exact, forward, backward, equilibrate)


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
        Mean over rows with the best log Z there is: exact, else forward AIS (optimistic).
    standard_error : float
        Of the mean over rows (NaN for a single row); that of log Z is apart, in `partition`.
    rows : Tensor (rows,)
        Each row's, with the same log Z.
    mean_free_energy : float
    partition : Partition
    units : str
        What the number is a likelihood of: a probability, or a density and in which units.
    """

    mean: float
    standard_error: float
    rows: Float[Tensor, " rows"]
    mean_free_energy: float
    partition: Partition
    units: str

    @property
    def ais(self) -> float | None:
        """Mean with log Z by AIS: optimistic on average."""
        estimate = self.partition.ais
        return None if estimate is None else -self.mean_free_energy - estimate.log_z

    @property
    def reverse(self) -> dict[str, float]:
        """Mean with log Z by reverse AIS: pessimistic on average, by start of the chains."""
        found = self.partition.reverse.items()
        return {k: -self.mean_free_energy - e.log_z for k, e in found}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `reverse_ais` is the lowest of the reverse ones."""
        p, reverse, gaps = self.partition, self.reverse, self.partition.gaps
        exact = None if p.exact is None else -self.mean_free_energy - p.exact
        out: dict[str, Any] = {
            "ais": self.ais,
            "reverse_ais": min(reverse.values(), default=None),
            "gap": max(gaps.values(), default=None),
            "ess": p.ais.ess if p.ais else None,
            "exact": exact,
            "converged": p.converged,
            "rows": len(self.rows),
            "standard_error_rows": self.standard_error if len(self.rows) > 1 else None,
            "standard_error_log_z": p.ais.standard_error if p.ais else None,
            "units": self.units,
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

    Parameters
    ----------
    machine : BoltzmannMachine
        With one hidden layer.
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
    GibbsianError
        If the machine has more than one hidden layer.
    """
    hidden = len(machine.layers) - 1
    if hidden > 1:
        raise GibbsianError(
            f"The likelihood of rows under a machine of {hidden} hidden layers needs a variational "
            "bound, which comes with a later version; log Z itself is to be had from partition()."
        )
    check_rows(machine, x)
    check_states(machine.layers[0], x, "Likelihoods")
    known = log_z if isinstance(log_z, Partition) else Partition(float(log_z), None, {})
    free = free_energies(machine, x)
    rows = -free - known.log_z
    error = float(rows.std() / len(rows) ** 0.5) if len(rows) > 1 else float("nan")
    return LogLikelihood(
        float(rows.mean()),
        error,
        rows,
        float(free.mean()),
        known,
        likelihood_units(machine, dequantisation),
    )


def likelihood_units(machine: BoltzmannMachine, dequantisation: str | None = None) -> str:
    """Say what a likelihood of this machine is a likelihood of."""
    blocks = machine.layers[0].domain.blocks()
    real = sum(b is None for b in blocks)
    if not real:
        return "nats per row: the log of a probability"
    noise = dequantisation or (
        "no dequantisation noise stated, so on values of a grid it has no upper limit and compares "
        "models of the same rows only"
    )
    return (
        f"nats per row: the log of a density in the {real} real-valued columns of the transformed rows "
        f"({noise})"
    )
