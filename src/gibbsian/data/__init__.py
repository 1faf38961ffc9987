"""Data sets by name, from files or from arrays: split, transformed and described for a rerun.

``load`` gives a ``Dataset`` with ``train``, ``validation`` and ``test`` (each a ``Split``), a
fitted ``Transform``, and batches in an order that depends on the seed and the epoch alone.
"""

from gibbsian.data.dataset import Batch, Dataset, Split
from gibbsian.data.loading import load
from gibbsian.data.named import names
from gibbsian.data.transforms import Transform, transform_names

__all__ = ["Batch", "Dataset", "Split", "Transform", "load", "names", "transform_names"]
