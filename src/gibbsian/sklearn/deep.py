"""`BernoulliDBM`: several hidden layers, and features of any of them."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np
import torch
from scipy import sparse

from gibbsian import features, models
from gibbsian.data.rows import MemoryRows, Rows, as_tensor
from gibbsian.errors import GibbsianWarning, TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.repair import reconstruct
from gibbsian.sklearn.base import BoltzmannEstimator
from gibbsian.sklearn.rows import SparseRows, Unchecked, dense, whole
from gibbsian.units import Bernoulli

_ROWS = 1024  # rows whose mean field is found together


@final
class BernoulliDBM(BoltzmannEstimator):
    """Deep Boltzmann machine of bits (Salakhutdinov & Hinton 2009), trained jointly by centred PCD.

    E(v, h¹, h², …) = −a·v − Σ_l b^l·h^l − h¹ᵀ W¹ v − Σ_l h^{l+1}ᵀ W^{l+1} h^l. Given the data, the hidden
    layers follow mean field; the chains are block Gibbs. With one hidden layer it is an RBM.

    Parameters
    ----------
    n_components : sequence of int
        Number of hidden units of each layer, from the first upwards.
    layer : int
        The hidden layer that `transform` shows: 1 is the first, −1 the top one.
    learning_rate, batch_size, n_iter, verbose, random_state, method, n_steps, n_chains, average, \
    schedule, optimizer, l1, l2, prior_scale
        As in `BernoulliRBM`; `verbose` prints the reconstruction error.
    center : bool
        Whether the gradient is centred, which is what lets all layers learn at once (Montavon & Müller
        2012).

    Attributes
    ----------
    components_, components_2_, … : ndarray of shape (units of the layer, units of the one below)
        Weights of the first layer, the second, ….
    intercept_visible_, intercept_hidden_, intercept_hidden_2_, … : ndarray
        Biases.
    h_samples_, machine_, n_features_in_, feature_names_in_
        As in `BernoulliRBM`.

    Warns
    -----
    GibbsianWarning
        In `fit` and `partial_fit`, where values lie outside [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from gibbsian.sklearn import BernoulliDBM
    >>> X = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
    >>> BernoulliDBM((3, 2), random_state=0).fit_transform(X).shape
    (4, 2)
    """

    def __init__(
        self,
        n_components: Any = (256, 256),
        *,
        layer: Any = -1,
        learning_rate: Any = 0.1,
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
    ) -> None:
        super().__init__(
            n_components, learning_rate=learning_rate, batch_size=batch_size, n_iter=n_iter,
            verbose=verbose, random_state=random_state, method=method, n_steps=n_steps,
            n_chains=n_chains, center=center, average=average, schedule=schedule,
            optimizer=optimizer, l1=l1, l2=l2, prior_scale=prior_scale,
        )  # fmt: skip
        self.layer = layer

    def fit(self, X: Any, y: Any = None) -> "BernoulliDBM":
        """Fit the machine to the rows of `X`, anew.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : ignored

        Raises
        ------
        TrainingError
            If a parameter is impossible, or training diverges.
        """
        features.hidden_layer(whole(self.layer, "layer", -len(self._asked())), len(self._asked()))
        for name in [n for n in vars(self) if n.startswith(("components_", "intercept_hidden_"))]:
            delattr(self, name)  # a deeper machine of an earlier fit leaves nothing behind
        return super().fit(X, y)

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean states of the layer's units given the rows, by mean field.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, units of the layer)
        """
        X, machine = self._enter(X)
        found = [features.infer(machine, v).means[self._number()] for v in dense(X, machine, _ROWS)]
        return torch.cat(found).numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Refuse: the layer alone does not say what the ones above it send down.

        Raises
        ------
        TrainingError
            Always.
        """
        raise TrainingError("A deep machine has no inverse of its features; use sample instead.")

    def _number(self) -> int:
        count = len(self._sizes()) - 1
        return features.hidden_layer(whole(self.layer, "layer", -count), count)

    @property
    def _n_features_out(self) -> int:
        return self._sizes()[self._number()]

    def _asked(self) -> tuple[int, ...]:
        given = self.n_components
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            given = (given,)
        sizes = tuple(whole(n, "each of n_components") for n in given)
        if not sizes:
            raise TrainingError("n_components needs the size of at least one hidden layer.")
        return sizes

    def _sizes(self) -> tuple[int, ...]:
        sizes = list(self.components_.shape[::-1])
        while (above := getattr(self, f"components_{len(sizes)}_", None)) is not None:
            sizes.append(above.shape[0])
        return tuple(sizes)

    def _named(self, depth: int) -> Mapping[str, str]:
        deeper = {
            f"{name}_{i}_": f"{part}.{i - shift}.{parameter}"
            for i in range(2, depth + 1)
            for name, part, shift, parameter in (
                ("components", "connections", 1, "weight"),
                ("intercept_hidden", "units", 0, "bias"),
            )
        }
        return {**self._arrays, **deeper}

    def _build(self, visible: int, *hidden: int) -> BoltzmannMachine:
        return models.layered(Bernoulli(visible), *(Bernoulli(n) for n in hidden))

    def _prepare(self, X: Any, machine: BoltzmannMachine, first: bool) -> Rows:
        low, high = float(X.min()), float(X.max())
        if low < 0 or high > 1:
            warnings.warn(
                f"BernoulliDBM takes values from 0 to 1, and these run from {low:g} to {high:g}; "
                "scale them, or the fit means little.",
                GibbsianWarning,
                stacklevel=4,
            )
            machine.layers[0].domain = Unchecked(machine.layers[0].domain)
        return SparseRows(X) if sparse.issparse(X) else MemoryRows(as_tensor(X, "X"))

    def _change(self, machine: BoltzmannMachine, back: bool) -> None:
        """Do nothing: training sees the rows as they are."""

    def _quality(self, X: Any) -> str:
        X, machine = self._enter(X)
        squares = [(reconstruct(machine, v) - v).square().mean(dim=1) for v in dense(X, machine)]
        return f"reconstruction error = {float(torch.cat(squares).mean()):.4f}"
