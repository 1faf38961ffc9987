"""How like real pictures samples are: Fréchet distances, nearest neighbours, adversarial accuracy.

Everything is taken of pixels between 0 (black) and 1 (white), cut there, one row a picture.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gibbsian.data import Dataset
from gibbsian.evaluators.quality import adversarial_accuracy

_EPOCHS, _BATCH, _SEEN = 5, 100, 20_000  # a classifier sees so many rows at least
_MOST = 10_000  # real rows of each split that are looked at


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d) of rows, in float64."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, x: Float[Tensor, "rows d"]) -> "Moments":
        """Take them of rows."""
        rows = x.double().numpy()
        return cls(rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False)))


def frechet(a: Moments, b: Moments) -> float:
    """Return the Fréchet distance ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^{1/2}) of two normal distributions.

    The trace of (Σ₁Σ₂)^{1/2} is the sum of the square roots of the eigenvalues of Σ₁^{1/2} Σ₂ Σ₁^{1/2},
    which is symmetric (Dowson & Landau 1982). Of covariances of few rows it is biased upwards: set it
    beside the value for as many real rows.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ b.covariance @ root).clip(0)
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(((a.mean - b.mean) ** 2).sum() + traces - 2 * np.sqrt(shared).sum())


def pixels(data: Dataset, x: Float[Tensor, "rows n"]) -> Float[Tensor, "rows d"]:
    """Return a machine's rows as pixels between 0 and 1."""
    return torch.from_numpy(data.to_images(x)).reshape(len(x), -1).float()


def classifier(rows: Float[Tensor, "rows d"], labels: Tensor, seed: int = 0) -> nn.Sequential:
    """Fit a network with two hidden layers, 256 and 64 units, to pictures."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(rows.shape[1], 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 64), nn.ReLU(),
        nn.Linear(64, int(labels.max()) + 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(max(_EPOCHS, _SEEN // len(rows))):
        for index in torch.randperm(len(rows)).split(_BATCH):
            loss = nn.functional.cross_entropy(net(rows[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


class Judge:
    """Sets pictures beside those of a data set.

    The reference of Fréchet distances are training rows, 10,000 at most; adversarial accuracy is taken
    against test rows.

    Parameters
    ----------
    data : Dataset
        Its training and test rows are the real pictures.
    net : nn.Sequential
        A classifier of such pictures; its last hidden layer gives the features.
    """

    def __init__(self, data: Dataset, net: nn.Sequential) -> None:
        self.net = net
        self.train, self.test = (grey(data, split)[0][:_MOST] for split in ("train", "test"))
        self._moments = [Moments.of(x) for x in (self.train, self.features(self.train))]

    @torch.no_grad()
    def features(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        """Return the last hidden layer of the classifier."""
        return self.net[:-1](x)

    def figures(
        self, x: Float[Tensor, "rows d"], test: Float[Tensor, "rows d"] | None = None
    ) -> dict[str, Any]:
        """Return all figures of pictures."""
        found = adversarial_accuracy(self.test if test is None else test, x)
        with torch.no_grad():
            called = self.net(x).softmax(dim=1)
        return {
            "rows": len(x),
            "aa_ts": found.value, "aa_ts_error": found.standard_error, "aa_t": found.true,
            "aa_s": found.synthetic,
            "frechet_pixels": frechet(self._moments[0], Moments.of(x)),
            "frechet_features": frechet(self._moments[1], Moments.of(self.features(x))),
            "nearest": float(torch.cdist(x, self.train).min(dim=1).values.mean()),
            "confidence": float(called.max(dim=1).values.mean()),
            "classes": torch.bincount(called.argmax(dim=1), minlength=called.shape[1]).tolist(),
        }  # fmt: skip

    def floor(self, rows: int) -> dict[str, Any]:
        """Return the figures of so many real test rows, at most half of them; the others judge them.

        They are drawn at random: in file order rows of one writer stand together.
        """
        n = min(rows, len(self.test) // 2)
        order = torch.randperm(len(self.test), generator=torch.Generator().manual_seed(0))
        return self.figures(self.test[order[:n]], self.test[order[n:]])


def grey(data: Dataset, split: str) -> tuple[Float[Tensor, "rows d"], Tensor]:
    """Return the pixels of a split, without the noise that a transform adds, and the labels."""
    part = data.split(split)
    assert part.labels is not None
    raw = torch.cat([x.float().flatten(1) for x in part.raw_chunks()])
    white = 255 if part.raw([0]).dtype is torch.uint8 else 1
    return raw / white, torch.from_numpy(part.labels)
