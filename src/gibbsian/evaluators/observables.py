"""What is compared between chains and rows: a few numbers of each state, chosen on training rows."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.errors import GibbsianError

PROJECTIONS = 8
PAIRS = 8
_RARE = 30.0  # the kurtosis of a bit that is on in one of thirty rows
_FLAT = 0.01  # a direction whose variance is this share of the largest is left out


@dataclass(frozen=True)
class Observables:
    """Magnetisations along principal directions, and products of pairs of columns.

    All n means and n(n − 1)/2 products are too many: the intervals of so many, held at once, do not
    fit into ±0.1 standard deviations. So a fixed number is taken, and chosen on training rows alone.

    Attributes
    ----------
    centre : Tensor (n,)
        Means of the training rows.
    directions : Tensor (n, p)
        Their leading principal directions, which tell clusters apart.
    pairs : Tensor (2, k)
        Pairs of columns of strongest correlation, each column at most once, none of them rare.
    """

    centre: Float[Tensor, " n"]
    directions: Float[Tensor, "n p"]
    pairs: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that a call returns."""
        first = [f"magnetisation along direction {i + 1}" for i in range(self.directions.shape[1])]
        return (*first, *(f"correlation of units {i} and {j}" for i, j in self.pairs.T.tolist()))

    def __call__(self, v: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch q"]:
        """Return the observables of visible states."""
        y = v.to(self.centre) - self.centre
        products = y[..., self.pairs[0]] * y[..., self.pairs[1]]
        return torch.cat([y @ self.directions, products], dim=-1)


def observables(
    rows: Float[Tensor, "rows n"], projections: int = PROJECTIONS, pairs: int = PAIRS
) -> Observables:
    """Choose what to compare, on training rows.

    Constant columns take no part in the pairs, nor do those that differ from their mean in few rows, of which
    a few hundred draws say nothing (a kurtosis above 30: bits that are on in fewer than 1 of 30 rows).
    Directions in which the rows hardly vary are left out: nothing has a size in standard deviations there. A
    single column is paired with itself.

    Parameters
    ----------
    rows : Tensor (rows, n)
    projections, pairs : int
        Most principal directions, and most pairs.

    Raises
    ------
    GibbsianError
        If there are fewer than 2 rows.
    """
    if len(rows) < 2:
        raise GibbsianError("Observables are chosen on at least 2 training rows.")
    x = rows.detach().cpu().double()
    centre = x.mean(dim=0)
    covariance = torch.cov(x.T).reshape(x.shape[1], -1)
    values, vectors = torch.linalg.eigh(covariance)
    count = max(1, int((values > _FLAT * values[-1]).sum()))
    directions = vectors.flip(-1)[:, : min(projections, count)]
    # The sign of an eigenvector is arbitrary: its largest entry is made positive.
    largest = directions.abs().argmax(dim=0, keepdim=True)
    directions = directions * directions.gather(0, largest).sign()
    strongest = _strongest(_common(x - centre, covariance), pairs).to(rows.device)
    return Observables(centre.to(rows), directions.to(rows), strongest)


def _common(y: Tensor, covariance: Tensor) -> Tensor:
    """Return the covariance with zeros for rare columns, unless fewer than two others would be left."""
    variance = covariance.diagonal()
    kurtosis = y.pow(4).mean(dim=0) / variance.square().clamp(min=1e-300)
    common = (variance > 0) & (kurtosis < _RARE)
    if int(common.sum()) < 2:
        return covariance
    return covariance * torch.outer(common, common)


def _strongest(covariance: Tensor, most: int) -> Tensor:
    """List the pairs of strongest correlation, each column at most once."""
    if len(covariance) == 1:
        return torch.zeros(2, 1, dtype=torch.long)
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    scale = torch.outer(deviation, deviation)
    tiny = 1e-12 * scale.max()
    strength = torch.where(scale > tiny, covariance.abs() / scale.clamp(min=1e-300), -1.0).triu(1)
    strength[torch.ones_like(strength, dtype=torch.bool).tril()] = -1.0
    found = []
    while len(found) < most and float(strength.max()) >= 0:
        i, j = divmod(int(strength.argmax()), len(strength))
        found.append((i, j))
        for k in (i, j):
            strength[k, :] = strength[:, k] = -1.0
    return torch.tensor(found or [(0, 1)]).T
