"""scikit-learn estimators: Boltzmann machines in pipelines, on NumPy arrays and sparse matrices.

What is fitted lies in plain arrays (``components_``, ``intercept_hidden_``, …), so estimators are
cloned, pickled and edited like any other; the machine is built from them on demand. Training is the
library's own `Trainer`.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from time import perf_counter
from typing import Any, ClassVar, TypeVar, final

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Generator, Tensor

from gibbsian import estimators, models, packing, samplers, schedules
from gibbsian.callbacks import Callback
from gibbsian.data import Dataset, Split, Transform
from gibbsian.data.columns import Columns
from gibbsian.data.rows import MemoryRows, Rows, Span, as_tensor
from gibbsian.data.splits import permutation
from gibbsian.errors import GibbsianWarning, TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers.gibbs import draw
from gibbsian.settings import Settings
from gibbsian.training import Trainer
from gibbsian.units import Bernoulli, Gaussian
from gibbsian.units import base as unit
from gibbsian.units.base import Domain

__all__ = ["BernoulliRBM", "GaussianRBM"]

# Not typing.Self, which the run-time check of shapes does not know.
Fitted = TypeVar("Fitted", bound="_RBM")

_FLOATS: Any = (np.float64, np.float32)
_CHUNK = 4096  # rows of a sparse matrix that are made dense together
_ENDLESS = ("constant", "power")  # schedules that need no end of training


class _RBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):
    """What both estimators share."""

    # Learned parameters of the machine by the array that shows them; `log_x` is shown as x.
    _arrays: ClassVar[Mapping[str, str]] = {
        "components_": "connections.0.weight",
        "intercept_hidden_": "units.1.bias",
        "intercept_visible_": "units.0.bias",
    }
    components_: np.ndarray
    h_samples_: np.ndarray

    def __init__(
        self,
        n_components: Any = 256,
        *,
        learning_rate: Any = 0.1,
        batch_size: Any = 10,
        n_iter: Any = 10,
        verbose: Any = 0,
        random_state: Any = None,
        method: Any = "pcd",
        n_steps: Any = 1,
        n_chains: Any = None,
        center: Any = False,
        average: Any = 0.0,
        schedule: Any = "constant",
        optimizer: Any = "sgd",
        l1: Any = 0.0,
        l2: Any = 0.0,
    ) -> None:
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.verbose = verbose
        self.random_state = random_state
        self.method = method
        self.n_steps = n_steps
        self.n_chains = n_chains
        self.center = center
        self.average = average
        self.schedule = schedule
        self.optimizer = optimizer
        self.l1 = l1
        self.l2 = l2

    # scikit-learn wants a constructor that takes anything; `fit` refuses what is impossible.

    @abstractmethod
    def _build(self, visible: int, hidden: int) -> BoltzmannMachine:
        """Make a machine of this kind, its parameters at any value."""

    @abstractmethod
    def _prepare(self, X: Any, machine: BoltzmannMachine, first: bool) -> Rows:
        """Warn of unsuitable values, and return the rows in the coordinates of training."""

    @abstractmethod
    def _change(self, machine: BoltzmannMachine, back: bool) -> None:
        """Rewrite a machine for the coordinates of training; `back` for those of the data."""

    @abstractmethod
    def _quality(self, X: Any) -> str:
        """Say how good the fit is, for `verbose`."""

    def fit(self: Fitted, X: Any, y: Any = None) -> Fitted:
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
        X = validate_data(self, X, accept_sparse="csr", dtype=_FLOATS)
        epochs = _whole(self.n_iter, "n_iter", 0)
        batch = _whole(self.batch_size, "batch_size")
        seed = _seed(check_random_state(self.random_state))
        data, machine = self._start(X, _whole(self.n_components, "n_components"), True)
        length = data.batches_per_epoch(batch)
        settings = self._settings(
            updates=max(epochs, 1) * length, batch_size=batch, schedule=self.schedule, seed=seed
        )
        hooks = [_Report(self, X, length)] if self.verbose else []
        trainer = self._trainer(machine, data, settings, hooks)
        if epochs:
            trainer.fit()
        self._keep(trainer, X.dtype)
        return self

    def partial_fit(self: Fitted, X: Any, y: Any = None) -> Fitted:
        """Make one update with all rows of `X` as one batch; chains and optimiser go on.

        The first call initialises the machine from its rows. There is no known end, so schedules
        other than ``constant`` and ``power`` hold the rate; `set_params` changes it between calls.
        """
        first = not hasattr(self, "components_")
        X = validate_data(self, X, accept_sparse="csr", dtype=_FLOATS, reset=first)
        if not hasattr(self, "random_state_"):
            self.random_state_ = check_random_state(self.random_state)
        kept = None if first else getattr(self, "_training", None)
        hidden = self.n_components if first else self.components_.shape[0]
        data, machine = self._start(X, _whole(hidden, "n_components"), kept is None)
        schedule = self.schedule
        if schedule in schedules.SCHEDULES and schedule not in _ENDLESS:
            schedule = "constant"
        settings = self._settings(
            updates=1 + (kept["step"] if kept else 0),
            batch_size=X.shape[0],
            schedule=schedule,
            seed=kept["seed"] if kept else _seed(self.random_state_),
        )
        trainer = self._trainer(machine, data, settings)
        if kept:
            self._resume(trainer, kept)
        if not first:
            self._edit(trainer)
        trainer.fit()
        self._keep(trainer, X.dtype if first else self.components_.dtype)
        return self

    def _start(self, X: Any, hidden: int, first: bool) -> tuple[Dataset, BoltzmannMachine]:
        """Return the rows as the trainer wants them, and a machine to train."""
        machine = self._build(X.shape[1], hidden)
        rows = self._prepare(X, machine, first)
        columns = Columns((("real", rows.width),))
        identity = Transform.parse("identity").fit(lambda: rows.spans(rows.blocks()), columns)
        split = Split(rows, permutation(rows.length, 0), None, None, identity)
        parts: dict[str, Split | None] = {"train": split, "validation": None, "test": None}
        return Dataset("the array", parts, identity, None, None, {}), machine

    def _settings(self, **values: Any) -> Settings:
        return Settings(
            lr=_number(self.learning_rate, "learning_rate"),
            center=bool(self.center),
            average=_number(self.average, "average"),
            optimizer=str(self.optimizer),
            monitor_rows=1,
            l1=self.l1,
            l2=self.l2,
            **values,
        )

    def _trainer(
        self,
        machine: BoltzmannMachine,
        data: Dataset,
        settings: Settings,
        hooks: Sequence[Callback] = (),
    ) -> Trainer:
        with warnings.catch_warnings():
            # What there is to say of the rows has been said, once.
            warnings.simplefilter("ignore", GibbsianWarning)
            trainer = Trainer(machine, data, self._method(), settings, callbacks=hooks)
        # Metrics are for records of runs, which an estimator has none of; and those of rates for
        # bits, which scikit-learn takes, are refused.
        trainer._rows.clear()
        return trainer

    def _method(self) -> estimators.Estimator:
        steps = _whole(self.n_steps, "n_steps")
        spec: dict[str, Any] = {"kind": self.method, "steps": steps}
        if str(self.method).lower() == "pcd":
            chains = self.batch_size if self.n_chains is None else self.n_chains
            spec["chains"] = _whole(chains, "n_chains")
        return estimators.from_spec(spec)

    def _show(self, machine: BoltzmannMachine, dtype: np.dtype) -> None:
        """Show a machine of training as arrays."""
        for name, value in self._shown(machine, dtype).items():
            if not np.isfinite(value).all():
                raise TrainingError(
                    f"{name} stopped being finite; lower the learning rate or scale the data."
                )
            setattr(self, name, value)

    def _keep(self, trainer: Trainer, dtype: np.dtype) -> None:
        """Show what was learned, and keep the state of training as arrays too."""
        self._show(trainer.averaged, dtype)
        if trainer.chains is not None:
            self.h_samples_ = trainer.chains.layers[1].numpy().astype(dtype)
        elif hasattr(self, "h_samples_"):
            del self.h_samples_
        tensors, structure = packing.pack(trainer.state_dict())
        self._training = {
            "step": trainer.step,
            "seed": trainer.settings.seed,
            "optimizer": self.optimizer,
            "tensors": {k: t.numpy() for k, t in tensors.items()},
            "structure": structure,
        }

    def _resume(self, trainer: Trainer, kept: Mapping[str, Any]) -> None:
        """Put the kept state of training into a new trainer, whose learning rate stays."""
        fresh = trainer.optimizer.state_dict()
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        tensors = {k: torch.from_numpy(t.copy()) for k, t in kept["tensors"].items()}
        tree = packing.unpack(tensors, kept["structure"])
        if kept["optimizer"] == self.optimizer:
            fresh["state"] = tree["optimizer"]["state"]
        trainer.load_state_dict(tree | {"optimizer": fresh})
        factor = schedules.SCHEDULES[trainer.settings.schedule](trainer.total)(trainer.step)
        trainer.scheduler.base_lrs = rates
        for group, rate in zip(trainer.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor

    def _edit(self, trainer: Trainer) -> None:
        """Where arrays were changed by hand since the last update, go on from them."""
        shown = self._shown(trainer.averaged, self.components_.dtype)
        if all(np.array_equal(getattr(self, name), value) for name, value in shown.items()):
            return
        given = self._assemble(torch.float64)
        self._change(given, back=False)
        for machine in (trainer.machine, trainer.averaged):
            machine.load_state_dict(given.state_dict())

    def _shown(self, machine: BoltzmannMachine, dtype: np.dtype) -> dict[str, np.ndarray]:
        """Return the arrays that show a machine of training, in the data's coordinates."""
        wide = self._build(*machine.sizes).double()
        wide.load_state_dict(machine.state_dict())
        self._change(wide, back=True)
        out = {}
        for array, name in self._arrays.items():
            value = wide.get_parameter(name).detach()
            value = value.exp() if unit.is_log(name) else value
            out[array] = (
                value.T.numpy().astype(dtype) if value.ndim == 2 else value.numpy().astype(dtype)
            )
        return out

    def _assemble(self, dtype: torch.dtype) -> BoltzmannMachine:
        """Build the machine that the arrays show."""
        hidden, visible = self.components_.shape
        machine = self._build(visible, hidden).to(dtype)
        with torch.no_grad():
            for array, name in self._arrays.items():
                value = torch.tensor(np.asarray(getattr(self, array)), dtype=dtype)
                value = value.log() if unit.is_log(name) else value
                machine.get_parameter(name).copy_(value.T if value.ndim == 2 else value)
        return machine

    @property
    def machine_(self) -> BoltzmannMachine:
        """The fitted machine, built anew from the arrays at each access."""
        check_is_fitted(self, "components_")
        return self._assemble(_torch_dtype(self.components_.dtype))

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def transform(self, X: Any) -> np.ndarray:
        """Return the hidden activation probabilities P(h = 1 | v), one row a row of `X`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        X, machine = self._enter(X)
        with torch.no_grad():
            fields = (machine.joints[0].up(v) for v in _dense(X, machine))
            return torch.cat([unit.mean(machine.layers[1], f) for f in fields]).numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the visible means E[v | h] for hidden activities `X` (n_samples, n_components)."""
        check_is_fitted(self, "components_")
        X = check_array(X, dtype=_FLOATS)
        if X.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {X.shape[1]} columns, but there are {self._n_features_out} components."
            )
        machine = self._wide(X.dtype)
        with torch.no_grad():
            h = next(_dense(X, machine, len(X)))
            return unit.mean(machine.layers[0], machine.joints[0].down(h)).numpy()

    def _enter(self, X: Any) -> tuple[Any, BoltzmannMachine]:
        """Check rows of data; return them with the fitted machine."""
        check_is_fitted(self, "components_")
        X = validate_data(self, X, accept_sparse="csr", dtype=_FLOATS, reset=False)
        return X, self._wide(X.dtype)

    def _wide(self, dtype: np.dtype) -> BoltzmannMachine:
        """Build the machine in the wider of two precisions: the arrays' and `dtype`."""
        return self._assemble(_torch_dtype(np.result_type(dtype, self.components_.dtype)))

    def free_energy(self, X: Any) -> np.ndarray:
        """Return F(v) = −log Σ_h exp(−E(v, h)) of each row, in nats: −log p(v) up to log Z.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        float64 ndarray of shape (n_samples,)
        """
        X, machine = self._enter(X)
        with torch.no_grad():
            return torch.cat([machine.free_energy(v) for v in _dense(X, machine)]).numpy()

    def _step(self, v: Any) -> np.ndarray:
        """One Gibbs step v → h → v."""
        check_is_fitted(self, "components_")
        options: Any = {"accept_sparse": "csr"}
        v = check_array(v, dtype=_FLOATS, **options)
        if v.shape[1] != self.components_.shape[1]:
            raise ValueError(
                f"v has {v.shape[1]} columns, but the machine {self.components_.shape[1]}."
            )
        if not hasattr(self, "random_state_"):
            self.random_state_ = check_random_state(self.random_state)
        machine, generator = self._wide(v.dtype), _generator(self.random_state_)
        out = []
        with torch.no_grad():
            for x in _dense(v, machine):
                state = [x, x]
                draw(machine, state, 1, generator)
                draw(machine, state, 0, generator)
                out.append(state[0])
        return torch.cat(out).numpy()

    def sample(self, n_samples: int = 1, n_steps: int = 1000, start: Any = "noise") -> np.ndarray:
        """Draw samples by Markov chains of their own: `n_steps` block Gibbs steps each.

        Parameters
        ----------
        n_samples : int
            Number of chains; each gives one row.
        n_steps : int
            Gibbs steps. Samples can be trusted only if the chains have mixed by then.
        start : "noise" or array-like of shape (n_samples, n_features)
            ``noise`` carries no information of the data; or rows, each to start one chain from.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            States, not means. An int as `random_state` gives the same ones at each call.
        """
        machine = self.machine_
        n, steps = _whole(n_samples, "n_samples"), _whole(n_steps, "n_steps", 0)
        generator = _generator(check_random_state(self.random_state))
        if isinstance(start, str) and start != "noise":
            raise TrainingError(f"Chains start from 'noise' or from rows, not from {start!r}.")
        if not isinstance(start, str):
            start = torch.tensor(check_array(start, dtype=_FLOATS))
            n = len(start)
        drawn = samplers.sample(machine, n, steps, start=start, generator=generator)
        return drawn.samples.numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


@final
class BernoulliRBM(_RBM):
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

    def _build(self, visible: int, hidden: int) -> BoltzmannMachine:
        return models.rbm(Bernoulli(visible), Bernoulli(hidden))

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
            visible.domain = _Unchecked(visible.domain)
        return _SparseRows(X) if sparse.issparse(X) else MemoryRows(as_tensor(X, "X"))

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
            for v in _dense(X, machine):
                flipped, rows = v.clone(), torch.arange(len(v))
                places = torch.from_numpy(bits[done : done + len(v)])
                flipped[rows, places] = 1 - flipped[rows, places]
                gap = machine.free_energy(flipped) - machine.free_energy(v)
                out.append(width * torch.nn.functional.logsigmoid(gap))
                done += len(v)
        return torch.cat(out).numpy()


@final
class GaussianRBM(_RBM):
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

    _arrays: ClassVar[Mapping[str, str]] = {**_RBM._arrays, "precisions_": "units.0.log_precision"}

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
        sigma0: Any = 0.05,
    ) -> None:
        super().__init__(
            n_components, learning_rate=learning_rate, batch_size=batch_size, n_iter=n_iter,
            verbose=verbose, random_state=random_state, method=method, n_steps=n_steps,
            n_chains=n_chains, center=center, average=average, schedule=schedule,
            optimizer=optimizer, l1=l1, l2=l2,
        )  # fmt: skip
        self.sigma0 = sigma0

    def _build(self, visible: int, hidden: int) -> BoltzmannMachine:
        sigma0 = _number(self.sigma0, "sigma0")
        if sigma0 <= 0:
            raise TrainingError(f"sigma0 must be a positive number, and {sigma0!r} is not.")
        return models.gaussian_rbm(Gaussian(visible, sigma0=sigma0), hidden)

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


@final
class _Report(Callback):
    """Prints one line an iteration, as scikit-learn does."""

    def __init__(self, rbm: _RBM, X: Any, length: int) -> None:
        self.rbm, self.X, self.length, self.begin = rbm, X, length, perf_counter()

    def on_update(self, trainer: Trainer) -> None:
        iteration, rest = divmod(trainer.step, self.length)
        if rest:
            return
        self.rbm._show(trainer.averaged, self.X.dtype)
        with warnings.catch_warnings():
            # The names of columns were left behind when `fit` checked the rows.
            warnings.filterwarnings("ignore", "X does not have valid feature names")
            said, now = self.rbm._quality(self.X), perf_counter()
        name = type(self.rbm).__name__
        print(f"[{name}] Iteration {iteration}, {said}, time = {now - self.begin:.2f}s")
        self.begin = now


@final
class _Unchecked(Domain):
    """A domain whose values are not refused; whoever uses it has warned."""

    def __init__(self, inner: Domain) -> None:
        self.inner, self.size = inner, inner.size

    def check(self, x: Tensor) -> None:
        """Accept everything."""

    def noise(self, chains: int, generator: Generator | None) -> Tensor:
        return self.inner.noise(chains, generator)

    def blocks(self) -> list[Tensor | None]:
        return self.inner.blocks()

    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        return self.inner.natural({k: t.clamp(0, 1) for k, t in mean.items()}, rows)


@final
class _SparseRows(Rows):
    """Rows of a sparse matrix, made dense a batch at a time."""

    in_memory = True

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.length, self.width = matrix.shape
        self.dtype, self.block = _torch_dtype(matrix.dtype), _CHUNK

    def spans(self, spans: Sequence[Span]) -> Iterator[Tensor]:
        return (torch.from_numpy(self.matrix[start:stop].toarray()) for start, stop in spans)

    def take(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self.matrix[index.numpy()].toarray())


def _dense(X: Any, machine: BoltzmannMachine, rows: int = _CHUNK) -> Iterator[Tensor]:
    """Yield the rows of an array or sparse matrix in the machine's dtype, some at a time."""
    like = next(machine.parameters())
    for part in gen_batches(X.shape[0], rows):
        x = X[part].toarray() if sparse.issparse(X) else X[part]
        yield torch.tensor(x, dtype=like.dtype)


def _torch_dtype(dtype: Any) -> torch.dtype:
    return torch.float32 if dtype == np.float32 else torch.float64


def _seed(rng: np.random.RandomState) -> int:
    return int(rng.randint(2**31 - 1))


def _generator(rng: np.random.RandomState) -> Generator:
    return Generator().manual_seed(_seed(rng))


def _whole(value: Any, name: str, least: int = 1) -> int:
    """Return `value` as an int if it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise TrainingError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return int(value)


def _number(value: Any, name: str) -> float:
    """Return `value` as a float if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
        raise TrainingError(f"{name} must be a number, and {value!r} is not.")
    return float(value)
