"""Callbacks: what happens besides the updates of a training run."""

from typing import TYPE_CHECKING, Any

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

    def on_metrics(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """Compare with the best value so far, and ask the trainer to stop."""
        name, _, split = self.monitor.partition(".")
        value = record.get(name)
        value = value.get(split) if isinstance(value, dict) else value
        if not isinstance(value, float):
            raise TrainingError(
                f"Early stopping watches {self.monitor!r}, which this run does not measure; choose one "
                "of its metrics, or give the data a validation part."
            )
        if name == "pseudo_likelihood":
            value = -value  # the one metric that rises as the fit improves
        if value < self.best - self.tolerance:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited >= self.patience:
            trainer.stop(f"{self.monitor} did not improve for {self.patience} records")

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and how long it has stood."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take both back."""
        self.best, self.waited = state["best"], state["waited"]


class ProgressBar(Callback):
    """Shows a live bar with the time left and the newest metrics, on standard error."""

    def on_start(self, trainer: "Trainer") -> None:
        """Draw the bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )  # fmt: skip

        self._bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[metrics]}"),
            console=Console(stderr=True), refresh_per_second=4,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=trainer.total, completed=trainer.step, metrics="")
        self._bar.start()

    def on_update(self, trainer: "Trainer") -> None:
        """Move the bar, now and then."""
        if trainer.step % 10 == 0 or trainer.step == trainer.total:
            self._bar.update(self._task, completed=trainer.step)

    def on_metrics(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """Show the newest metrics."""
        short = {"reconstruction_error": "rec", "cross_entropy": "xent", "pseudo_likelihood": "PL"}
        parts = []
        for name, label in short.items():
            value = record.get(name)
            if isinstance(value, dict):
                value = value.get("validation", value.get("train"))
            if isinstance(value, float):
                parts.append(f"{label} {value:.4g}")
        self._bar.update(self._task, completed=trainer.step, metrics=" ".join(parts))

    def on_end(self, trainer: "Trainer") -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


class TensorBoard(Callback):
    """Writes metrics, and pictures of chains and filters, for TensorBoard.

    Parameters
    ----------
    folder : str
        Where the event files go.

    Raises
    ------
    TrainingError
        If the `tensorboard` package is missing.
    """

    def __init__(self, folder: str) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise TrainingError(
                "TensorBoard is not installed; install it with: pip install 'gibbsian[tensorboard]'."
            ) from None
        self._writer = SummaryWriter(folder)

    def on_metrics(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """Write every number of the record, and the pictures."""
        for name, value in record.items():
            for split, number in (value if isinstance(value, dict) else {"": value}).items():
                if isinstance(number, int | float):
                    self._writer.add_scalar(f"{name}/{split}".rstrip("/"), number, trainer.step)
        shape = trainer.data.image_shape
        if shape is None:
            return
        from gibbsian.plots import tile

        if trainer.chains is not None:
            grid = tile(trainer.chains.layers[0][:64].cpu(), shape)
            self._writer.add_image("chains", _planes(grid), trainer.step)
        filters = trainer.averaged.joints[0].weight.detach().T[:64].cpu()
        grid = tile(filters, shape, normalise="symmetric")
        self._writer.add_image("filters", _planes(grid), trainer.step)

    def on_end(self, trainer: "Trainer") -> None:
        """Flush the files."""
        self._writer.close()


def _planes(grid: Any) -> Any:
    """Put the colour axis first, as TensorBoard wants it."""
    return grid[None] if grid.ndim == 2 else grid.transpose(2, 0, 1)
