"""How likely observed differences are under the truth: tolerances that are earned, not chosen."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from gibbsian.testing.tables import Table, gauss

ALPHA = 1e-6

# Cells of a histogram are merged until this many draws are expected in each.
_EXPECTED = 10.0


class Agreement:
    """Collects comparisons of independent draws with the truth, and judges them together.

    Each comparison has a probability p under the truth. `require` fails if the smallest of m
    of them is below alpha/m (Bonferroni), so a correct sampler fails with probability alpha at
    most, whatever the number of comparisons.

    Parameters
    ----------
    alpha : float
        Probability of a false alarm.
    """

    def __init__(self, alpha: float = ALPHA) -> None:
        self.alpha = alpha
        self.found: dict[str, float] = {}

    def moments(self, name: str, values: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Compare column means of independent rows `values` with their truth, by normal scores.

        Columns without variance must equal the mean.
        """
        values = values.double()
        mean, variance = mean.double(), variance.double().clamp(min=0)
        gap = values.mean(dim=0) - mean
        error = (variance / len(values)).sqrt()
        constant = error <= 1e-9 * (1 + mean.abs())
        exact = gap.abs() <= 1e-5 * (1 + mean.abs())
        scores = torch.where(constant, torch.where(exact, 0.0, torch.inf), gap / error)
        for i, z in enumerate(scores.tolist()):
            self.found[f"mean of {name}[{i}] is {z:.1f} standard errors off"] = 2 * float(
                stats.norm.sf(abs(z))
            )

    def histogram(self, name: str, counts: Tensor, probabilities: Tensor) -> None:
        """Compare counts of independent draws with cell probabilities, by a chi-square test."""
        n = float(counts.sum())
        order = torch.argsort(probabilities)
        expected, observed = (probabilities[order] * n).tolist(), counts[order].tolist()
        cells: list[tuple[float, float]] = []
        e = o = 0.0
        for more_e, more_o in zip(expected, observed, strict=True):
            e, o = e + more_e, o + more_o
            if e >= _EXPECTED:
                cells.append((e, o))
                e = o = 0.0
        if e > 0 and cells:
            cells[-1] = (cells[-1][0] + e, cells[-1][1] + o)
        if len(cells) < 2:
            return
        square = sum((o - e) ** 2 / e for e, o in cells)
        text = f"chi-square of {name} is {square:.1f} at {len(cells) - 1} degrees of freedom"
        self.found[text] = float(stats.chi2.sf(square, len(cells) - 1))

    def distribution(
        self, name: str, values: Tensor, cdf: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        """Compare independent real draws with a distribution function (Kolmogorov–Smirnov)."""
        found = stats.kstest(values.double().numpy(), cdf)
        self.found[f"Kolmogorov-Smirnov distance of {name} is {found.statistic:.3g}"] = float(
            found.pvalue
        )

    @property
    def p_value(self) -> float:
        """The smallest probability times the number of comparisons, at most 1."""
        return min(1.0, min(self.found.values(), default=1.0) * len(self.found))

    def require(self, what: str) -> float:
        """Return `p_value`, or raise an `AssertionError` that names the worst differences.

        NaN counts as a difference.
        """
        bound = self.alpha / max(len(self.found), 1)
        bad = {k: p for k, p in self.found.items() if not p >= bound}
        if bad:
            worst = sorted(bad, key=lambda k: bad[k])[:4]
            raise AssertionError(
                f"{what}: {len(bad)} of {len(self.found)} comparisons fail at alpha = {self.alpha:g}: "
                + "; ".join(f"{k} (p = {bad[k]:.1e})" for k in worst)
            )
        return self.p_value


def marginal_cdf(table: Table, block: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the distribution function of one real block, from the table's Gauss–Legendre nodes.

    The density at the nodes is expanded in Legendre polynomials and integrated.
    """
    grid = [g for layer in table.grids for g in layer][block]
    x = grid.values[:, 0].numpy()
    mass = table.log_marginal(block).softmax(dim=0).numpy()
    return legendre_cdf(x, mass)


def legendre_cdf(x: np.ndarray, mass: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the distribution function whose masses on Gauss–Legendre nodes `x` are given."""
    polynomial = np.polynomial.legendre
    t, _ = gauss(len(x))
    half = (x[-1] - x[0]) / (t[-1] - t[0])
    centre = x[0] - half * t[0]
    order = np.arange(len(x))
    coefficients = (2 * order + 1) / 2 * (polynomial.legvander(t, len(x) - 1).T @ mass)
    integral = polynomial.legint(coefficients, lbnd=-1)

    def cdf(values: np.ndarray) -> np.ndarray:
        u = np.clip((values - centre) / half, -1, 1)
        return np.clip(polynomial.legval(u, integral), 0, 1)

    return cdf
