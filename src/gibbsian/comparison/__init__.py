"""Several models trained on the same data and set side by side: one table, one page of pictures."""

from gibbsian.comparison.comparing import Comparison, compare
from gibbsian.comparison.plan import Figures, Model, Plan, parse, preset, presets, read

__all__ = [
    "Comparison", "Figures", "Model", "Plan", "compare", "parse", "preset", "presets", "read",
]  # fmt: skip
