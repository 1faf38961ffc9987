"""What methods with persistent chains share: checks of their settings, and of the memory they need."""

from gibbsian import memory
from gibbsian.errors import TrainingError
from gibbsian.estimators.base import check_count
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import STARTS, ChainState
from gibbsian.samplers.base import COPIES


def check_chains(method: str, steps: int, chains: int, start: str | None = None) -> tuple[int, int]:
    """Return the numbers of steps and of chains of a method, else raise a `TrainingError`."""
    if start is not None and start not in STARTS:
        raise TrainingError(
            f"Chains of {method} start from {', '.join(STARTS)}, not from {start!r}."
        )
    steps = check_count(steps, f"The number of steps of {method}")
    return steps, check_count(chains, "The number of chains")


def present(method: str, chains: ChainState | None) -> ChainState:
    """Return a method's chains, else raise a `TrainingError`."""
    if chains is None:
        raise TrainingError(f"{method} needs its chains: call init first.")
    return chains


def check_memory(
    machine: BoltzmannMachine, states: int, what: str = "", advice: str = "ask for fewer chains"
) -> None:
    """Refuse states which, with the sampler's working copies, exceed the free memory.

    `what` says what the states are (chains, unless given), `advice` what to do.
    """
    like = next(machine.parameters())
    numbers = COPIES * states * sum(machine.sizes)
    memory.check(like, numbers, what or f"{states:,} chains", advice, TrainingError)
