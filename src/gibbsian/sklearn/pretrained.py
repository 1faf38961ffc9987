"""`MachineFeatures`: a machine or a deep belief network that is trained already, as a step of a pipeline."""

from functools import partial
from typing import Any, final

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import validate_data

from gibbsian import features
from gibbsian.belief import DeepBeliefNetwork
from gibbsian.errors import TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.sklearn.rows import dense, whole

_ROWS = 1024  # rows whose states are found together


@final
class MachineFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Mean states of a hidden layer of a trained machine or network, of any units and any depth.

    `fit` learns nothing: it looks whether machine, layer and rows fit each other. In a machine with
    one hidden layer the states are the exact E[h | v], in deeper ones those of mean field, and in a deep
    belief network those of its recognition pass.

    Parameters
    ----------
    machine : BoltzmannMachine or DeepBeliefNetwork
        Such as ``gibbsian.load("runs/deep").machine``.
    layer : int
        1 is the first hidden layer, −1 the top one.

    Attributes
    ----------
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Examples
    --------
    >>> import gibbsian as gb, numpy as np
    >>> from gibbsian.sklearn import MachineFeatures
    >>> X = np.array([[0.0, 1, 1], [1, 0, 1]])
    >>> MachineFeatures(gb.rbm(3, 2)).fit_transform(X)
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """

    def __init__(self, machine: Any, layer: Any = -1) -> None:
        self.machine = machine
        self.layer = layer

    def fit(self, X: Any, y: Any = None) -> "MachineFeatures":
        """Check that machine, layer and rows fit each other.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows as the machine takes them.
        y : ignored

        Raises
        ------
        TrainingError
            If `machine` is none.
        GibbsianError
            If there is no such layer, or the rows are not the machine's.
        """
        if not isinstance(self.machine, BoltzmannMachine | DeepBeliefNetwork):
            raise TrainingError(
                "MachineFeatures takes a machine, such as gb.load('runs/digits').machine, or a deep belief "
                f"network, not {type(self.machine).__name__}."
            )
        X = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32))
        self._n_features_out = self.machine.sizes[self._number()]
        self.machine.check(next(dense(X, self.machine)), "X")
        return self

    def _number(self) -> int:
        count = len(self.machine.sizes) - 1
        return features.hidden_layer(whole(self.layer, "layer", -count), count)

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean states of the layer's units, one row a row of `X`."""
        X = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False)
        # A network has a pass upwards of its own.
        means = getattr(self.machine, "transform", partial(features.transform, self.machine))
        found = [means(v, self._number()).cpu() for v in dense(X, self.machine, _ROWS)]
        return torch.cat(found).numpy().astype(X.dtype)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_n_features_out")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
