"""Named learning-rate schedules, on PyTorch's own scheduler, and schedulers given as functions."""

import inspect
import math
from collections.abc import Callable, Mapping

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from gibbsian.errors import TrainingError
from gibbsian.packing import pack

Factor = Callable[[float], float]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


def constant(total: int) -> Factor:
    """Keep the learning rate."""
    return lambda t: 1.0


def linear(total: int, hold: float = 0.2, final: float = 0.0) -> Factor:
    """Hold the rate for the fraction `hold` of the run, then go linearly to `final` times it."""
    begin = hold * total

    def factor(t: float) -> float:
        done = min(max((t - begin) / max(total - begin, 1), 0.0), 1.0)
        return 1 + (final - 1) * done

    return factor


def step(total: int, every: float = 0.25, factor: float = 0.5) -> Factor:
    """Multiply the rate by `factor` after each fraction `every` of the run."""
    return lambda t: factor ** math.floor(t / max(every * total, 1))


def exponential(total: int, final: float = 0.01) -> Factor:
    """Fall exponentially to `final` times the rate at the end of the run."""
    return lambda t: final ** (t / total)


def power(total: int, coefficient: float = 1e-3) -> Factor:
    """Fall as 1/(1 + coefficient · t), t in updates (Robbins–Monro)."""
    return lambda t: 1 / (1 + coefficient * t)


SCHEDULES: dict[str, Callable[..., Factor]] = {
    f.__name__: f for f in (constant, linear, step, exponential, power)
}


def build(
    name: str | SchedulerFactory, options: Mapping[str, float], optimizer: Optimizer, total: int
) -> LRScheduler:
    """Make the scheduler of a named schedule, or by a function of the optimiser, over `total` updates.

    Raises
    ------
    TrainingError
        If the name or an option is unknown, an option is not a finite number, or the function's
        scheduler cannot be used.
    """
    if callable(name):
        return _checked(name(optimizer), total)
    if name not in SCHEDULES:
        raise TrainingError(f"There is no schedule {name!r}; known are {', '.join(SCHEDULES)}.")
    known = list(inspect.signature(SCHEDULES[name]).parameters)[1:]
    for key, value in options.items():
        number = isinstance(value, int | float) and math.isfinite(value) and value >= 0
        if key not in known or not number:
            raise TrainingError(
                f"The schedule {name!r} takes {', '.join(known) or 'no options'} as numbers of at "
                f"least 0, not {key}={value!r}."
            )
    return LambdaLR(optimizer, SCHEDULES[name](total, **options))


def _checked(made: LRScheduler, total: int) -> LRScheduler:
    """Refuse a scheduler that cannot make `total` steps, or cannot be resumed."""
    if not isinstance(made, LRScheduler) or isinstance(made, ReduceLROnPlateau):
        raise TrainingError(
            f"The schedule's function must return a scheduler that steps without a metric, not "
            f"{type(made).__name__}; use another class of torch.optim.lr_scheduler."
        )
    if getattr(made, "total_steps", total) < total:
        raise TrainingError(
            f"This scheduler ends after {made.total_steps} steps, and the run has {total}; make it for "  # type: ignore[attr-defined]
            "as many steps as there are updates."
        )
    try:
        pack({"scheduler": made.state_dict()})
    except TrainingError as error:
        raise TrainingError(f"This scheduler cannot be used: {error}") from None
    return made
