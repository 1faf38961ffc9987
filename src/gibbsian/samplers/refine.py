"""Where machines of a trajectory should stand: at equal acceptance of swaps between neighbours."""

import math

import torch
from torch import Generator, Tensor

from gibbsian.arguments import number, whole
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath
from gibbsian.samplers.base import as_generator
from gibbsian.samplers.gibbs import draw
from gibbsian.samplers.ladder import spread_of
from gibbsian.trajectory import Trajectory, between

# Steps of the pilot run: the spread of energies that one may have, its sweeps, the shortest one.
_SPREAD, _SWEEPS, _SHORTEST = 0.5, 2, 1e-4


@torch.no_grad()
def refine(
    trajectory: Trajectory,
    acceptance: float = 0.3,
    chains: int = 100,
    generator: Generator | int | None = None,
) -> Trajectory:
    """Place machines along a trajectory so that swaps of neighbours are accepted about equally often.

    A pilot run of annealed chains goes along the trajectory, on straight lines in natural parameters from
    machine to machine, in steps short enough that F_now − F_next has a small standard deviation s. The s add
    up to the thermodynamic length (Crooks 2007); machines are put at even steps of it, so new ones come where
    the old stood too far apart, and old ones go where they stood too close.

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
    at, lengths = _measure(trajectory, chains, as_generator(generator, trajectory.machines[0]))
    count = 1 + max(1, math.ceil(lengths[-1] / spread_of(acceptance)))
    return _placed(trajectory, torch.tensor(at).double(), torch.tensor(lengths).double(), count)


def _measure(
    trajectory: Trajectory, chains: int, generator: Generator
) -> tuple[list[float], list[float]]:
    """Return positions along the trajectory, and the thermodynamic length from its start to each."""
    now = trajectory.machines[0]
    layers = list(BaseRatePath(now, now).draw(chains, generator))
    at, lengths, step = [0.0], [0.0], 0.25
    while at[-1] < len(trajectory) - 1:
        rung = int(at[-1])
        to = min(at[-1] + step, rung + 1.0)
        after = _machine(trajectory, to)
        s = float((now.marginal_energy(layers) - after.marginal_energy(layers)).std())
        if not math.isfinite(s):
            raise GibbsianError(
                f"The machine at update {trajectory.updates[rung + 1]:g} of the trajectory has energies "
                "that are not finite; leave it out."
            )
        if s > _SPREAD and step > _SHORTEST:
            step = (to - at[-1]) / 2
            continue
        for _ in range(_SWEEPS):
            for parity in (1, 0):
                draw(after, layers, parity, generator)
        at.append(to)
        lengths.append(lengths[-1] + s)
        now, step = after, min(1.0, 2 * step)
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
