"""The ladder of tempering: where its levels stand, and what moves along it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from gibbsian.path import BaseRatePath
from gibbsian.samplers.annealed import anneal

# Acceptance of a swap that levels are placed for, and chains and temperatures of the pilot run.
ACCEPTANCE = 0.3
_CHAINS, _TEMPERATURES = 100, 200


def place(path: BaseRatePath, levels: int | None, generator: Generator | None) -> list[float]:
    """Choose levels of equal acceptance from a pilot run of annealed chains.

    Where the reduced energy F_low − F_high of two neighbours is normal, with standard deviation s over the
    chains, swaps are accepted with probability erfc(s/2) (Kofke 2002). Small s add up along the path to its
    thermodynamic length Λ (Crooks 2007), and K levels at even steps of Λ have s = Λ/(K − 1) each. With
    ``levels=None`` as many are taken as acceptance ≈ 0.3 needs.
    """
    betas = [k / _TEMPERATURES for k in range(_TEMPERATURES)]
    lengths = [0.0]

    def measure(k: int, layers: list[Tensor], fields: dict[int, Tensor]) -> None:
        gain = path.gain(layers, fields, betas[k], (k + 1) / _TEMPERATURES)
        lengths.append(lengths[-1] + float(gain.std()))

    anneal(path, betas, _CHAINS, generator, visit=measure)
    total = lengths[-1]
    if levels is None:
        spread = 2 * float(torch.special.erfinv(torch.tensor(1 - ACCEPTANCE, dtype=torch.float64)))
        levels = max(2, 1 + math.ceil(total / spread))
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


@dataclass(frozen=True)
class Exchange:
    """What swaps between neighbouring levels did.

    Attributes
    ----------
    order : Tensor (levels · chains,)
        Row that stands at each place now.
    accepted : Tensor (levels − 1, chains)
        Whether each pair of neighbours was swapped.
    gains : Tensor (levels − 1, 2, chains)
        F_i − F_{i+1}, in nats, at the states of level i and of level i + 1 before their swap.
    """

    order: Tensor
    accepted: Bool[Tensor, "pairs chains"]
    gains: Float[Tensor, "pairs two chains"]


def exchange(
    path: BaseRatePath,
    betas: Sequence[float],
    rows: Sequence[Tensor],
    fields: Mapping[int, Tensor],
    generator: Generator | None,
) -> Exchange:
    """Swap neighbours with probability min(1, e^Δ): pairs (0, 1), (2, 3) …, then (1, 2), (3, 4) ….

    Δ = [F_{i+1}(x_{i+1}) − F_i(x_{i+1})] − [F_{i+1}(x_i) − F_i(x_i)], the odd layers summed out. The fixed
    turns carry a row on in one direction while its swaps are accepted, which crosses the ladder sooner
    than a pair drawn at random would (Syed et al. 2022).

    Parameters
    ----------
    path : BaseRatePath
    betas : sequence of float
        The levels.
    rows : sequence of Tensor (levels · chains, n)
        States, one tensor a layer, level by level; those of odd layers are not used.
    fields : mapping of int to Tensor (levels · chains, n)
        Fields of the target on the odd layers.
    """
    chains = len(rows[0]) // len(betas)
    order = torch.arange(len(rows[0]), device=rows[0].device).view(len(betas), chains)
    gains, accepted = (
        [order.new_empty(0)] * (len(betas) - 1),
        [order.new_empty(0)] * (len(betas) - 1),
    )
    for first in (0, 1):
        for i in range(first, len(betas) - 1, 2):
            at = order[i : i + 2].flatten()
            known = {k: f[at] for k, f in fields.items()}
            pair = path.gain([s[at] for s in rows], known, betas[i], betas[i + 1])
            gains[i] = pair.view(2, chains)
            u = torch.rand(chains, generator=generator, dtype=pair.dtype, device=pair.device)
            accepted[i] = u.log() < gains[i][0] - gains[i][1]
            order[i : i + 2] = torch.where(accepted[i], order[i : i + 2].flip(0), order[i : i + 2])
    return Exchange(order.flatten(), torch.stack(accepted), torch.stack(gains))
