"""How good a fit more hidden units and more epochs buy: one run after another on the same data."""

from collections.abc import Callable, Sequence
from typing import Any

from gibbsian import recipes
from gibbsian.data import Dataset
from gibbsian.estimators import Estimator
from gibbsian.trained import train

METRIC = "pseudo_likelihood"


def study(
    model: str,
    dataset: Dataset,
    hidden: Sequence[int],
    epochs: int,
    method: Callable[[], Estimator],
    progress: bool = False,
    **settings: Any,
) -> dict[int, list[dict[str, Any]]]:
    """Train one machine for each number of hidden units, and keep a record each epoch.

    Parameters
    ----------
    model : str
        Name of a recipe.
    dataset : Dataset
    hidden : sequence of int
        Numbers of hidden units.
    epochs : int
        Length of each run.
    method : callable
        Makes an estimator for each run.
    progress : bool
        Show a live bar for each run.
    **settings
        Fields of `gibbsian.settings.Settings`.

    Returns
    -------
    dict
        From number of hidden units to its records, each with ``epoch`` and the pseudo-likelihood in
        nats per row (of the training and the validation rows).
    """
    recipe = recipes.find(model)
    out: dict[int, list[dict[str, Any]]] = {}
    for count in hidden:
        machine = recipes.build(model, dataset, count)
        options = dict(recipe.settings) | settings
        options |= {
            "epochs": epochs,
            "log_every": dataset.batches_per_epoch(options.get("batch_size", 100)),
        }
        found = train(machine, dataset, method(), progress=progress, **options)
        out[count] = found.history
    return out
