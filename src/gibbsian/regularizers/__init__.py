"""Regularisers: what is added to the plain gradient, before any centring."""

from gibbsian.regularizers.penalties import Penalty

__all__ = ["Penalty"]
