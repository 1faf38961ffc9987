"""Annealed importance sampling, forward and reverse: two estimates that enclose log Z."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.errors import GibbsianError
from gibbsian.evaluators.annealing import Annealing
from gibbsian.evaluators.schedule import adapted
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import check_levels
from gibbsian.samplers.base import as_generator
from gibbsian.units import base as unit

Progress = Callable[[float], None]
_Z95 = 1.959964


@dataclass(frozen=True)
class Estimate:
    """An estimate of log Z from importance weights, one a chain.

    Attributes
    ----------
    log_z : float
        The estimate, in nats.
    low, high : float
        95 % interval on the log scale, by the delta method over chains. It holds the scatter between
        chains only, and is too narrow where `ess` is low.
    standard_error : float
        Half of that interval over 1.96.
    ess : float
        Effective number of chains, (Σw)²/Σw².
    chains, temperatures : int
        How many there were.
    log_weights : Tensor (chains,)
        In float64.
    direction : {"forward", "reverse"}
        Forward AIS is a lower bound of log Z on average, reverse AIS an upper one.
    """

    log_z: float
    low: float
    high: float
    standard_error: float
    ess: float
    chains: int
    temperatures: int
    log_weights: Float[Tensor, " chains"]
    direction: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the weights."""
        names = ("log_z", "low", "high", "standard_error", "ess", "chains", "temperatures")
        return {k: getattr(self, k) for k in names}


def ais(
    machine: BoltzmannMachine,
    reference: BoltzmannMachine,
    chains: int = 100,
    temperatures: int | Sequence[float] | Tensor = 10_000,
    generator: Generator | int | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """Estimate log Z by annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008).

    Along the base-rate path with 0 = β_0 < … < β_K = 1, from exact samples of the reference:
    log w = log Z_0 + Σ_k [F_{k−1}(x_k) − F_k(x_k)], where F_k sums the odd layers out at β_k and
    x_{k+1} comes from x_k by one Gibbs sweep at β_k. E[w] = Z, so log Ẑ = log mean w is a lower
    bound of log Z on average, and the likelihood it gives is optimistic.

    Parameters
    ----------
    machine : BoltzmannMachine
        Any depth, any units.
    reference : BoltzmannMachine
        The same machine with W = 0: see `gibbsian.path.reference`.
    chains : int
        Independent weights, at least 2.
    temperatures : int or sequence of float
        Number K of steps, spread by a pilot run (`gibbsian.evaluators.schedule.adapted`), or the
        values β_0 = 0 … β_K = 1 themselves.
    generator : torch.Generator or int
        Source of randomness, or a seed.
    progress : callable, optional
        Called with the fraction done, about a hundred times.

    Raises
    ------
    GibbsianError
        If a setting is impossible, or log Z is infinite or not a number.
    """
    chains = whole(chains, "The number of chains of AIS", 2)  # for its interval
    walk = Annealing(machine, reference, as_generator(generator, machine))
    betas = _betas(temperatures, machine, reference, walk.generator)
    with torch.no_grad():
        walk.draw(chains)
        log_w = torch.full((chains,), walk.path.log_z0(), dtype=torch.float64)
        log_w = log_w.to(walk.layers[0].device, unit.accumulator(walk.layers[0]))
        steps = len(betas) - 1
        for k in range(1, steps + 1):
            log_w += walk.gain(betas[k - 1], betas[k])
            if k < steps:
                walk.sweep(betas[k])
            _report(progress, k, steps)
    return estimate(log_w, "forward", steps)


def reverse_ais(
    machine: BoltzmannMachine,
    reference: BoltzmannMachine,
    start_state: Sequence[Tensor] | Tensor,
    temperatures: int | Sequence[float] | Tensor = 10_000,
    generator: Generator | int | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """Bound log Z from above by annealing backwards (Grosse, Ghahramani & Adams 2015).

    From samples x of the machine, k = K … 1: one Gibbs sweep at β_k, then
    log w += F_k(x) − F_{k−1}(x). E[w] = Z_0/Z, so log Ẑ = log Z_0 − log mean w is an upper bound of
    log Z on average, and the likelihood it gives is pessimistic. It is a bound only where the starts
    are exact samples: a mode that chains never reached is missing here and in forward AIS alike.

    Parameters
    ----------
    machine, reference : BoltzmannMachine
        As for `ais`.
    start_state : Tensor (chains, visible) or sequence of tensors
        Equilibrium samples of the machine, one tensor a layer (those of odd layers are not used), or
        the visible layer alone for a machine with one hidden layer. Each chain starts from one row.
    temperatures, generator, progress
        As for `ais`.

    Raises
    ------
    GibbsianError
        As `ais`, and if the start states do not fit the machine.
    """
    walk = Annealing(machine, reference, as_generator(generator, machine))
    layers = _start_layers(machine, start_state)
    betas = _betas(temperatures, machine, reference, walk.generator)
    with torch.no_grad():
        walk.start(layers)
        wide = unit.accumulator(layers[0])
        log_w = torch.zeros(len(layers[0]), dtype=wide, device=layers[0].device)
        steps = len(betas) - 1
        for k in range(steps, 0, -1):
            walk.sweep(betas[k])
            log_w -= walk.gain(betas[k - 1], betas[k])
            _report(progress, steps - k + 1, steps)
    return estimate(log_w - walk.path.log_z0(), "reverse", steps)


def estimate(log_w: Float[Tensor, " chains"], direction: str, temperatures: int) -> Estimate:
    """Turn log weights into an estimate of log Z: ±log mean w, without leaving the log scale.

    The interval is that of the delta method, var(log mean w) ≈ (n/ESS − 1)/(n − 1).

    Raises
    ------
    GibbsianError
        If a weight is not a number.
    """
    if not bool(torch.isfinite(log_w).all()):
        raise GibbsianError(
            "An importance weight is not finite, so log Z could not be estimated; check the machine's "
            "parameters."
        )
    n = len(log_w)
    log_mean = float(torch.logsumexp(log_w, dim=0)) - math.log(n)
    share = torch.softmax(log_w, dim=0)
    ess = float(1 / (share * share).sum())
    error = math.sqrt(max(n / ess - 1, 0) / (n - 1))
    value = log_mean if direction == "forward" else -log_mean
    low, high = value - _Z95 * error, value + _Z95 * error
    return Estimate(value, low, high, error, ess, n, temperatures, log_w, direction)


def _betas(
    temperatures: int | Sequence[float] | Tensor,
    machine: BoltzmannMachine,
    reference: BoltzmannMachine,
    generator: Generator,
) -> list[float]:
    if hasattr(temperatures, "__len__"):
        return check_levels(temperatures)
    number = whole(temperatures, "The number of temperatures of AIS")
    return adapted(machine, reference, number, generator).tolist()


def _start_layers(machine: BoltzmannMachine, start: Sequence[Tensor] | Tensor) -> list[Tensor]:
    like = next(machine.parameters())
    layers = [start] if isinstance(start, Tensor) else list(start)
    layers += [layers[0]] * (len(machine.layers) - len(layers))
    even = machine.parity(0)
    if any(layers[i].ndim != 2 or layers[i].shape[1] != machine.sizes[i] for i in even):
        raise GibbsianError(
            f"Reverse AIS needs start states of widths {[machine.sizes[i] for i in even]} for the "
            "layers 0, 2, 4 … of this machine; hand in one tensor a layer."
        )
    if len(layers[0]) < 2:
        raise GibbsianError("Reverse AIS needs at least 2 start states for its interval.")
    return [s.to(like) for s in layers]


def _report(progress: Progress | None, done: int, steps: int) -> None:
    if progress is not None and (done % max(1, steps // 100) == 0 or done == steps):
        progress(done / steps)
