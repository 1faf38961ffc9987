"""The ladder of tempering: where its levels stand, and what moves along it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from gibbsian.errors import GibbsianError
from gibbsian.path import BaseRatePath
from gibbsian.samplers.annealed import anneal
from gibbsian.samplers.levels import Levels

# Acceptance of a swap that levels are placed for, and chains and temperatures of the pilot run.
ACCEPTANCE = 0.3
_CHAINS, _TEMPERATURES = 100, 100
# A ladder of more levels would hardly be crossed.
MOST = 1_000


def for_swaps(length: float) -> int:
    """Return how many levels a path of this length needs for an acceptance of about 0.3."""
    return max(2, 1 + math.ceil(length / spread_of(ACCEPTANCE)))


def place(
    path: BaseRatePath, levels: int | None, generator: Generator | None,
    count: Callable[[float], int] = for_swaps, most: int = MOST,
) -> list[float]:  # fmt: skip
    """Choose levels of equal acceptance from a pilot run of annealed chains.

    Where the reduced energy F_low − F_high of two neighbours is normal, with standard deviation s over the
    chains, swaps are accepted with probability erfc(s/2) (Kofke 2002). Small s add up along the path to its
    thermodynamic length Λ (Crooks 2007), and K levels at even steps of Λ have s = Λ/(K − 1) each. With
    ``levels=None`` as many are taken as `count` says that Λ needs.

    Raises
    ------
    GibbsianError
        If these are more than `most`.
    """
    betas = [k / _TEMPERATURES for k in range(_TEMPERATURES)]
    lengths = [0.0]

    def measure(k: int, layers: list[Tensor], fields: dict[int, Tensor]) -> None:
        gain = path.gain(layers, fields, betas[k], (k + 1) / _TEMPERATURES)
        lengths.append(lengths[-1] + float(gain.std()))

    anneal(path, betas, _CHAINS, generator, visit=measure)
    total = lengths[-1]
    if levels is None:
        levels = count(total if math.isfinite(total) else 0.0)
        if levels > most:
            raise GibbsianError(
                f"The way from the reference to this machine needs {levels:,} levels, of which {most:,} are "
                "allowed: its couplings are very large, as after a training that blew up. Train anew at a "
                "smaller learning rate, or say how many levels to take."
            )
    at = torch.linspace(0, 1, levels, dtype=torch.float64)
    if not (math.isfinite(total) and total > 1e-6):  # a machine like its reference
        return at.tolist()
    # A little of the even spacing keeps levels apart where the path has no length at all.
    even = torch.linspace(0, 1, len(lengths), dtype=torch.float64)
    shares = 0.98 * torch.tensor(lengths, dtype=torch.float64) / total + 0.02 * even
    i = torch.searchsorted(shares, at, right=True).clamp(1, len(shares) - 1)
    inside = (at - shares[i - 1]) / (shares[i] - shares[i - 1])
    out = (i - 1 + inside) / _TEMPERATURES
    out[0], out[-1] = 0.0, 1.0
    return out.tolist()


def spread_of(acceptance: float) -> float:
    """Return the standard deviation s of F_low − F_high at which swaps are accepted so often: erfc(s/2)."""
    return 2 * float(torch.special.erfinv(torch.tensor(1 - acceptance, dtype=torch.float64)))


@dataclass(frozen=True)
class Exchange:
    """What swaps between neighbouring levels did.

    Attributes
    ----------
    order : Tensor (levels, chains)
        The row that stands at each place now, by the place it had before.
    accepted : Tensor (levels − 1, chains)
        Whether each pair of neighbours was swapped.
    gains : Tensor (levels − 1, 2, chains)
        F_i − F_{i+1}, in nats, at the states of level i and of level i + 1 before their swap.
    """

    order: Tensor
    accepted: Bool[Tensor, "pairs chains"]
    gains: Float[Tensor, "pairs two chains"]


@torch.no_grad()
def exchange(
    levels: Levels,
    rows: Sequence[Tensor],
    fields: Mapping[int, Tensor],
    generator: Generator | None,
) -> Exchange:
    """Swap neighbours with probability min(1, e^Δ), in place: pairs (0, 1), (2, 3) …, then (1, 2) ….

    Δ = [F_{i+1}(x_{i+1}) − F_i(x_{i+1})] − [F_{i+1}(x_i) − F_i(x_i)], the odd layers summed out. The fixed
    turns carry a row on in one direction while its swaps are accepted, which crosses the ladder sooner
    than a pair drawn at random would (Syed et al. 2022).

    Parameters
    ----------
    levels : Levels
    rows : sequence of Tensor (levels · chains, n)
        States, one tensor a layer, level by level; those of odd layers are neither used nor moved.
    fields : mapping of int to Tensor (levels · chains, n)
        The levels' fields on the odd layers.
    """
    chains, last = len(rows[0]) // levels.size, levels.size - 1
    order = torch.arange(len(rows[0]), device=rows[0].device)
    moving = [order, *(rows[i] for i in levels.target.parity(0))]
    gains: dict[int, Tensor] = {}
    accepted: dict[int, Tensor] = {}
    for first in range(min(2, last)):
        pairs = range(first, last, 2)
        found, crossed = levels.compare(pairs, rows, fields)
        gains |= zip(pairs, found, strict=True)
        u = torch.rand(
            found[:, 0].shape, generator=generator, dtype=found.dtype, device=found.device
        )
        accepted |= zip(pairs, hits := u.log() < found[:, 0] - found[:, 1], strict=True)
        pair, chain = hits.nonzero(as_tuple=True)
        low = (first + 2 * pair) * chains + chain
        both, swapped = torch.cat([low, low + chains]), torch.cat([low + chains, low])
        for t in moving:
            t[both] = t[swapped]
        for i, f in fields.items():
            f[both] = crossed[i][swapped]
    turns = range(last)
    return Exchange(
        order.view(levels.size, chains),
        torch.stack([accepted[i] for i in turns]),
        torch.stack([gains[i] for i in turns]),
    )
