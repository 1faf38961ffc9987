"""`GaussianRBM`: the same for real-valued columns."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np
import torch
from scipy import sparse

from gibbsian import models
from gibbsian.data.rows import MemoryRows, Rows
from gibbsian.errors import GibbsianWarning, TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.sklearn.base import BoltzmannEstimator
from gibbsian.sklearn.rows import (
    number,
)
from gibbsian.units import Gaussian


@final
class GaussianRBM(BoltzmannEstimator):
    """Restricted Boltzmann machine with real visible and binary hidden units.

    v | h ~ N((a + Wᵀ h)/γ, 1/γ), E(v, h) = Σ_i (γ_i v_i²/2 − a_i v_i) − b·h − hᵀ W v, with a
    learned precision γ_i for each column. Training works in standardised columns (by the moments of
    the first rows seen), so that the learning rate does not depend on units of measurement; all
    attributes are in the data's own units.

    Parameters
    ----------
    n_components, batch_size, n_iter, verbose, random_state, method, n_steps, n_chains, average, \
    schedule, optimizer
        As in `BernoulliRBM`; `verbose` prints the reconstruction error (in standardised columns).
    center : bool
        Whether the gradient is centred: by default yes.
    learning_rate : float
        Rate of the updates; log precisions move at a tenth of it.
    l1, l2 : float
        Penalties on the weights of standardised columns.
    prior_scale : float
        As in `BernoulliRBM`, of the weights of standardised columns.
    sigma0 : float
        Standard deviation of the noise of measurement, or of rounding, relative to that of each
        column: bounds the precisions. A constant column counts as one of standard deviation 1.

    Attributes
    ----------
    components_, intercept_hidden_, h_samples_, machine_, n_features_in_, feature_names_in_
        As in `BernoulliRBM`.
    intercept_visible_ : ndarray of shape (n_features,)
        Linear parameters a: with all hidden units off, the mean of column i is a_i/γ_i.
    precisions_ : ndarray of shape (n_features,)
        γ > 0, the inverse of the conditional variances.

    Warns
    -----
    GibbsianWarning
        In `fit` and the first `partial_fit`, where columns are constant.

    Examples
    --------
    >>> import numpy as np
    >>> from gibbsian.sklearn import GaussianRBM
    >>> X = np.random.default_rng(0).normal(5, 2, (50, 3))
    >>> rbm = GaussianRBM(n_components=2, random_state=0).fit(X)
    >>> rbm.sample(4, n_steps=20).shape
    (4, 3)
    """

    _arrays: ClassVar[Mapping[str, str]] = {
        **BoltzmannEstimator._arrays,
        "precisions_": "units.0.log_precision",
    }

    def __init__(
        self,
        n_components: Any = 256,
        *,
        learning_rate: Any = 0.01,
        batch_size: Any = 10,
        n_iter: Any = 10,
        verbose: Any = 0,
        random_state: Any = None,
        method: Any = "pcd",
        n_steps: Any = 1,
        n_chains: Any = None,
        center: Any = True,
        average: Any = 0.0,
        schedule: Any = "constant",
        optimizer: Any = "sgd",
        l1: Any = 0.0,
        l2: Any = 0.0,
        prior_scale: Any = 0.0,
        sigma0: Any = 0.05,
    ) -> None:
        super().__init__(
            n_components, learning_rate=learning_rate, batch_size=batch_size, n_iter=n_iter,
            verbose=verbose, random_state=random_state, method=method, n_steps=n_steps,
            n_chains=n_chains, center=center, average=average, schedule=schedule,
            optimizer=optimizer, l1=l1, l2=l2, prior_scale=prior_scale,
        )  # fmt: skip
        self.sigma0 = sigma0

    def _build(self, visible: int, *hidden: int) -> BoltzmannMachine:
        sigma0 = number(self.sigma0, "sigma0")
        if sigma0 <= 0:
            raise TrainingError(f"sigma0 must be a positive number, and {sigma0!r} is not.")
        return models.gaussian_rbm(Gaussian(visible, sigma0=sigma0), hidden[0])

    def _prepare(self, X: Any, machine: BoltzmannMachine, first: bool) -> Rows:
        X = X.toarray() if sparse.issparse(X) else X
        spread, mean = X.std(axis=0, dtype=np.float64), X.mean(axis=0, dtype=np.float64)
        constant = spread <= 10 * np.finfo(X.dtype).eps * np.abs(mean)
        if first:
            self._mean, self._scale = mean, np.where(constant, 1.0, spread)
            if constant.any():
                warnings.warn(
                    f"{int(constant.sum())} of {len(constant)} columns are constant (the first is "
                    f"column {int(constant.argmax())}), and sigma0 alone bounds their precision; drop "
                    "them.",
                    GibbsianWarning,
                    stacklevel=4,
                )
        return MemoryRows(torch.from_numpy(((X - self._mean) / self._scale).astype(np.float32)))

    def _change(self, machine: BoltzmannMachine, back: bool) -> None:
        """Apply v = m + s v′: γ = γ′/s², W = W′/s, a = a′/s + γ m, b = b′ − W m; or its inverse."""
        weight, precision = (
            machine.joints[0].weight,
            machine.layers[0].get_parameter("log_precision"),
        )
        a, b = (u.get_parameter("bias") for u in machine.layers)
        m, s = torch.tensor(self._mean), torch.tensor(self._scale)
        with torch.no_grad():
            if back:
                weight.div_(s[:, None])
                precision.sub_(2 * s.log())
                a.div_(s).add_(precision.exp() * m)
                b.sub_(m @ weight)
            else:
                a.sub_(precision.exp() * m).mul_(s)
                b.add_(m @ weight)
                precision.add_(2 * s.log())
                weight.mul_(s[:, None])

    def _quality(self, X: Any) -> str:
        X = X.toarray() if sparse.issparse(X) else X
        back = self.inverse_transform(self.transform(X))
        return f"reconstruction error = {np.mean(((X - back) / self._scale) ** 2):.3f}"

    def gibbs(self, v: Any) -> np.ndarray:
        """Make one Gibbs step: h ~ p(h | v), then v ~ p(v | h), with its noise.

        Parameters
        ----------
        v : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        return self._step(v)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return −F(v), the log density up to the constant log Z, in nats.

        It ranks rows under one fitted machine, as outlier scores do. It does not compare machines:
        `gibbsian.evaluate` estimates log Z for that.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        float64 ndarray of shape (n_samples,)
        """
        return -self.free_energy(X)
