"""Fine-tuning by backpropagation (Hinton & Salakhutdinov 2006), with dropout and a limit on weight norms."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gibbsian import averaging, optimizers, schedules
from gibbsian.arguments import number, whole
from gibbsian.belief.classifier import Classifier
from gibbsian.belief.stage import Progress, Stage
from gibbsian.data import Batch, Dataset
from gibbsian.errors import DataError, TrainingError


@dataclass(frozen=True)
class Settings:
    """How a classifier is fine-tuned.

    Attributes
    ----------
    epochs, batch_size : int
    lr : float
        Learning rate; 0.001 suits Adam, 0.1 plain SGD.
    optimizer, optimizer_options
        Name of a `torch.optim` optimiser (adam, sgd), and its settings.
    schedule, schedule_options
        See `gibbsian.schedules`.
    max_norm : float, optional
        Largest norm of the weights into a hidden unit; larger ones are scaled down after each update.
    average : float
        Decay of the Polyak average of the parameters, which is what is measured and kept; 0 for none.
    patience : int, optional
        Epochs without a lower validation error after which to stop.
    seed : int
    """

    epochs: int = 30
    batch_size: int = 100
    lr: float = 0.001
    optimizer: str = "adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "linear"
    schedule_options: Mapping[str, float] = field(default_factory=dict)
    max_norm: float | None = None
    average: float = 0.0
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises
        ------
        TrainingError
            With one sentence that names the setting.
        """
        for name in ("lr", "max_norm"):
            value = getattr(self, name)
            if value is not None and number(value, f"The setting {name}", TrainingError) <= 0:
                raise TrainingError(f"{name} must be positive, not {value!r}.")
        if not 0 <= number(self.average, "The setting average", TrainingError) < 1:
            raise TrainingError(f"average lies in [0, 1), not at {self.average!r}.")
        if self.patience is not None:
            whole(self.patience, "patience", error=TrainingError)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values; those that are None are left out."""
        return {k: v for k, v in asdict(self).items() if v is not None}


class FineTune(Stage):
    """Trains a classifier on labelled rows by the cross-entropy of its logits.

    After each epoch the validation error is measured, and the parameters of the lowest one are kept.

    Parameters
    ----------
    model : Classifier
        From `gibbsian.belief.classifier.classifier`; trained in place.
    data : Dataset
        With labels.
    settings : Settings, optional
    progress : callable, optional
        See `gibbsian.belief.stage.Stage`.

    Attributes
    ----------
    best : Classifier
        The one to use: of the lowest validation error, or the last where there are no validation rows.
    best_error : float
        Its validation error; ∞ without validation rows.

    Raises
    ------
    GibbsianError
        If data and classifier do not fit, or a setting is impossible.
    """

    def __init__(
        self, model: Classifier, data: Dataset, settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.settings = s = settings or Settings()
        super().__init__(model, data, s.epochs, s.batch_size, s.seed, progress=progress)
        self.model = model
        self._held = _checked(model, data, s)
        self.optimizer = optimizers.build(
            s.optimizer, [{"params": list(model.parameters()), "lr": s.lr}],
            optimizers.quick(s.optimizer, s.optimizer_options),
        )  # fmt: skip
        self.scheduler = schedules.build(s.schedule, s.schedule_options, self.optimizer, self.total)
        # Both are for use, and drop nothing.
        self.averaged, self.best = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
        self._pairs = list(zip(self.averaged.parameters(), model.parameters(), strict=True))
        self.best_error, self._waited = float("inf"), 0
        self._loss = 0.0
        model.draw_from(self.generator)
        model.train()

    def update(self, batch: Batch) -> None:
        """Descend the cross-entropy of one batch."""
        assert batch.labels is not None  # refused at the start otherwise
        like = next(self.model.parameters())
        places = self.model.places(batch.labels.to(like.device), "the training rows")
        loss = F.cross_entropy(self.model(batch.x.to(like)), places)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        with torch.no_grad():
            if self.settings.max_norm is not None:
                for layer in self.model.hidden:
                    # Columns hold the weights into one unit each.
                    layer.connection.weight.renorm_(2, 1, self.settings.max_norm)
        averaging.take_in(self._pairs, self.step + 1, self.settings.average)
        self._loss = float(loss.detach())

    def measure(self) -> dict[str, Any]:
        """Return the last batch's loss and the validation error; keep the best parameters."""
        record: dict[str, Any] = {"lr": self.scheduler.get_last_lr()[0], "loss": self._loss}
        if self._held is None:
            self.best.load_state_dict(self.averaged.state_dict())
            return record
        x, labels = self._held
        error = float((self.averaged.classify(x).cpu() != labels).double().mean())
        if error < self.best_error:
            self.best_error, self._waited = error, 0
            self.best.load_state_dict(self.averaged.state_dict())
        else:
            self._waited += 1
        if self.settings.patience is not None and self._waited >= self.settings.patience:
            self.stopped = f"the validation error did not fall for {self._waited} epochs"
        return record | {"error": {"validation": error}}

    def parts(self) -> dict[str, Any]:
        """Return average, best parameters, optimiser, scheduler, and how long the best has stood."""
        return {
            "average": dict(self.averaged.state_dict()),
            "best": dict(self.best.state_dict()),
            "best_error": self.best_error,
            "waited": self._waited,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load_parts(self, state: dict[str, Any]) -> None:
        """Take back what `parts` returned."""
        self.averaged.load_state_dict(state["average"])
        self.best.load_state_dict(state["best"])
        self.best_error, self._waited = state["best_error"], state["waited"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def _checked(model: Classifier, data: Dataset, s: Settings) -> tuple[Tensor, Tensor] | None:
    """Check labels before the first update; return the validation rows and labels, if there are any."""
    parts = {"training": data.train, "validation": data.validation, "test": data.test}
    for what, part in parts.items():
        if part is None or not len(part):
            continue
        if part.labels is None:
            raise DataError(
                f"Fine-tuning needs labels, and the {what} rows have none; give the data labels."
            )
        model.places(torch.from_numpy(part.labels), f"the {what} rows")
    if data.n_features != model.hidden[0].source:
        raise DataError(
            f"The data have {data.n_features} columns, and this classifier takes "
            f"{model.hidden[0].source}; give it the data that its network was trained on."
        )
    held = data.validation
    if held is None or not len(held):
        if s.patience is not None:
            raise TrainingError(
                "Stopping early needs validation rows; load the data with some, or leave patience out."
            )
        return None
    assert held.labels is not None
    return held.tensor(generator=s.seed), torch.from_numpy(held.labels)
