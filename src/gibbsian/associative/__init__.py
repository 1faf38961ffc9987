"""The classical associative memory on spins, and the experiment of its capacity."""

from gibbsian.associative.load import RULES, Loaded, capacity
from gibbsian.associative.memory import (
    FIXED_POINT,
    LIMIT,
    TWO_CYCLE,
    AssociativeMemory,
    Recall,
    as_machine,
    overlap,
)

__all__ = [
    "FIXED_POINT", "LIMIT", "RULES", "TWO_CYCLE", "AssociativeMemory", "Loaded", "Recall",
    "as_machine", "capacity", "overlap",
]  # fmt: skip
