"""Callbacks: what happens besides the updates of a training run."""

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from gibbsian.errors import TrainingError

if TYPE_CHECKING:
    from gibbsian.training import Trainer


class Callback:
    """Base of all callbacks: every hook does nothing unless a subclass gives it a body.

    A callback with memory puts it into `state_dict`, so that a resumed run goes on where it was.
    """

    def on_start(self, trainer: "Trainer") -> None:
        """Run before the first update of this process."""

    def on_update(self, trainer: "Trainer") -> None:
        """Run after each update."""

    def on_metrics(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """Run after metrics were taken."""

    def on_end(self, trainer: "Trainer") -> None:
        """Run after the last update, also when the run was stopped or failed."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors to be checkpointed."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""


class EarlyStopping(Callback):
    """Stops the run once a metric has not fallen by more than `tolerance` for `patience` records.

    Parameters
    ----------
    monitor : str
        Name of the metric, with its split: ``"reconstruction_error.validation"``.
    patience : int
        Records to wait.
    tolerance : float
        Smallest fall that counts.
    """

    def __init__(self, monitor: str, patience: int, tolerance: float = 0.0) -> None:
        self.monitor, self.patience, self.tolerance = monitor, patience, tolerance
        self.best, self.waited = float("inf"), 0

    def on_start(self, trainer: "Trainer") -> None:
        """Refuse a part of the data that there is not; a run that was stopped stays so."""
        split = self.monitor.partition(".")[2]
        if split and split not in trainer.monitored:
            raise self._missing()
        self._stop_if_due(trainer)

    def on_metrics(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """Compare with the best value so far, and ask the trainer to stop."""
        name, _, split = self.monitor.partition(".")
        value = record.get(name)
        value = value.get(split) if isinstance(value, dict) else value
        if not isinstance(value, float):
            raise self._missing()
        if name == "pseudo_likelihood":
            value = -value  # the one metric that rises as the fit improves
        if value < self.best - self.tolerance:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._stop_if_due(trainer)

    def _stop_if_due(self, trainer: "Trainer") -> None:
        if self.waited >= self.patience:
            trainer.stop(f"{self.monitor} did not improve for {self.patience} records")

    def _missing(self) -> TrainingError:
        return TrainingError(
            f"Early stopping watches {self.monitor!r}, which this run does not measure; choose one "
            "of its metrics, or give the data a validation part."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and how long it has stood."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take both back."""
        self.best, self.waited = state["best"], state["waited"]


class ProgressBar(Callback):
    """Shows a live bar with the time left and the newest metrics, on standard error."""

    _SHORT: ClassVar[dict[str, str]] = {
        "reconstruction_error": "reconstruction", "cross_entropy": "cross-entropy",
        "pseudo_likelihood": "pseudo-likelihood", "free_energy_gap": "free-energy gap",
        "weight_norm": "weights",
    }  # fmt: skip

    def on_start(self, trainer: "Trainer") -> None:
        """Draw the bar."""
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )  # fmt: skip
        from rich.text import Text

        self._bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self._task = self._bar.add_task("", total=trainer.total, completed=trainer.step)
        self._metrics = Text(style="dim")
        self._live = Live(
            Group(self._bar, self._metrics), console=Console(stderr=True), refresh_per_second=4
        )
        self._live.start()

    def on_update(self, trainer: "Trainer") -> None:
        """Move the bar, now and then."""
        if trainer.step % 10 == 0 or trainer.step == trainer.total:
            self._bar.update(self._task, completed=trainer.step)

    def on_metrics(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """Show the newest metrics: those of training and of validation rows with a stroke between."""
        parts = []
        for name, label in self._SHORT.items():
            value = record.get(name)
            numbers = list(value.values()) if isinstance(value, dict) else [value]
            if all(isinstance(x, float) for x in numbers):
                parts.append(f"{label} " + " / ".join(f"{x:.4g}" for x in numbers))
        self._metrics.plain = ", ".join(parts)
        self._bar.update(self._task, completed=trainer.step)

    def on_end(self, trainer: "Trainer") -> None:
        """Leave the bar as it stands."""
        self._live.stop()


class TensorBoard(Callback):
    """Writes metrics, and pictures of samples and filters, for TensorBoard.

    Samples are the persistent chains, or, where a method keeps none, chains from noise after 100
    steps of the averaged machine. Where a run is resumed, what it had written later is cut.

    Parameters
    ----------
    folder : str
        Where the event files go.

    Raises
    ------
    TrainingError
        If the `tensorboard` package is missing, or (at the start) the folder cannot be written.
    """

    def __init__(self, folder: str) -> None:
        if find_spec("tensorboard") is None:
            raise TrainingError(
                "TensorBoard is not installed; install it with: pip install 'gibbsian[tensorboard]'."
            )
        self.folder = folder

    def on_start(self, trainer: "Trainer") -> None:
        """Open the file of this process."""
        from torch.utils.tensorboard.writer import SummaryWriter

        cut = trainer.step + 1 if trainer.step else None
        try:
            self._writer = SummaryWriter(self.folder, purge_step=cut)
        except OSError as error:
            raise TrainingError(
                f"TensorBoard's folder {self.folder} cannot be written ({error.strerror}); choose "
                "another one."
            ) from None

    def on_metrics(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """Write every number of the record, and the pictures."""
        for name, value in record.items():
            for split, number in (value if isinstance(value, dict) else {"": value}).items():
                if isinstance(number, int | float):
                    self._writer.add_scalar(f"{name}/{split}".rstrip("/"), number, trainer.step)
        if trainer.data.image_shape is not None:
            from gibbsian.noise import remove_noise
            from gibbsian.plots import tile

            shown = remove_noise(
                trainer.averaged, self._samples(trainer), trainer.data.transform.noise
            )
            images = trainer.data.to_images(shown)
            grid = tile(images.reshape(len(images), -1), images.shape[1:])
            self._writer.add_image("samples", _planes(grid), trainer.step)
            filters = trainer.averaged.joints[0].weight.detach().T[:64].cpu()
            if filters.shape[1] == math.prod(trainer.data.image_shape):
                grid = tile(filters, trainer.data.image_shape, normalise="symmetric")
                self._writer.add_image("filters", _planes(grid), trainer.step)

    def _samples(self, trainer: "Trainer") -> Any:
        if trainer.chains is not None:
            return trainer.chains.layers[0][:64]
        from gibbsian.samplers import sample

        return sample(trainer.averaged, 64, 100, generator=trainer.settings.seed).samples

    def on_end(self, trainer: "Trainer") -> None:
        """Flush the files."""
        self._writer.close()


def _planes(grid: Any) -> Any:
    """Put the colour axis first, as TensorBoard wants it."""
    return grid[None] if grid.ndim == 2 else grid.transpose(2, 0, 1)
