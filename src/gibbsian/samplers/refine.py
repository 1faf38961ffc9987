"""Where machines of a trajectory should stand: at equal acceptance of swaps between neighbours."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import number, whole
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath
from gibbsian.samplers.base import as_generator
from gibbsian.samplers.gibbs import draw
from gibbsian.samplers.ladder import spread_of
from gibbsian.trajectory import Trajectory, between

# Steps of the pilot run: the acceptance of a swap that one keeps, its sweeps, the shortest one; and the share
# of chains that must still count, or they are drawn again by their weights. And the least acceptance told.
_KEPT, _SWEEPS, _SHORTEST, _EFFECTIVE, _LEAST = 0.9, 2, 1e-4, 0.5, 1e-6


@torch.no_grad()
def refine(
    trajectory: Trajectory,
    acceptance: float = 0.3,
    chains: int = 100,
    generator: Generator | int | None = None,
) -> Trajectory:
    """Place machines along a trajectory so that swaps of neighbours are accepted about equally often.

    A pilot run goes along the trajectory, on straight lines in natural parameters from machine to machine, in
    steps short enough that nearly all swaps across one would be accepted. Its chains carry the weights that
    make up for what a step changes, and are drawn again by them (sequential Monte Carlo; Del Moral, Doucet &
    Jasra 2006), so clusters keep the shares that each machine gives them. The acceptance of a swap,
    E[min(1, e^Δ)] over all pairs of the weighted samples of two machines, tells how far apart they stand: it
    is that of normal energies whose standard deviation is s (`gibbsian.samplers.ladder.spread_of`). From the
    place where s has come to that of the acceptance asked for, the next s is measured, and machines are put
    at even steps of their sum. So new ones come where the old stood too far apart, and old ones go where they
    stood too close or where training went to and fro, as it does between the weights of clusters: ways
    back add to the thermodynamic length (Crooks 2007) but part no machines.

    Parameters
    ----------
    trajectory : Trajectory
        Two machines or more.
    acceptance : float
        Of a swap, between 0 and 1: see `gibbsian.samplers.ladder.place`.
    chains : int
        Chains of the pilot run.
    generator : torch.Generator or int
        Source of randomness, or a seed; seed 0 unless given.

    Raises
    ------
    GibbsianError
        If a setting is impossible, or there is nothing to place machines between.
    """
    if not 0 < number(acceptance, "The acceptance of a refined trajectory") < 1:
        raise GibbsianError(
            f"The acceptance of a refined trajectory lies between 0 and 1, not {acceptance!r}."
        )
    chains = whole(chains, "The number of chains", 2)
    if len(trajectory) < 2:
        raise GibbsianError(
            "A trajectory of one machine has nothing to refine; give its end with trajectory.to(machine)."
        )
    spread = spread_of(acceptance)
    at, lengths = _measure(
        trajectory, chains, spread, as_generator(generator, trajectory.machines[0])
    )
    count = 1 + max(1, math.ceil(lengths[-1] / spread))
    return _placed(trajectory, torch.tensor(at).double(), torch.tensor(lengths).double(), count)


@dataclass(frozen=True)
class _Weighted:
    """Samples of a machine, with log-weights in nats."""

    machine: BoltzmannMachine
    layers: list[Tensor]
    log_weights: Float[Tensor, " chains"]

    def gain(self, other: BoltzmannMachine) -> Float[Tensor, " chains"]:
        """Return F_here − F_other of each sample, the odd layers summed out."""
        return self.machine.marginal_energy(self.layers) - other.marginal_energy(self.layers)

    def moved(self, to: BoltzmannMachine, generator: Generator) -> "_Weighted":
        """Return samples of another machine: these weighted anew, and swept by its Gibbs sampler."""
        weights, layers = self.log_weights + self.gain(to), list(self.layers)
        share = weights.softmax(0)
        if 1 / float(share.square().sum()) < _EFFECTIVE * len(share):
            drawn = _systematic(share, generator)
            layers, weights = [s[drawn] for s in layers], torch.zeros_like(weights)
        for _ in range(_SWEEPS):
            for parity in (1, 0):
                draw(to, layers, parity, generator)
        return _Weighted(to, layers, weights)


def _systematic(share: Float[Tensor, " chains"], generator: Generator) -> Tensor:
    """Draw as many chains as there are, each as often as its share says to within one."""
    n = len(share)
    u = torch.rand(1, generator=generator, dtype=share.dtype, device=share.device)
    at = (torch.arange(n, device=share.device) + u) / n
    return torch.searchsorted(share.cumsum(0), at).clamp(max=n - 1)


def _spread(gains: tuple[Tensor, Tensor], log_weights: tuple[Tensor, Tensor]) -> float:
    """Return the spread whose acceptance is E[min(1, e^Δ)], Δ = gain at the lower − gain at the upper sample.

    The gains F_lower − F_upper, at weighted samples of either machine, meet in all pairs.
    """
    low, high = (w.softmax(0) for w in log_weights)
    accepted = (gains[0][:, None] - gains[1]).clamp(max=0).exp()
    return spread_of(max(float(low @ accepted @ high), _LEAST))


def _measure(
    trajectory: Trajectory, chains: int, spread: float, generator: Generator
) -> tuple[list[float], list[float]]:
    """Return positions along the trajectory, and how far each is from its start, in sums of s.

    One place is compared with the next until s has come to `spread`, and from there on with that one.
    """
    first = trajectory.machines[0]
    layers = list(BaseRatePath(first, first).draw(chains, generator))
    now = last = _Weighted(first, layers, torch.zeros_like(first.marginal_energy(layers)))
    at, lengths, step, begun = [0.0], [0.0], 0.25, 0.0
    while at[-1] < len(trajectory) - 1:
        rung = int(at[-1])
        to = min(at[-1] + step, rung + 1.0)
        after = _machine(trajectory, to)
        gain = now.gain(after)
        if not bool(torch.isfinite(gain).all()):
            raise GibbsianError(
                f"The machine at update {trajectory.updates[rung + 1]:g} of the trajectory has energies "
                "that are not finite; leave it out."
            )
        # The samples weighted by e^gain stand for those of the next place.
        s = _spread((gain, gain), (now.log_weights, now.log_weights + gain))
        if s > spread_of(_KEPT) and step > _SHORTEST:
            step = (to - at[-1]) / 2
            continue
        now = now.moved(after, generator)
        s = _spread(
            (last.gain(after), -now.gain(last.machine)), (last.log_weights, now.log_weights)
        )
        at.append(to)
        lengths.append(max(lengths[-1], begun + s))
        if s >= spread:
            last, begun = now, lengths[-1]
        step = min(1.0, 2 * step)
    return at, lengths


def _placed(trajectory: Trajectory, at: Tensor, lengths: Tensor, count: int) -> Trajectory:
    """Return `count` machines at even steps of the length."""
    # A little of the even spacing keeps them apart where the trajectory has no length at all.
    total = float(lengths[-1]) or 1.0
    shares = 0.98 * lengths / total + 0.02 * at / at[-1] if lengths[-1] else at / at[-1]
    asked = torch.linspace(0, 1, count, dtype=torch.float64)[1:-1]
    i = torch.searchsorted(shares, asked, right=True).clamp(1, len(shares) - 1)
    inside = (asked - shares[i - 1]) / (shares[i] - shares[i - 1])
    places = torch.lerp(at[i - 1], at[i], inside).tolist()
    found = [0.0, *places, float(len(trajectory) - 1)]
    return Trajectory(
        tuple(_machine(trajectory, p) for p in found), tuple(_update(trajectory, p) for p in found)
    )


def _machine(trajectory: Trajectory, place: float) -> BoltzmannMachine:
    """Return the machine at a place: k is the k-th machine, k + ½ is half-way to the next."""
    k = int(place)
    if place == k:
        return trajectory.machines[k]
    return between(trajectory.machines[k], trajectory.machines[k + 1], place - k)


def _update(trajectory: Trajectory, place: float) -> float:
    k = int(place)
    if place == k:
        return trajectory.updates[k]
    low, high = trajectory.updates[k : k + 2]
    return low + (place - k) * (high - low)
