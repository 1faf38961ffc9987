"""The settings of a training run: plain values that a run's config.toml holds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch

from gibbsian.arguments import number, whole
from gibbsian.errors import TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.precision import PRECISIONS, resolve

DEFAULT_UPDATES = 6_000
_BINARY_RATE, _REAL_RATE, _WHITENED_RATE = 0.1, 0.01, 0.06
# Real columns up to which that last rate is safe: what a batch leaves to chance adds up over columns.
_WIDE = 784
# Of these, where layers above the first are learned beside it. (MNIST, 784-500-1000, PCD-1: at 0.1 the top
# layer froze within 800 updates, at 0.03 it went on learning.)
_DEEP_SHARE = 0.3
_MOST_THREADS = 1024  # OpenMP ends the process when it cannot start as many as it is asked for

Bias = float | Sequence[float]

_ENDLESS = float("inf")
_COUNTS = (
    "epochs", "updates", "batch_size", "log_every", "log_epochs", "checkpoint_every", "keep_last",
    "keep_every", "patience", "monitor_rows", "threads", "trajectory_limit",
)  # fmt: skip
_NUMBERS = {
    "precision_lr": (0, _ENDLESS), "tolerance": (0, _ENDLESS), "scale": (0, _ENDLESS),
    "prior_scale": (0, _ENDLESS),
    "average": (0, 1), "offset_rate": (0, 1), "whiten": (0, _ENDLESS),
}  # fmt: skip
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(
        ("optimizer", "schedule", "weights", "monitor", "device", "precision"), (str, "a word")
    ),
    **dict.fromkeys(("optimizer_options", "schedule_options", "biases"), (Mapping, "a table")),
    **dict.fromkeys(("center", "save_trajectory"), (bool, "true or false")),
}


@dataclass(frozen=True)
class Settings:
    """How a machine is trained; every value is a number, a word, or a table of these.

    Attributes
    ----------
    epochs, updates : int, optional
        Length of the run, in passes over the data or in parameter updates; one of the two.
    batch_size : int
        Rows an update.
    lr : float, optional
        Learning rate; see `learning_rate` for what suits the units.
    precision_lr : float
        Factor on `lr` for log precisions.
    optimizer, optimizer_options
        Name of a `torch.optim` optimiser, and its settings.
    schedule, schedule_options
        Name from `gibbsian.schedules`, and its settings.
    center : bool
        Whether the optimiser works in centred coordinates.
    offset_rate : float
        Rate of the running mean of hidden activities that centring subtracts.
    whiten : float
        Largest variance that a direction of a layer's states may have before couplings step more slowly
        along it, so that others can learn at a larger rate: see `gibbsian.whitening`. 0 for none.
    average : float
        Decay of the Polyak average of the parameters; 0 for none. An average of more than 50 updates
        takes in every fourth.
    pretrain : int, optional
        Epochs of greedy pre-training of each two neighbouring layers of a deep machine, before all are
        trained together: see `gibbsian.pretraining`. None or 0 for none, which suits a centred gradient.
    begin : str, optional
        Folder of a finished run whose machine the lowest layers begin as: see `gibbsian.growing`.
    l1, l2 : float or table
        Penalties: see `gibbsian.regularizers.Penalty`. With `whiten` they pull at every tenth update,
        ten times as hard.
    prior_scale : float
        Scale of a heavy-tailed prior on each coupling, in its unit, against learning the training rows by
        heart: 0.1 suits tens of thousands of rows, fewer want more. See `gibbsian.regularizers.Penalty`; 0
        for none.
    weights, scale, biases
        See `gibbsian.initialise.initialise`; `biases` is keyed by layer number.
    seed : int
        Seed of all randomness.
    log_every, log_epochs : int, optional
        Updates, or epochs, between records of metrics; about a hundred records a run unless given.
    checkpoint_every : int, optional
        Updates between checkpoints; about ten a run unless given.
    keep_last, keep_every
        Checkpoints kept: the last so many, and one at every multiple of `keep_every` updates.
    save_trajectory : bool
        Keep machines of the way in the run folder: see `gibbsian.recorder.TrajectoryRecorder`.
    trajectory_limit : int
        Most machines kept.
    patience, tolerance, monitor
        Stop early after `patience` records in which `monitor` fell by less than `tolerance`.
    monitor_rows : int
        Rows of each split that metrics are taken on.
    device : str
        Where to train.
    precision : {"fp32", "bf16", "auto"}
        Of the products of chains: see `gibbsian.precision`. auto takes bf16 where the
        device is made for it. Parameters are float32 whatever it says, and so is every evaluation.
    threads : int, optional
        CPU threads, fixed for the run since results depend on their number.
    """

    epochs: int | None = None
    updates: int | None = None
    batch_size: int = 100
    lr: float | None = None
    precision_lr: float = 0.1
    optimizer: str = "sgd"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "linear"
    schedule_options: Mapping[str, float] = field(default_factory=dict)
    center: bool = True
    offset_rate: float = 0.01
    whiten: float = 0.0
    average: float = 0.999
    pretrain: int | None = None
    begin: str | None = None
    l1: float | Mapping[str, float] = 0.0
    l2: float | Mapping[str, float] = 0.0
    prior_scale: float = 0.0
    weights: str = "normal"
    scale: float = 0.01
    biases: Mapping[str, Bias] = field(default_factory=dict)
    seed: int = 0
    log_every: int | None = None
    log_epochs: int | None = None
    checkpoint_every: int | None = None
    keep_last: int = 3
    keep_every: int | None = None
    save_trajectory: bool = False
    trajectory_limit: int = 50
    patience: int | None = None
    tolerance: float = 0.0
    monitor: str = "reconstruction_error.validation"
    monitor_rows: int = 500
    device: str = "cpu"
    precision: str = "fp32"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises
        ------
        TrainingError
            With one sentence that names the setting.
        """
        if self.epochs is not None and self.updates is not None:
            raise TrainingError("Give the length of a run as epochs or as updates, not as both.")
        if self.log_epochs is not None and self.log_every is not None:
            raise TrainingError("Give log_every in updates or log_epochs, not both of them.")
        for name in _COUNTS:
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, error=TrainingError)
        if self.pretrain is not None:
            whole(self.pretrain, "pretrain", 0, TrainingError)
        if self.begin is not None:
            if not isinstance(self.begin, str) or not self.begin:
                raise TrainingError(f"begin is the folder of a run, not {self.begin!r}.")
            if self.pretrain:
                raise TrainingError(
                    "A machine begins as another one (begin) or by pre-training, not both."
                )
        for name, (low, high) in _NUMBERS.items():
            value = number(getattr(self, name), name, TrainingError)
            if not low <= value < high:
                limit = (
                    "0 or positive" if high == _ENDLESS else f"at least {low:g} and below {high:g}"
                )
                raise TrainingError(f"{name} must be {limit}, not {value!r}.")
        if self.lr is not None and number(self.lr, "The learning rate", TrainingError) <= 0:
            raise TrainingError(f"The learning rate must be a positive number, not {self.lr!r}.")
        if self.threads is not None and self.threads > _MOST_THREADS:
            raise TrainingError(f"threads must be at most {_MOST_THREADS}, not {self.threads}.")
        if type(self.seed) is not int or not 0 <= self.seed < 2**31:
            raise TrainingError(
                f"The seed must be a whole number from 0 to {2**31 - 1}, not {self.seed!r}."
            )
        for name, (kind, word) in _KINDS.items():
            if not isinstance(getattr(self, name), kind):
                raise TrainingError(f"{name} must be {word}, and {getattr(self, name)!r} is not.")
        if self.whiten and not self.center:
            raise TrainingError(
                "Whitening works in centred coordinates; set center to true as well."
            )
        if self.precision not in PRECISIONS:
            raise TrainingError(f"A precision is {', '.join(PRECISIONS)}, not {self.precision!r}.")
        _check_biases(self.biases)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values; those that are None are left out."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def from_dict(values: Mapping[str, Any]) -> Settings:
    """Build settings from plain values, as in a run's config.toml.

    Raises
    ------
    TrainingError
        If a name is unknown or a value impossible.
    """
    known = {f.name for f in fields(Settings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise TrainingError(
            f"There is no training setting {unknown[0]!r}; known are {', '.join(sorted(known))}."
        )
    plain = {k: _plain(v) for k, v in values.items()}
    if isinstance(plain.get("device"), torch.device):
        plain["device"] = str(plain["device"])
    if isinstance(plain.get("biases"), Mapping):
        plain["biases"] = {str(k): _plain(v) for k, v in plain["biases"].items()}
    return Settings(**plain)


def _plain(value: Any) -> Any:
    """Turn NumPy's and PyTorch's numbers and arrays into Python's numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _check_biases(biases: Mapping[str, Bias]) -> None:
    for layer, value in biases.items():
        if not str(layer).isdecimal():
            raise TrainingError(
                f"First biases are given by the number of their layer, 0 for the visible one, not by "
                f"{layer!r}."
            )
        for x in value if isinstance(value, list | tuple) else [value]:
            number(x, f"The bias of layer {layer}", TrainingError)


def resolved(settings: Settings, machine: BoltzmannMachine) -> Settings:
    """Fill in the defaults that depend on the machine, so that a run's file says all there is."""
    length = {} if settings.updates or settings.epochs else {"updates": DEFAULT_UPDATES}
    return replace(
        settings, lr=learning_rate(settings, machine),
        precision=resolve(settings.precision, settings.device), **length,
    )  # fmt: skip


def learning_rate(settings: Settings, machine: BoltzmannMachine) -> float:
    """Return the learning rate, by default the one that suits the units.

    0.1 for bits on both sides, and 0.1/(r_v r_h)² for finite values with ranges r: recoded as bits, such
    couplings are r_v r_h times as large, and so are their gradients. 0.01 for real visible values; with
    whitening 0.06, and in proportion less for more than 784 of them. With more than one hidden layer 0.3
    times that.
    """
    if settings.lr is not None:
        return settings.lr
    visible, hidden = (_range(machine, i) for i in (0, 1))
    share = 1.0 if len(machine.layers) == 2 else _DEEP_SHARE
    if visible is None and settings.whiten and settings.center:
        return share * _WHITENED_RATE * min(1.0, _WIDE / machine.sizes[0])
    if visible is None:
        return share * _REAL_RATE
    return share * _BINARY_RATE / (visible * (hidden or 1.0)) ** 2


def _range(machine: BoltzmannMachine, layer: int) -> float | None:
    """Return the largest range of values in a layer, or None where one is endless."""
    blocks = machine.layers[layer].domain.blocks()
    if any(b is None for b in blocks):
        return None
    return max(float(b.max() - b.min()) for b in blocks if b is not None) or 1.0
