"""Samples beside rows: nearest neighbours, balls around rows, pair covariances."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gibbsian.errors import GibbsianError

MOST = 1_000  # rows of each set that distances are taken of
_CHUNK = 4096
_TIE = 1e-5  # distances closer than this, relative to their scale, are equal


@dataclass(frozen=True)
class AdversarialAccuracy:
    """How well nearest neighbours tell rows from samples: ½ where nobody can (Yale et al. 2020).

    Attributes
    ----------
    true : float
        AA_T: the share of rows that are nearer to another row than to any sample.
    synthetic : float
        AA_S: the share of samples that are nearer to another sample than to any row.
    standard_error : float
        Of their mean.
    size : int
        Rows in each set.
    """

    true: float
    synthetic: float
    standard_error: float
    size: int

    @property
    def value(self) -> float:
        """AA_TS = (AA_T + AA_S)/2: 1 where sets lie apart, 0 where samples are copies of rows."""
        return (self.true + self.synthetic) / 2

    @property
    def error(self) -> float:
        """ε = (AA_T − ½)² + (AA_S − ½)²."""
        return (self.true - 0.5) ** 2 + (self.synthetic - 0.5) ** 2

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"aa_ts": self.value, "aa_t": self.true, "aa_s": self.synthetic,
                "standard_error": self.standard_error, "rows": self.size}  # fmt: skip


def adversarial_accuracy(
    rows: Float[Tensor, "n d"], samples: Float[Tensor, "m d"], seed: int = 0
) -> AdversarialAccuracy:
    """Return the adversarial accuracy of nearest neighbours between rows and samples.

    Both sets are cut to one size at random, 1,000 at most; distances are Euclidean, of the columns as
    they are. A tie counts one half, so that sets of few patterns come to ½ too. The standard error is
    that of as many coin tosses as there are rows in both sets, of which those whose nearest neighbours
    are each other fall alike (the variance of Schilling's test, 1986, for sets of equal size).

    Raises
    ------
    GibbsianError
        If either set has fewer than 4 rows.
    """
    from sklearn.neighbors import NearestNeighbors

    n = min(len(rows), len(samples), MOST)
    real, made = _some(rows, n, seed), _some(samples, n, seed + 1)
    own, other, apart = [], [], []
    for x, y in ((real, made), (made, real)):
        within, place = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(x).kneighbors()
        across = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(y).kneighbors(x)[0]
        own.append(within[:, 0])
        other.append(across[:, 0])
        apart.append(place[place[:, 0], 0] == np.arange(n))
    close = _TIE * (1e-12 + float(np.mean(own + other)))
    shares = [
        float(np.mean(np.where(np.abs(w - a) <= close, 0.5, a > w)))
        for w, a in zip(own, other, strict=True)
    ]
    alike = 1 + float(np.mean(apart))
    # Each share is drawn half a toss towards the middle: shares of 0 and 1 have errors too.
    p = [(s * n + 0.5) / (n + 1) for s in shares]
    error = math.sqrt(alike * sum(s * (1 - s) for s in p) / n) / 2
    return AdversarialAccuracy(shares[0], shares[1], error, n)


@dataclass(frozen=True)
class Privacy:
    """Whether samples lie nearer to the training rows than to others.

    Attributes
    ----------
    train, test : AdversarialAccuracy
        Of the samples against training rows, and against held-out rows.
    copied : float
        The share s of samples whose nearest row of all is a training row, beyond the share p of training
        rows among the rows: (s − p)/(1 − p) is 0 for samples of the distribution and 1 for copies.
        Accuracies compare as many rows as samples, and miss copies of the other training rows.
    copied_error : float
        Its standard error.
    """

    train: AdversarialAccuracy
    test: AdversarialAccuracy
    copied: float
    copied_error: float

    @property
    def loss(self) -> float:
        """AA_TS(test) − AA_TS(train): 0 for samples of the distribution, ½ for copied rows."""
        return self.test.value - self.train.value

    @property
    def standard_error(self) -> float:
        """Of the loss."""
        return math.hypot(self.train.standard_error, self.test.standard_error)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"train": self.train.as_dict(), "test": self.test.as_dict(),
                "privacy_loss": self.loss, "standard_error": self.standard_error,
                "copied": self.copied, "copied_standard_error": self.copied_error}  # fmt: skip


def privacy(
    train: Float[Tensor, "n d"], test: Float[Tensor, "k d"], samples: Float[Tensor, "m d"],
    seed: int = 0, training: Iterable[Tensor] | None = None,
) -> Privacy:  # fmt: skip
    """Compare the samples' nearness to training rows with that to held-out rows.

    Adversarial accuracies take as many rows of each as there are samples, 1,000 at most; `copied` takes
    all rows.

    Parameters
    ----------
    train, test, samples : Tensor
    seed : int
    training : iterable of Tensor (rows, d), optional
        All training rows, in chunks, where `train` has only some of them: a copy of one that is not looked
        at would count as fresh.

    Raises
    ------
    GibbsianError
        If any set has fewer than 4 rows.
    """
    n = min(len(train), len(test), len(samples), MOST)
    made = torch.from_numpy(_some(samples, n, seed))
    both = [torch.from_numpy(_some(x, n, seed + 1)) for x in (train, test)]
    near, far = (adversarial_accuracy(x, made, seed) for x in both)
    rows = [train] if training is None else training
    return Privacy(near, far, *_copied(rows, test, made))


def _copied(training: Iterable[Tensor], test: Tensor, made: Tensor) -> tuple[float, float]:
    """Return how much oftener than by chance the nearest row is a training row, and its error.

    The rows are drawn at random as well as the samples, and some of them are the nearest of many samples:
    with c_j samples for row j, Var s ≈ ((1 − s)² Σ_train c² + s² Σ_test c²)/m², which is no less than that of
    m tosses of a coin.
    """
    (near, own, n), (far, other, k) = _nearest(training, made), _nearest([test], made)
    m, chance = len(made), n / (n + k)
    close = _TIE * (1e-12 + float(torch.stack([near, far]).mean()))
    tie = (near - far).abs() <= close
    hit = ~tie & (near < far)
    share = (float(hit.sum()) + chance * float(tie.sum())) / m
    p = (share * m + chance) / (m + 1)
    clumps = [
        float(torch.bincount(which).square().sum()) for which in (own[hit], other[~tie & ~hit])
    ]
    variance = ((1 - share) ** 2 * clumps[0] + share**2 * clumps[1]) / m**2
    error = math.sqrt(max(variance, p * (1 - p) / m))
    return (share - chance) / (1 - chance), error / (1 - chance)


def _nearest(
    chunks: Iterable[Tensor], made: Tensor
) -> tuple[Float[Tensor, " m"], Int[Tensor, " m"], int]:
    """Return the distance of each sample to its nearest row, which row that is, and the number of rows.

    Products in float32 find the nearest, since they are many; its distance is then taken in float64.
    """
    best, count = torch.full((len(made),), math.inf, dtype=torch.float64), 0
    which = torch.zeros(len(made), dtype=torch.int64)
    middle = made.mean(dim=0)
    low = (made - middle).float()
    for chunk in chunks:
        for part in chunk.detach().cpu().split(_CHUNK):
            rows = part.double() - middle
            single = rows.float()
            place = torch.addmm(single.square().sum(dim=1), low, single.T, alpha=-2).argmin(dim=1)
            apart = (made - middle - rows[place]).norm(dim=1)
            which = torch.where(apart < best, count + place, which)
            best = torch.minimum(best, apart)
            count += len(part)
    return best, which, count


@dataclass(frozen=True)
class Coverage:
    """Balls around rows and samples, to the k-th neighbour (Naeem et al. 2020).

    Attributes
    ----------
    precision, recall : float
        Share of samples within a ball around a row; of rows within a ball around a sample.
    density, coverage : float
        Balls around rows that a sample lies in, over k; share of rows whose ball holds a sample.
    """

    precision: float
    recall: float
    density: float
    coverage: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dict(vars(self))


def coverage(
    rows: Float[Tensor, "n d"], samples: Float[Tensor, "m d"], k: int = 5, seed: int = 0
) -> Coverage:
    """Return precision, recall, density and coverage of samples against rows.

    Distances are Euclidean, of the columns as they are, of at most 1,000 of each, and of as many of
    either: coverage grows with the number of samples.

    Raises
    ------
    GibbsianError
        If either set has no more than k, or fewer than 4, rows.
    """
    from sklearn.metrics import pairwise_distances
    from sklearn.neighbors import NearestNeighbors

    n = min(len(rows), len(samples), MOST)
    if n <= k:
        raise GibbsianError(f"Balls to the neighbour number {k} need more rows than {n}.")
    real, made = _some(rows, n, seed), _some(samples, n, seed + 1)
    radii = [
        NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x).kneighbors()[0][:, -1]
        for x in (real, made)
    ]
    apart = pairwise_distances(real, made)
    apart = apart - _TIE * apart.mean()
    around_rows, around_samples = apart <= radii[0][:, None], apart <= radii[1][None, :]
    return Coverage(
        precision=float(around_rows.any(axis=0).mean()),
        recall=float(around_samples.any(axis=1).mean()),
        density=float(around_rows.sum(axis=0).mean() / k),
        coverage=float(around_rows.any(axis=1).mean()),
    )


def covariance_error(rows: Float[Tensor, "n d"], samples: Float[Tensor, "m d"]) -> float:
    """Return ε⁽²⁾, the mean squared difference of pair covariances over the pairs i < j.

    It is never 0 on finitely many rows: set it beside the value for two sets of real rows. For one
    column it is the squared difference of variances.

    Raises
    ------
    GibbsianError
        If either set has fewer than 4 rows.
    """
    a, b = (torch.from_numpy(_some(x, len(x), 0)) for x in (rows, samples))
    difference = torch.cov(a.T).reshape(a.shape[1], -1) - torch.cov(b.T).reshape(b.shape[1], -1)
    i, j = torch.triu_indices(len(difference), len(difference), offset=int(len(difference) > 1))
    return float(difference[i, j].square().mean())


def _some(x: Tensor, n: int, seed: int) -> np.ndarray:
    """Return `n` rows of x at random, in float64."""
    if n < 4:
        raise GibbsianError(f"Samples are set beside rows by at least 4 of each, not {n}.")
    order = torch.randperm(len(x), generator=Generator().manual_seed(seed))[:n]
    return x.detach().cpu().double()[order].numpy()
