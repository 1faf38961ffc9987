"""The one training loop; callbacks do the rest.

A run's whole state is visible: machine, average, chains, optimiser, scheduler, generators, offsets and
place in the data. All of it is checkpointed, and a resumed run goes on bit for bit.
"""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from gibbsian import averaging, checkpoint, devices, monitor, optimizers, precision, schedules
from gibbsian.callbacks import Callback, EarlyStopping
from gibbsian.centring import Centring
from gibbsian.data import Dataset
from gibbsian.descent import Descent
from gibbsian.errors import TrainingError
from gibbsian.estimators import Estimator, Phases
from gibbsian.finite import Finite, warn_of_size
from gibbsian.initialise import EQUILIBRIUM, initialise
from gibbsian.interrupt import Deferred
from gibbsian.machine import BoltzmannMachine
from gibbsian.moments import Moments
from gibbsian.packing import pack
from gibbsian.path import data_statistics
from gibbsian.proper import Keeper
from gibbsian.recorder import TrajectoryRecorder
from gibbsian.regularizers import Penalty
from gibbsian.runs import Run
from gibbsian.samplers import ChainState
from gibbsian.settings import DEFAULT_UPDATES, Settings, learning_rate
from gibbsian.units import base as unit
from gibbsian.whitening import Whitening

SchedulerFactory = schedules.SchedulerFactory

# Updates between two pulls of a penalty in a whitened run.
_PENALTY_STRIDE = 10


class Trainer:
    """Trains one machine; `fit` runs to the end, and every attribute is part of the state.

    Parameters
    ----------
    machine : BoltzmannMachine
        Trained in place (the last iterate).
    data : Dataset
    method : Estimator
    settings : Settings
    run : Run, optional
        Where metrics and checkpoints go.
    optimizer, scheduler : callable, optional
        Functions that make them, in place of the names in `settings`.
    callbacks : sequence of Callback

    Attributes
    ----------
    averaged : BoltzmannMachine
        The Polyak average of the parameters.
    chains : ChainState or None
    step, total : int
        Updates done and to do.
    history : list of dict
        The records of metrics.
    statistics : tuple
        Mean statistics of the training data, and the number of rows: see `gibbsian.path.data_statistics`.
    monitored : dict of str to Tensor
        The rows of each split that metrics are taken on.
    """

    def __init__(
        self,
        machine: BoltzmannMachine,
        data: Dataset,
        method: Estimator,
        settings: Settings,
        run: Run | None = None,
        optimizer: optimizers.OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.device = devices.find(settings.device)
        self.machine = machine.to(self.device)
        self.data, self.method, self.settings, self.run = data, method, settings, run
        self.callbacks = list(callbacks)
        if settings.patience is not None:
            stop = EarlyStopping(settings.monitor, settings.patience, settings.tolerance)
            self.callbacks.append(stop)
        if settings.save_trajectory:
            self.callbacks.append(TrajectoryRecorder(settings.trajectory_limit))
        self.epoch_length = data.batches_per_epoch(settings.batch_size)
        self.total = _updates(settings, self.epoch_length)
        self.step, self.stopped, self.history = 0, "", []
        self.generator = Generator(self.device).manual_seed(settings.seed)
        self.data_generator = Generator().manual_seed(settings.seed + 1)
        self.penalty = Penalty(settings.l1, settings.l2, settings.prior_scale, len(data.train))
        self.penalty.check(machine)
        self.keeper, self._centring = Keeper(machine), Centring(machine)
        self.chains: ChainState | None = None
        self._interrupt = Deferred()
        self.monitored = self._monitored()
        self._begin()
        self._first_rate = learning_rate(settings, machine)
        groups = _groups(machine, self._first_rate, settings.precision_lr)
        self.optimizer = optimizers.build(
            optimizer or settings.optimizer, groups, settings.optimizer_options
        )
        self.scheduler = schedules.build(
            scheduler or settings.schedule, settings.schedule_options, self.optimizer, self.total
        )
        self.averaged = copy.deepcopy(machine)
        self._learned = machine.learned()
        averages = self.averaged.learned()
        self._averages = [(averages[k], p) for k, p in self._learned.items()]
        coordinates = self._centring if settings.center else None
        self.whitening = Whitening(machine, settings.whiten) if settings.whiten else None
        # To precondition a tensor costs several updates, so a penalty then pulls seldom, but harder.
        self._penalty_stride = _PENALTY_STRIDE if self.whitening else 1
        self.penalty.check_step(self._first_rate * self._penalty_stride)
        self._descent = Descent(machine, self.optimizer, self.keeper, coordinates, self.whitening)
        self._finite = Finite(list(self._learned), self.device)
        epochs = (settings.log_epochs or 0) * self.epoch_length
        self._log_every = settings.log_every or epochs or max(1, self.total // 100)
        often = settings.checkpoint_every or max(1, self.total // 10)
        self._saves = (often, settings.keep_every or often)

    def _begin(self) -> None:
        """Initialise parameters, offsets and chains from the data."""
        s, machine = self.settings, self.machine
        like = next(machine.parameters())
        rows = self.data.train.tensor(limit=max(2000, s.monitor_rows), generator=s.seed).to(like)
        machine.check(rows, "the training data")
        weights = self.data.train.weights
        self._mean_weight = 1.0 if weights is None else float(weights.mean())
        mean, count = data_statistics(machine.layers[0], self._checked_chunks(), weights)
        self.statistics = ({k: t.to(like.device) for k, t in mean.items()}, count)
        initialise(
            machine, rows, weights=s.weights, scale=s.scale, generator=self.generator,
            statistics=self.statistics,
            biases={int(k): v for k, v in s.biases.items()},
        )  # fmt: skip
        self._place(rows)

    def begin_at(self, machine: BoltzmannMachine) -> None:
        """Start from the parameters of another machine of this shape, before the first update."""
        limit = max(2000, self.settings.monitor_rows)
        rows = self.data.train.tensor(limit=limit, generator=self.settings.seed)
        self.machine.load_state_dict(machine.state_dict())
        self._place(rows.to(next(self.machine.parameters())))
        self.averaged.load_state_dict(self.machine.state_dict())

    def _place(self, rows: Tensor) -> None:
        """Place chains and offsets where the parameters are."""
        s, machine, mean = self.settings, self.machine, self.statistics[0]
        like = next(machine.parameters())
        self.keeper.keep()
        # The same machine, but for the precision of its products.
        self._walker = precision.lowered(machine, precision.resolve(s.precision, self.device))
        self.chains = self._first_chains(rows)
        self.offsets = [unit.state_mean(machine.layers[0], mean).to(like)]
        with torch.no_grad():
            for u, c in zip(machine.layers[1:], machine.joints, strict=True):
                self.offsets.append(unit.mean(u, c.up(self.offsets[-1])))
        self.offsets = self._centring.allowed(self.offsets)

    def _first_chains(self, rows: Tensor) -> ChainState | None:
        """Start chains; near the machine's own samples where it starts far from the reference."""
        method: Any = self.method
        asked, draw = getattr(method, "start", None), EQUILIBRIUM.get(self.settings.weights)
        if asked != "reference" or (draw is None and not self.settings.begin):
            return method.init(self._walker, rows, self.generator)
        # A trained machine is close to its data.
        drawn = draw and draw(self.machine, method.chains, rows, self.generator)
        method.start = "data" if self.settings.begin else drawn
        try:
            return method.init(self._walker, rows, self.generator)
        finally:
            method.start = asked

    def _checked_chunks(self) -> Iterator[Tensor]:
        """Go through all training rows; the machine refuses values outside its domain."""
        for chunk in self.data.train.chunks():
            self.machine.check(chunk, "the training data")
            yield chunk

    def _monitored(self) -> dict[str, Tensor]:
        like = next(self.machine.parameters())
        parts = {"train": self.data.train, "validation": self.data.validation}
        rows = {
            k: p.tensor(limit=self.settings.monitor_rows, generator=self.settings.seed).to(like)
            for k, p in parts.items()
            if p is not None and len(p)
        }
        for k, x in rows.items():
            self.machine.check(x, f"the {'training' if k == 'train' else k} data")
        return rows

    def fit(self) -> None:
        """Run all updates that are left.

        Ctrl-C lets the update at hand finish and saves before it interrupts; a second one does not.

        Raises
        ------
        TrainingError
            If a parameter or a metric stops being finite; the last good checkpoint stands.
        """
        started: list[Callback] = []
        with self._interrupt:
            try:
                for callback in self.callbacks:
                    callback.on_start(self)
                    started.append(callback)
                if self.step == 0:
                    self._save()
                while self.step < self.total and not self._ends():
                    self.advance()
                if self.run is not None and self.step not in self.run.checkpoints:
                    self._save()
                self.penalty.warn(self.averaged)
                warn_of_size(self.averaged)
            finally:
                for callback in started:
                    callback.on_end(self)
        if self._interrupt.asked:
            raise KeyboardInterrupt

    def _ends(self) -> bool:
        return bool(self.stopped) or self._interrupt.asked

    def stop(self, reason: str) -> None:
        """Ask for the run to end after this update."""
        self.stopped = reason

    def advance(self) -> None:
        """Run to the end of the epoch, or of the run."""
        epoch, begin = divmod(self.step, self.epoch_length)
        batches = self.data.batches(
            self.settings.batch_size, epoch=epoch, seed=self.settings.seed,
            generator=self.data_generator, start=begin,
        )  # fmt: skip
        for batch in batches:
            self._update(batch.x, batch.weights)
            for callback in self.callbacks:
                callback.on_update(self)
            last = self.step == self.total
            if self.step % self._log_every == 0 or last:
                self._measure()
            ends = last or self._ends()
            if ends or any(self.step % every == 0 for every in self._saves):
                self._save()
            if ends:
                return

    @torch.no_grad()
    def _update(self, x: Tensor, weights: Tensor | None) -> None:
        machine = self.machine
        like = self._averages[0][0]
        x = x.to(like)
        # What the batch weighs against others: 1 but for sample weights.
        share = None if weights is None else (weights.mean() / self._mean_weight).to(like)
        weights = None if weights is None else weights.to(like)
        precision.refresh(self._walker)
        self.method.pace = self.optimizer.param_groups[0]["lr"] / self._first_rate
        phases = self.method.step(self._walker, x, self.chains, self.generator, weights)
        self.chains = phases.chains
        if phases.restarted:
            self._begin_anew(phases)
        gradient = phases.gradient(machine, self._learned, share)
        if self.penalty and self.step % self._penalty_stride == self._penalty_stride // 2:
            # What is no sum over rows asks for tensors.
            gradient = Moments(dict(gradient))
            self.penalty.add(machine, gradient, self._penalty_stride)
        if self.settings.center:
            self._move_offsets(phases, share)
        self._descent.step(gradient, self.offsets, self.step + 1, self._look, phases.rate)
        self.scheduler.step()
        self.step += 1
        if self.step == 1:
            with optimizers.lean():
                pack({"optimizer": self.optimizer.state_dict()})
        averaging.take_in(self._averages, self.step, self.settings.average)

    def _begin_anew(self, phases: Phases) -> None:
        """Let average, optimiser and offsets forget parameters that were given up."""
        self.optimizer.state.clear()
        hidden = [phases.mean(self.machine, i) for i in range(1, len(self.offsets))]
        self.offsets = self._centring.allowed([self.offsets[0], *hidden])
        for average, p in self._averages:
            average.copy_(p)

    def _look(self, gradient: Mapping[str, Tensor], number: int) -> None:
        """Stop before a step along a gradient that is not finite."""
        self._finite.note(gradient, number)
        if number % self._finite.every == 0:
            self._check()

    def _move_offsets(self, phases: Phases, share: Tensor | None) -> None:
        """Move the hidden offsets by a running mean; the visible ones are the data's mean."""
        rate: float | Tensor = self.settings.offset_rate
        rate = rate if share is None else rate * share.clamp(max=1)
        for i in range(1, len(self.offsets)):
            self.offsets[i] = torch.lerp(self.offsets[i], phases.mean(self.machine, i), rate)
        self.offsets = self._centring.allowed(self.offsets)

    def _check(self) -> None:
        """Stop if a gradient was not finite."""
        found = self._finite.found()
        if found is not None:
            broken = [k for k, p in self._learned.items() if not bool(torch.isfinite(p).all())]
            # Those found broken now may have caught it from the first.
            name = found[0] if found[0] in broken or not broken else broken[0]
            what = f"parameter {name}" if broken else f"gradient of {name}"
            raise TrainingError(
                f"The {what} stopped being finite at update {found[1]}; lower the learning rate or "
                f"check the data{self._hint()}."
            )

    def _hint(self) -> str:
        return "" if self.run is None else ", or go on from the last good checkpoint"

    def _measure(self) -> None:
        self._check()
        # The same random blocks for every record: the curve moves with the machine, not with them.
        generator = Generator(self.device).manual_seed(self.settings.seed)
        record = monitor.measure(self.averaged, self.monitored, generator)
        record |= self.method.report(self.machine, self.chains)
        for name, value in record.items():
            for split, number in (value if isinstance(value, dict) else {"": value}).items():
                if not math.isfinite(number):
                    raise TrainingError(
                        f"The metric {name} {split} stopped being finite at update {self.step}; lower "
                        f"the learning rate{self._hint()}."
                    )
        record = {
            "step": self.step,
            "epoch": self.step / self.epoch_length,
            "time": time.time(),
            "lr": self.scheduler.get_last_lr()[0],
            **record,
        }
        self.history.append(record)
        if self.run is not None:
            self.run.log(record)
        for callback in self.callbacks:
            callback.on_metrics(self, record)

    def _save(self) -> None:
        if self.run is None:
            return
        self._check()
        for name, p in self._learned.items():
            if not bool(torch.isfinite(p).all()):
                raise TrainingError(
                    f"The parameter {name} stopped being finite by update {self.step}; lower the "
                    f"learning rate{self._hint()}."
                )
        checkpoint.write(
            self.run.checkpoint_folder, self.step, self.state_dict(),
            keep_last=self.settings.keep_last, keep_every=self.settings.keep_every,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain values."""
        chains = self.chains
        with optimizers.lean():
            optimizer = self.optimizer.state_dict()
        return {
            "step": self.step,
            "stopped": self.stopped,
            "machine": dict(self.machine.state_dict()),
            "average": dict(self.averaged.state_dict()),
            "chains": None
            if chains is None
            else {"layers": list(chains.layers), "extra": dict(chains.extra)},
            "optimizer": optimizer,
            "scheduler": self.scheduler.state_dict(),
            "offsets": self.offsets,
            "whitening": None if self.whitening is None else self.whitening.state_dict(),
            "keeper": self.keeper.state_dict(),
            "generator": self.generator.get_state(),
            "data_generator": self.data_generator.get_state(),
            "transform": self.data.transform.state(),
            "callbacks": {k: c.state_dict() for k, c in self._named_callbacks()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        device = self.device
        self.step, self.stopped = state["step"], ""
        self.machine.load_state_dict(state["machine"])
        self.averaged.load_state_dict(state["average"])
        if state["chains"] is not None:
            # Cloned: the last bits of a product depend on how its factors are aligned in memory.
            layers = tuple(t.to(device).clone() for t in state["chains"]["layers"])
            extra = {k: t.to(device) for k, t in state["chains"]["extra"].items()}
            self.chains = ChainState(layers, extra)
        with optimizers.lean():
            self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.offsets = [t.to(device).clone() for t in state["offsets"]]
        if self.whitening is not None:
            self.whitening.load_state_dict(state["whitening"])
        self.keeper.load_state_dict(state["keeper"])
        self.generator.set_state(state["generator"])
        self.data_generator.set_state(state["data_generator"])
        for name, callback in self._named_callbacks():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """Name each callback by its class, and by its place among those of one class."""
        seen: dict[str, int] = {}
        for callback in self.callbacks:
            name = type(callback).__name__
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name} {seen[name]}"), callback


def _updates(settings: Settings, epoch_length: int) -> int:
    if settings.updates is not None:
        return settings.updates
    if settings.epochs is not None:
        return settings.epochs * epoch_length
    return DEFAULT_UPDATES


def _groups(machine: BoltzmannMachine, lr: float, precision_lr: float) -> list[dict[str, Any]]:
    """Put log precisions into a parameter group with a learning rate of its own."""
    learned = [(k, p) for k, p in machine.named_parameters() if p.requires_grad]
    plain = [p for k, p in learned if not unit.is_log(k)]
    logs = [p for k, p in learned if unit.is_log(k)]
    groups: list[dict[str, Any]] = [{"params": plain, "lr": lr}]
    if logs and precision_lr > 0:
        groups.append({"params": logs, "lr": lr * precision_lr})
    return groups
