"""`BernoulliRBM`, with scikit-learn's own parameters and attributes."""

import warnings
from typing import Any, final

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_random_state

from gibbsian import models
from gibbsian.data.rows import MemoryRows, Rows, as_tensor
from gibbsian.errors import GibbsianWarning
from gibbsian.machine import BoltzmannMachine
from gibbsian.sklearn.base import BoltzmannEstimator
from gibbsian.sklearn.rows import (
    SparseRows,
    Unchecked,
    dense,
)
from gibbsian.units import Bernoulli


@final
class BernoulliRBM(BoltzmannEstimator):
    """Bernoulli restricted Boltzmann machine, in place of ``sklearn.neural_network.BernoulliRBM``.

    E(v, h) = −a·v − b·h − hᵀ W v with bits v and h. Names and meanings are scikit-learn's; new
    are the parameters from `method` on, and `sample`, `free_energy`, `inverse_transform` and
    ``machine_``. By default the updates are scikit-learn's, but rows are shuffled in every iteration
    and visible biases start at the data's (smoothed) log-odds.

    Parameters
    ----------
    n_components : int
        Number of hidden units.
    learning_rate : float
        Rate of the updates.
    batch_size : int
        Rows an update.
    n_iter : int
        Passes over the data.
    verbose : int
        Above 0, print the pseudo-likelihood after every pass.
    random_state : int, RandomState or None
        Source of all randomness.
    method : {"pcd", "cd"}
        Persistent contrastive divergence (Tieleman 2008), or chains restarted at the batch.
    n_steps : int
        Gibbs steps an update.
    n_chains : int, optional
        Persistent chains; as many as `batch_size` unless given.
    center : bool
        Whether the gradient is centred (Melchior, Fischer & Wiskott 2016). Long runs reach higher
        likelihoods with it; a few passes learn fewer directions, and poorer features.
    average : float
        Decay of the Polyak average of the parameters in [0, 1), such as 0.999; the fitted arrays
        are then the average. 0 shows the last iterate.
    schedule : str
        Learning-rate schedule of `fit`: a name from `gibbsian.schedules`.
    optimizer : str
        Name of a `torch.optim` optimiser.
    l1, l2 : float
        Penalties on the weights.
    prior_scale : float
        Scale of a heavy-tailed prior on each coupling, against learning the training rows by heart: 0.1 suits
        tens of thousands of rows, fewer want more; 0 for none. In `fit` alone.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Weights.
    intercept_hidden_, intercept_visible_ : ndarray of shape (n_components,), (n_features,)
        Biases.
    h_samples_ : ndarray of shape (n_chains, n_components)
        Hidden states of the persistent chains; absent with ``method="cd"``.
    machine_ : BoltzmannMachine
        The fitted machine, built from the arrays when it is asked for.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Warns
    -----
    GibbsianWarning
        In `fit` and `partial_fit`, where values lie outside [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from gibbsian.sklearn import BernoulliRBM
    >>> X = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
    >>> BernoulliRBM(n_components=2, random_state=0).fit(X).transform(X).shape
    (4, 2)
    """

    def _build(self, visible: int, *hidden: int) -> BoltzmannMachine:
        return models.rbm(Bernoulli(visible), Bernoulli(hidden[0]))

    def _prepare(self, X: Any, machine: BoltzmannMachine, first: bool) -> Rows:
        low, high = float(X.min()), float(X.max())
        if low < 0 or high > 1:
            warnings.warn(
                f"BernoulliRBM takes values from 0 to 1, and these run from {low:g} to {high:g}; "
                "scale them, or the fit means little.",
                GibbsianWarning,
                stacklevel=4,
            )
            visible = machine.layers[0]
            visible.domain = Unchecked(visible.domain)
        return SparseRows(X) if sparse.issparse(X) else MemoryRows(as_tensor(X, "X"))

    def _change(self, machine: BoltzmannMachine, back: bool) -> None:
        """Do nothing: training sees the rows as they are."""

    def _quality(self, X: Any) -> str:
        return f"pseudo-likelihood = {self.score_samples(X).mean():.2f}"

    def gibbs(self, v: Any) -> np.ndarray:
        """Make one Gibbs step: h ~ p(h | v), then v ~ p(v | h).

        Parameters
        ----------
        v : array-like of shape (n_samples, n_features)

        Returns
        -------
        bool ndarray of shape (n_samples, n_features)
        """
        return self._step(v).astype(bool)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the one-bit pseudo-likelihood n log σ(F(ṽ) − F(v)), ṽ with one bit of v flipped.

        The bit is drawn for each row from `random_state`: an unbiased estimate of the log
        pseudo-likelihood, equal to scikit-learn's for the same arrays and integer seed.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        float64 ndarray of shape (n_samples,), in nats
        """
        X, machine = self._enter(X)
        n, width = X.shape
        bits = check_random_state(self.random_state).randint(0, width, n)
        out, done = [], 0
        with torch.no_grad():
            for v in dense(X, machine):
                flipped, rows = v.clone(), torch.arange(len(v))
                places = torch.from_numpy(bits[done : done + len(v)])
                flipped[rows, places] = 1 - flipped[rows, places]
                gap = machine.free_energy(flipped) - machine.free_energy(v)
                out.append(width * torch.nn.functional.logsigmoid(gap))
                done += len(v)
        return torch.cat(out).numpy()
