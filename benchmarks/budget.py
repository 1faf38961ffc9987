"""Training for a given time, of the clock or of the processor: `time.process_time` with one thread.

What other processes do beside makes no difference to the latter, so machines trained for the same budget
had the same computing.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

import gibbsian as gb
from gibbsian import recipes
from gibbsian.callbacks import Callback
from gibbsian.data import Dataset
from gibbsian.estimators import Estimator

if TYPE_CHECKING:
    from gibbsian.training import Trainer

# The pilot run: updates that warm up, and seconds that the next ones are timed for.
_WARM, _SECONDS = 30, 5
_ENDLESS = 10**9

Timer = Callable[[], float]


class Budget(Callback):
    """Ends a run when its time is over, and lets the learning rate fall to zero until then.

    The time of all sessions of a run counts.

    Parameters
    ----------
    minutes : float
    clock : callable
        Returns seconds, of the wall or of the processor.
    hold : float
        Share of the time in which the rate is held; afterwards it falls linearly.
    """

    def __init__(self, minutes: float, clock: Timer, hold: float = 0.2) -> None:
        self.seconds, self.clock, self.hold = 60 * minutes, clock, hold
        self.used = 0.0
        self.begin: float | None = None

    @property
    def spent(self) -> float:
        """The seconds that are over, of this session and those before."""
        return self.used + (0.0 if self.begin is None else self.clock() - self.begin)

    @property
    def done(self) -> float:
        """The share of the time that is over."""
        return self.spent / self.seconds

    def schedule(self, optimizer: Optimizer) -> LambdaLR:
        """Make the scheduler: a function of the time, not of the update."""
        return LambdaLR(optimizer, lambda step: min(1.0, max(0.0, 1 - self.done) / (1 - self.hold)))

    def on_start(self, trainer: "Trainer") -> None:
        """Start the clock."""
        self.begin = self.clock()

    def on_update(self, trainer: "Trainer") -> None:
        """Stop at the end of the time."""
        if self.done >= 1:
            trainer.stop("the time is over")

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds so far."""
        return {"seconds": self.spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back, before the clock starts."""
        self.used = state["seconds"]


class Clock(Callback):
    """Counts the seconds of the processor that updates take, over all sessions of a run."""

    def __init__(self) -> None:
        self.seconds, self._begin = 0.0, 0.0

    def on_start(self, trainer: "Trainer") -> None:
        """Start the clock."""
        self._begin = time.process_time() - self.seconds

    def on_update(self, trainer: "Trainer") -> None:
        """Read the clock."""
        self.seconds = time.process_time() - self._begin

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back, before the clock starts."""
        self.seconds = state["seconds"]


class Stopwatch:
    """Seconds of the processor since it was made."""

    def __init__(self) -> None:
        self._begin = time.process_time()

    def seconds(self) -> float:
        """Read it."""
        return time.process_time() - self._begin


class _Pilot(Callback):
    """Times the updates after the first, and stops."""

    def on_update(self, trainer: "Trainer") -> None:
        if trainer.step == _WARM:
            self.begin = time.process_time()
        elif trainer.step > _WARM and time.process_time() - self.begin > _SECONDS:
            self.each = (time.process_time() - self.begin) / (trainer.step - _WARM)
            trainer.stop("timed")


def train(
    model: str, data: Dataset, hidden: int, minutes: float, out: Path,
    method: Estimator | None = None, **settings: Any,
) -> tuple[gb.Trained, float]:  # fmt: skip
    """Train a recipe for a budget, go on with a run that is there, or open one that is finished.

    The schedule needs a number of updates: a short pilot run says how many fit.

    Returns
    -------
    tuple
        The run, and the seconds of the processor that its updates took.
    """
    told, clock = out / "seconds.json", Clock()
    if told.is_file():
        return gb.load(out), json.loads(told.read_text())["seconds"]
    if (out / "config.toml").is_file():
        found = gb.resume(out, callbacks=[clock], progress=False)
    else:
        recipe = recipes.find(model)
        options = dict(recipe.settings) | {"threads": 1} | settings
        method = method or gb.PCD(**recipe.method)
        pilot = _Pilot()
        quick = options | {"updates": _ENDLESS, "log_every": _ENDLESS, "save_trajectory": False}
        gb.train(recipes.build(model, data, hidden), data, method, callbacks=[pilot],
                 progress=False, **quick)  # fmt: skip
        updates = max(1, round(60 * minutes / pilot.each))
        found = gb.train(recipes.build(model, data, hidden), data, method, callbacks=[clock],
                         progress=False, out=out, updates=updates, **options)  # fmt: skip
    told.write_text(json.dumps({"seconds": clock.seconds, "updates": found.step}))
    return found, clock.seconds
