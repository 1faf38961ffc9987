"""A stage: minibatch training of any module, kept in a run folder, and resumed bit for bit.

The trainer of machines (`gibbsian.training`) has chains, centring and much else; what comes after
pre-training needs batches, records, checkpoints and Ctrl-C alone.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Generator, nn

from gibbsian import checkpoint
from gibbsian.arguments import whole
from gibbsian.data import Batch, Dataset
from gibbsian.errors import TrainingError
from gibbsian.interrupt import Deferred
from gibbsian.optimizers import lean
from gibbsian.runs import Run

Progress = Callable[[int, int, dict[str, Any]], None]


class Stage(ABC):
    """Trains `module` in place, one `update` a batch.

    Parameters
    ----------
    module : nn.Module
    data : Dataset
    epochs, batch_size : int
        Passes over the training rows, and rows an update.
    seed : int
        Of the order of rows and of all other randomness.
    log_every, checkpoint_every : int, optional
        Updates between records and between checkpoints; an epoch unless given.
    progress : callable, optional
        Called with the step, the total and each record.

    Attributes
    ----------
    step, total : int
        Updates done and to do.
    stopped : str
        Why the stage ended before `total`, if it did.
    history : list of dict
        The records.
    generator, data_generator : torch.Generator
        Of the updates, on the module's device; and of random transforms.
    """

    def __init__(
        self, module: nn.Module, data: Dataset, epochs: int, batch_size: int, seed: int,
        log_every: int | None = None, checkpoint_every: int | None = None,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.module, self.data, self.progress = module, data, progress
        self.batch_size = whole(batch_size, "The batch size", error=TrainingError)
        self.epochs = whole(epochs, "The number of epochs", error=TrainingError)
        self.seed = whole(seed, "The seed", 0, error=TrainingError)
        self.epoch_length = data.batches_per_epoch(self.batch_size)
        self.total = self.epochs * self.epoch_length
        every = (log_every, checkpoint_every)
        self._log_every, self._save_every = (
            self.epoch_length if n is None else whole(n, "The number of updates between records",
                                                      error=TrainingError)
            for n in every
        )  # fmt: skip
        self.step, self.stopped, self.history = 0, "", []
        device = next(module.parameters()).device
        self.generator = Generator(device).manual_seed(self.seed)
        self.data_generator = Generator().manual_seed(self.seed + 1)
        self.run: Run | None = None
        self._interrupt = Deferred()

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Change the module by one batch."""

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """Return the numbers of a record."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """Return what else changes, beside step and generators, as tensors and plain values."""

    @abstractmethod
    def load_parts(self, state: dict[str, Any]) -> None:
        """Take back what `parts` returned."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step >= self.total or bool(self.stopped)

    def fit(self, seconds: float | None = None) -> bool:
        """Run the updates that are left, or for about `seconds`; return whether none is left.

        Ctrl-C lets the update at hand finish and saves before it interrupts.

        Raises
        ------
        TrainingError
            If a parameter stops being finite; the last good checkpoint stands.
        """
        end = math.inf if seconds is None else time.monotonic() + seconds
        with self._interrupt:
            if self.step == 0:
                self._save()
            while not (self.finished or self._interrupt.asked or time.monotonic() > end):
                self._epoch(end)
            if self.run is not None and self.step not in self.run.checkpoints:
                self._save()
        if self._interrupt.asked:
            raise KeyboardInterrupt
        return self.finished

    def _epoch(self, end: float) -> None:
        """Run to the end of the epoch, or as long as there is time."""
        epoch, begin = divmod(self.step, self.epoch_length)
        batches = self.data.batches(
            self.batch_size, epoch=epoch, seed=self.seed, generator=self.data_generator, start=begin
        )
        for batch in batches:
            self.update(batch)
            self.step += 1
            last = self.step == self.total
            if last or self.step % self._log_every == 0:
                self._record()
            if last or self.stopped or self.step % self._save_every == 0:
                self._save()
            if self.stopped or self._interrupt.asked or time.monotonic() > end:
                return

    def _record(self) -> None:
        self._check()
        record = {"step": self.step, "epoch": self.step / self.epoch_length, "time": time.time()}
        record |= self.measure()
        self.history.append(record)
        if self.run is not None:
            self.run.log(record)
        if self.progress is not None:
            self.progress(self.step, self.total, record)

    def _check(self) -> None:
        for name, p in self.module.named_parameters():
            if not bool(p.isfinite().all()):
                hint = "" if self.run is None else ", or go on from the last good checkpoint"
                raise TrainingError(
                    f"The parameter {name} stopped being finite by update {self.step}; lower the learning "
                    f"rate{hint}."
                )

    def _save(self) -> None:
        if self.run is not None:
            self._check()
            checkpoint.write(self.run.checkpoint_folder, self.step, self.state_dict(), keep_last=2)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain values."""
        with lean():
            parts = self.parts()
        return {
            "step": self.step,
            "stopped": self.stopped,
            "module": dict(self.module.state_dict()),
            "generator": self.generator.get_state(),
            "data_generator": self.data_generator.get_state(),
            "transform": self.data.transform.state(),
            "parts": parts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.step, self.stopped = state["step"], state["stopped"]
        self.module.load_state_dict(state["module"])
        self.generator.set_state(state["generator"])
        self.data_generator.set_state(state["data_generator"])
        with lean():
            self.load_parts(state["parts"])

    def keep(self, run: Run) -> None:
        """Keep the stage in a run folder, and go on from its newest checkpoint if it has one."""
        run.lock()
        self.run = run
        if run.checkpoints:
            found = run.checkpoint()
            self.load_state_dict(found.tree)
            run.cut(found.step)
            self.history = run.metrics()
