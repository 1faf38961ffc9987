"""What both estimators share: fitting through the library's own `Trainer`, and plain arrays."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar, TypeVar, final

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from gibbsian import estimators, packing, samplers, schedules
from gibbsian.callbacks import Callback
from gibbsian.data import Dataset, Split, Transform
from gibbsian.data.columns import Columns
from gibbsian.data.rows import Rows
from gibbsian.data.splits import permutation
from gibbsian.errors import GibbsianWarning, TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers.gibbs import draw
from gibbsian.settings import Settings
from gibbsian.sklearn.rows import dense, generator_of, number, seed_of, torch_dtype, whole
from gibbsian.training import Trainer
from gibbsian.units import base as unit

# Not typing.Self, which the run-time check of shapes does not know.
Fitted = TypeVar("Fitted", bound="BoltzmannEstimator")

FLOATS: Any = (np.float64, np.float32)
ENDLESS = ("constant", "power")  # schedules that need no end of training


class BoltzmannEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):
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
        prior_scale: Any = 0.0,
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
        self.prior_scale = prior_scale

    # scikit-learn wants a constructor that takes anything; `fit` refuses what is impossible.

    @abstractmethod
    def _build(self, visible: int, *hidden: int) -> BoltzmannMachine:
        """Make a machine of this kind, its parameters at any value."""

    def _named(self, depth: int) -> Mapping[str, str]:
        """Return the learned parameters of a machine of so many hidden layers by their arrays."""
        return self._arrays

    def _asked(self) -> tuple[int, ...]:
        """Return the sizes of the hidden layers that the parameters ask for."""
        return (whole(self.n_components, "n_components"),)

    def _sizes(self) -> tuple[int, ...]:
        """Return the sizes of the fitted layers, from the visible one upwards."""
        return self.components_.shape[::-1]

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
        X = validate_data(self, X, accept_sparse="csr", dtype=FLOATS)
        epochs = whole(self.n_iter, "n_iter", 0)
        batch = whole(self.batch_size, "batch_size")
        seed = seed_of(check_random_state(self.random_state))
        data, machine = self._start(X, self._asked(), True)
        length = data.batches_per_epoch(batch)
        settings = self._settings(
            updates=max(epochs, 1) * length, batch_size=batch, schedule=self.schedule, seed=seed
        )
        hooks = [Report(self, X, length)] if self.verbose else []
        trainer = self._trainer(machine, data, settings, hooks)
        if epochs:
            trainer.fit()
        self._keep(trainer, X.dtype)
        return self

    def partial_fit(self: Fitted, X: Any, y: Any = None) -> Fitted:
        """Make one update with all rows of `X` as one batch; chains and optimiser go on.

        The first call initialises the machine from its rows. There is no known end, so schedules
        other than ``constant`` and ``power`` hold the rate; `set_params` changes it between calls.

        Raises
        ------
        TrainingError
            If a parameter is impossible, or a prior is asked for: it weighs against all rows there are, and
            nobody knows how many will come.
        """
        if number(self.prior_scale, "prior_scale"):
            raise TrainingError(
                "A prior weighs against all rows there are, and partial_fit does not know how many will "
                "come; use fit, or an l1 or l2 penalty in place of prior_scale."
            )
        first = not hasattr(self, "components_")
        X = validate_data(self, X, accept_sparse="csr", dtype=FLOATS, reset=first)
        if not hasattr(self, "random_state_"):
            self.random_state_ = check_random_state(self.random_state)
        kept = None if first else getattr(self, "_training", None)
        hidden = self._asked() if first else self._sizes()[1:]
        data, machine = self._start(X, hidden, kept is None)
        schedule = self.schedule
        if schedule in schedules.SCHEDULES and schedule not in ENDLESS:
            schedule = "constant"
        settings = self._settings(
            updates=1 + (kept["step"] if kept else 0),
            batch_size=X.shape[0],
            schedule=schedule,
            seed=kept["seed"] if kept else seed_of(self.random_state_),
        )
        trainer = self._trainer(machine, data, settings)
        if kept:
            self._resume(trainer, kept)
        if not first:
            self._edit(trainer)
        trainer.fit()
        self._keep(trainer, X.dtype if first else self.components_.dtype)
        return self

    def _start(
        self, X: Any, hidden: Sequence[int], first: bool
    ) -> tuple[Dataset, BoltzmannMachine]:
        """Return the rows as the trainer wants them, and a machine to train."""
        machine = self._build(X.shape[1], *hidden)
        rows = self._prepare(X, machine, first)
        columns = Columns((("real", rows.width),))
        identity = Transform.parse("identity").fit(lambda: rows.spans(rows.blocks()), columns)
        split = Split(rows, permutation(rows.length, 0), None, None, identity)
        parts: dict[str, Split | None] = {"train": split, "validation": None, "test": None}
        return Dataset("the array", parts, identity, None, None, {}), machine

    def _settings(self, **values: Any) -> Settings:
        return Settings(
            lr=number(self.learning_rate, "learning_rate"),
            center=bool(self.center),
            average=number(self.average, "average"),
            optimizer=str(self.optimizer),
            monitor_rows=1,
            l1=self.l1,
            l2=self.l2,
            prior_scale=number(self.prior_scale, "prior_scale"),
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
        trainer.monitored.clear()
        return trainer

    def _method(self) -> estimators.Estimator:
        steps = whole(self.n_steps, "n_steps")
        spec: dict[str, Any] = {"kind": self.method, "steps": steps}
        if str(self.method).lower() == "pcd":
            chains = self.batch_size if self.n_chains is None else self.n_chains
            spec["chains"] = whole(chains, "n_chains")
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
        for array, name in self._named(len(wide.joints)).items():
            value = wide.get_parameter(name).detach()
            value = value.exp() if unit.is_log(name) else value
            out[array] = (
                value.T.numpy().astype(dtype) if value.ndim == 2 else value.numpy().astype(dtype)
            )
        return out

    def _assemble(self, dtype: torch.dtype) -> BoltzmannMachine:
        """Build the machine that the arrays show."""
        machine = self._build(*self._sizes()).to(dtype)
        with torch.no_grad():
            for array, name in self._named(len(machine.joints)).items():
                value = torch.tensor(np.asarray(getattr(self, array)), dtype=dtype)
                value = value.log() if unit.is_log(name) else value
                machine.get_parameter(name).copy_(value.T if value.ndim == 2 else value)
        return machine

    @property
    def machine_(self) -> BoltzmannMachine:
        """The fitted machine, built anew from the arrays at each access."""
        check_is_fitted(self, "components_")
        return self._assemble(torch_dtype(self.components_.dtype))

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
            fields = (machine.joints[0].up(v) for v in dense(X, machine))
            return torch.cat([unit.mean(machine.layers[1], f) for f in fields]).numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the visible means E[v | h] for hidden activities `X` (n_samples, n_components)."""
        check_is_fitted(self, "components_")
        X = check_array(X, dtype=FLOATS)
        if X.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {X.shape[1]} columns, but there are {self._n_features_out} components."
            )
        machine = self._wide(X.dtype)
        with torch.no_grad():
            h = next(dense(X, machine, len(X)))
            return unit.mean(machine.layers[0], machine.joints[0].down(h)).numpy()

    def _enter(self, X: Any) -> tuple[Any, BoltzmannMachine]:
        """Check rows of data; return them with the fitted machine."""
        check_is_fitted(self, "components_")
        X = validate_data(self, X, accept_sparse="csr", dtype=FLOATS, reset=False)
        return X, self._wide(X.dtype)

    def _wide(self, dtype: np.dtype) -> BoltzmannMachine:
        """Build the machine in the wider of two precisions: the arrays' and `dtype`."""
        return self._assemble(torch_dtype(np.result_type(dtype, self.components_.dtype)))

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
            return torch.cat([machine.free_energy(v) for v in dense(X, machine)]).numpy()

    def _step(self, v: Any) -> np.ndarray:
        """One Gibbs step v → h → v."""
        check_is_fitted(self, "components_")
        options: Any = {"accept_sparse": "csr"}
        v = check_array(v, dtype=FLOATS, **options)
        if v.shape[1] != self.components_.shape[1]:
            raise ValueError(
                f"v has {v.shape[1]} columns, but the machine {self.components_.shape[1]}."
            )
        if not hasattr(self, "random_state_"):
            self.random_state_ = check_random_state(self.random_state)
        machine, generator = self._wide(v.dtype), generator_of(self.random_state_)
        out = []
        with torch.no_grad():
            for x in dense(v, machine):
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
        n, steps = whole(n_samples, "n_samples"), whole(n_steps, "n_steps", 0)
        generator = generator_of(check_random_state(self.random_state))
        if isinstance(start, str) and start != "noise":
            raise TrainingError(f"Chains start from 'noise' or from rows, not from {start!r}.")
        if not isinstance(start, str):
            start = torch.tensor(check_array(start, dtype=FLOATS))
            n = len(start)
        drawn = samplers.sample(machine, n, steps, start=start, generator=generator)
        return drawn.samples.numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


@final
class Report(Callback):
    """Prints one line an iteration, as scikit-learn does."""

    def __init__(self, rbm: BoltzmannEstimator, X: Any, length: int) -> None:
        self.rbm, self.X, self.length, self.begin = rbm, X, length, perf_counter()

    def on_update(self, trainer: Trainer) -> None:
        """Print the line where an iteration ends."""
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
