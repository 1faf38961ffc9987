"""Trains the models of a comparison, each into a run folder of its own, and notes what that cost."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gibbsian import estimators, recipes
from gibbsian.callbacks import Callback
from gibbsian.comparison.plan import Model, Plan
from gibbsian.data import Dataset
from gibbsian.machine import BoltzmannMachine
from gibbsian.trained import Trained, train

_CONFIG = "config.toml"


@dataclass(frozen=True)
class Fitted:
    """A model, trained.

    Attributes
    ----------
    model : Model
    trained : Trained
    data : Dataset
    seconds : float
        Wall-clock time of its training; greedy pre-training, metrics and checkpoints included.
    peak_mb : float or None
        Most memory that the process held meanwhile, in MB; None where the system does not tell.
    """

    model: Model
    trained: Trained
    data: Dataset
    seconds: float
    peak_mb: float | None


class Cost(Callback):
    """Adds up time and memory of a training over all processes that had a part in it.

    They travel in the checkpoints, so that work given up by a kill does not count.
    """

    def __init__(self) -> None:
        self.seconds, self.peak_mb = 0.0, 0.0
        self._before: tuple[float, float] = (0.0, 0.0)
        # The clock runs from here, and not from the first update: layers may be trained before it.
        self._begin = time.perf_counter()
        _forget_peak()

    def state_dict(self) -> dict[str, Any]:
        """Return seconds and MB up to this checkpoint."""
        seconds, peak = self._before
        self.seconds = seconds + time.perf_counter() - self._begin
        self.peak_mb = max(peak, _peak() or 0.0)
        return {"seconds": self.seconds, "peak_mb": self.peak_mb}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from those of a checkpoint."""
        self.seconds, self.peak_mb = self._before = state["seconds"], state["peak_mb"]


def machines(plan: Plan) -> dict[str, tuple[BoltzmannMachine, Dataset]]:
    """Load the data and build the machine of each model, so that whatever does not fit shows at once.

    Raises
    ------
    GibbsianError
        If the data cannot be loaded, or are not of the kind that a model takes.
    """
    found: dict[str, tuple[BoltzmannMachine, Dataset]] = {}
    loaded: dict[str, Dataset] = {}
    options = {k: v for k, v in plan.data.items() if k != "source"}
    for m in plan.models:
        recipe = recipes.find(m.kind)
        like = repr((recipe.images, recipe.tables, recipe.smooth))
        if like not in loaded:
            loaded[like] = recipes.load_data(recipe, plan.data["source"], seed=plan.seed, **options)
        found[m.name] = recipes.build(m.kind, loaded[like], m.hidden), loaded[like]
    return found


def fit(
    model: Model, machine: BoltzmannMachine, data: Dataset, out: Path, *, progress: bool = False
) -> Fitted:  # fmt: skip
    """Train a model, or go on with its run; one that is complete is left as it is.

    Raises
    ------
    RunError
        If the run that is there was made with other settings.
    """
    folder, cost = out / model.name, Cost()
    found = train(
        machine, data, estimators.from_spec(model.method), out=folder,
        resume=(folder / _CONFIG).exists(), progress=progress, callbacks=[cost], **model.settings,
    )  # fmt: skip
    return Fitted(model, found, data, cost.seconds, cost.peak_mb or None)


def _forget_peak() -> None:
    """Let Linux begin anew with the peak of this process's memory; elsewhere it is that of its life."""
    if sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return


def _peak() -> float | None:
    """Return the most memory that this process held, in MB."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
