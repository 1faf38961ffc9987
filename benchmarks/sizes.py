"""The sizes and the lengths of a run of the benchmarks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What is measured: MNIST's sizes unless a test asks for less.

    Attributes
    ----------
    visible, hidden : int
        Units of the machine.
    chains, sweeps : int
        Chains of the sweep, and sweeps that are timed at once.
    batch, rows : int
        Rows of a batch, and of the data set whose epoch is timed.
    ais_chains, temperatures : int
        Chains and temperatures of annealed importance sampling.
    steps : int
        Steps of the single chain.
    rounds : int
        Rounds of the sweep and the epoch; the longer contests take fewer.
    training_rows, updates : int
        Rows of the data set, and updates, of the run whose memory is measured.
    grid : tuple of float
        Factors on `chains`, `visible` and `hidden` at which the growth of costs is measured.
    """

    visible: int = 784
    hidden: int = 500
    chains: int = 1000
    sweeps: int = 10
    batch: int = 100
    rows: int = 6000
    ais_chains: int = 100
    temperatures: int = 500
    steps: int = 1000
    rounds: int = 15
    training_rows: int = 60_000
    updates: int = 300
    grid: tuple[float, ...] = (0.25, 0.5, 1, 2, 4)
