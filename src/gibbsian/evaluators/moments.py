"""Whether samples have the means and the pair covariances of held-out rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.errors import GibbsianError


@dataclass(frozen=True)
class Moments:
    """How far samples are from rows in their first two moments; 0 where they agree.

    Attributes
    ----------
    mean_error : float
        Σ_i (m_i − m'_i)² over Σ_i var_i of the rows.
    covariance_error : float
        Σ_{i<j} (c_ij − c'_ij)² over Σ_{i<j} c'_ij² of the rows: 1 for samples without correlations.
    samples, rows : int
        How many there were.
    """

    mean_error: float
    covariance_error: float
    samples: int
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dict(vars(self))


def compare_moments(
    samples: Float[Tensor, "n d"],
    rows: Float[Tensor, "m d"],
    widths: Sequence[int] | None = None,
    seed: int = 0,
    splits: int = 8,
) -> Moments:
    """Compare means and pair covariances of independent samples with those of rows.

    Squared differences of noisy estimates are too large on average. Here both sets are cut in two at
    random, and ⟨Δ₁, Δ₂⟩ of the two halves' differences stands for |Δ|²: its noise averages to zero, so
    few samples do not look worse than many, nor better. The mean over `splits` cuts is returned; it
    may be slightly negative.

    Parameters
    ----------
    samples : Tensor (n, d)
        Independent samples, or conditional means E[v | h] of such: columns are independent given h, so
        these have the same means and pair covariances, with less noise.
    rows : Tensor (m, d)
        Rows to compare with.
    widths : sequence of int, optional
        Widths of blocks of columns; pairs within a block are left out.
    seed, splits : int
        Of the random cuts.

    Raises
    ------
    GibbsianError
        If either set has fewer than 4 rows.
    """
    if min(len(samples), len(rows)) < 4:
        raise GibbsianError("Moments are compared with at least 4 samples and 4 rows.")
    generator = Generator().manual_seed(seed)
    a, b = samples.detach().cpu().double(), rows.detach().cpu().double()
    errors = torch.zeros(2, dtype=torch.float64)
    scales = torch.zeros(2, dtype=torch.float64)
    each = torch.tensor(widths or [1] * a.shape[1])
    block = torch.arange(len(each)).repeat_interleave(each)
    off = block[:, None] != block
    for _ in range(splits):
        (m1, c1), (m2, c2) = (_moments(x) for x in _halves(a, generator))
        (n1, d1), (n2, d2) = (_moments(x) for x in _halves(b, generator))
        errors += torch.stack([(m1 - n1) @ (m2 - n2), ((c1 - d1) * (c2 - d2))[off].sum()])
        scales += torch.stack([(d1.trace() + d2.trace()) / 2, (d1 * d2)[off].sum()])
    relative = errors / scales.clamp(min=1e-12)
    return Moments(float(relative[0]), float(relative[1]), len(a), len(b))


def _halves(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(x), generator=generator)
    middle = len(x) // 2
    return x[order[:middle]], x[order[middle:]]


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(dim=0)
    y = x - mean
    return mean, y.T @ y / (len(x) - 1)
