"""How good a fit more hidden units and more epochs buy: one run after another on the same data."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gibbsian import recipes
from gibbsian.callbacks import Callback
from gibbsian.data import Dataset
from gibbsian.errors import GibbsianError
from gibbsian.estimators import Estimator
from gibbsian.evaluators import pseudo_likelihood
from gibbsian.trained import train

if TYPE_CHECKING:
    from gibbsian.training import Trainer

METRIC = "exact_pseudo_likelihood"


class _Exact(Callback):
    """Adds the exact pseudo-likelihood of fixed rows to each record.

    The estimate from one block a row, which training takes, moves more from record to record than
    sizes and epochs differ.
    """

    def __init__(self, rows: dict[str, Tensor]) -> None:
        self.rows = rows

    def on_metrics(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """Measure the averaged machine."""
        like = next(trainer.averaged.parameters())
        record[METRIC] = {
            split: float(pseudo_likelihood(trainer.averaged, x.to(like)).mean())
            for split, x in self.rows.items()
        }


def study(
    model: str,
    dataset: Dataset,
    hidden: Sequence[int],
    epochs: int,
    method: Callable[[], Estimator],
    progress: bool = False,
    rows: int = 1000,
    **settings: Any,
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
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
    rows : int
        Most rows of each split that are measured.
    **settings
        Fields of `gibbsian.settings.Settings`.

    Yields
    ------
    tuple
        A number of hidden units and its records, as each run ends. A record has ``epoch`` and the
        exact pseudo-likelihood in nats per row (of the training and the validation rows) besides
        the usual metrics.

    Raises
    ------
    GibbsianError
        Before the first run, if there is nothing to study or a machine cannot be built.
    """
    if not hidden:
        raise GibbsianError("A study needs at least one number of hidden units.")
    recipe = recipes.find(model)
    machines = {count: recipes.build(model, dataset, count) for count in hidden}
    options = recipes.settings(recipe, settings)
    options |= {
        "epochs": epochs,
        "log_every": dataset.batches_per_epoch(options.get("batch_size", 100)),
    }
    parts = {"train": dataset.train, "validation": dataset.validation}
    seed = options.get("seed", 0)
    fixed = {k: p.tensor(limit=rows, generator=seed) for k, p in parts.items() if p is not None}

    def runs() -> Iterator[tuple[int, list[dict[str, Any]]]]:
        for count, machine in machines.items():
            found = train(
                machine, dataset, method(), progress=progress, callbacks=[_Exact(fixed)], **options
            )
            yield count, found.history

    return runs()
