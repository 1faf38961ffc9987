"""Fine-tuning of a deep belief run, kept in its folder ``finetune``, and the classifier that it leaves."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gibbsian import data, runs
from gibbsian.belief import classifier
from gibbsian.belief import runs as belief_runs
from gibbsian.belief.classifier import Classifier
from gibbsian.belief.finetune import FineTune, Settings
from gibbsian.belief.runs import Belief
from gibbsian.data import Dataset
from gibbsian.errors import DataError, RunError
from gibbsian.runs import Run

_FOLDER, _FILE, _KIND = "finetune", "classifier.safetensors", "finetune"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning left.

    Attributes
    ----------
    model : Classifier
    errors : dict of str to float
        Share of misclassified rows of each split.
    file : Path
        Where the classifier is: see `gibbsian.belief.classifier.read`.
    history : list of dict
        Records, one an epoch.
    """

    model: Classifier
    errors: dict[str, float]
    file: Path
    history: list[dict[str, Any]]


def train(
    path: str | Path,
    settings: Settings | None = None,
    *,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    transform: str | None = None,
    overwrite: bool = False,
    tell: Tell | None = None,
    rows: Any = None,
) -> FineTuned:
    """Fine-tune the network of a run.

    Parameters
    ----------
    path : path
        A deep belief run.
    settings : gibbsian.belief.finetune.Settings, optional
    dropout, input_dropout : float
        See `gibbsian.belief.classifier.Classifier`.
    transform : str, optional
        Of the data, in place of the run's.
    overwrite : bool
        Replace a fine-tuning that is there already.
    tell : callable, optional
        Called with a sentence after each epoch.
    rows : array or Dataset, optional
        The data, needed only where the run was trained on an array that no file holds.

    Raises
    ------
    GibbsianError
        If the run is of another kind, its data have no labels, or a setting does not fit.
    """
    found = belief_runs.load(path, rows)
    folder = Path(path) / _FOLDER
    if runs.is_run(folder) and not overwrite:
        raise RunError(
            f"{folder} already holds a fine-tuning; go on with it (--resume) or replace it (--overwrite)."
        )
    config = {
        "kind": _KIND,
        "settings": (settings or Settings()).as_dict(),
        "dropout": dropout,
        "input_dropout": input_dropout,
        "transform": transform,
        "threads": torch.get_num_threads(),
    }
    stage = _stage(found, config, tell)  # refuses what does not fit before anything is written
    if overwrite:
        if runs.is_run(folder):
            with Run(folder, {}) as old:
                old.lock()  # refuses a fine-tuning that is at work
        shutil.rmtree(folder, ignore_errors=True)
    return _fit(stage, runs.create(folder, config))


def resume(path: str | Path, *, tell: Tell | None = None, rows: Any = None) -> FineTuned:
    """Go on with a fine-tuning, bit for bit; parameters as for `train`.

    Raises
    ------
    RunError
        If there is none to go on with.
    """
    found = belief_runs.load(path, rows)
    folder = Path(path) / _FOLDER
    if not runs.is_run(folder):
        raise RunError(f"{path} holds no fine-tuning yet to go on with; leave --resume out.")
    run = runs.open_run(folder)
    torch.set_num_threads(run.config["threads"])
    return _fit(_stage(found, run.config, tell), run)


def _stage(found: Belief, config: Mapping[str, Any], tell: Tell | None) -> FineTune:
    dataset = _data(found, config.get("transform"))
    labels = dataset.train.labels
    if labels is None:
        raise DataError(
            f"Fine-tuning needs labels, and {dataset.name} has none; train the run on data with labels."
        )
    settings = Settings(**config["settings"])
    classes = found.network.classes or tuple(int(y) for y in np.unique(labels))
    model = classifier.classifier(
        found.network, classes, config["dropout"], config["input_dropout"],
        torch.Generator().manual_seed(settings.seed),
    )  # fmt: skip

    def told(step: int, total: int, record: Mapping[str, Any]) -> None:
        error = record.get("error", {}).get("validation")
        words = "" if error is None else f", validation error {100 * error:.2f} %"
        if tell is not None:
            tell(f"  {step} of {total} updates{words}")

    return FineTune(model, dataset, settings, told)


def _data(found: Belief, transform: str | None) -> Dataset:
    """Return the run's data, seen through another transform if one is named."""
    if transform is None:
        return found.data
    spec: dict[str, Any] = dict(found.config["data"]["spec"])
    if spec.get("source") == "array":
        raise DataError(
            "This run was trained on an array in memory, so its transform cannot be changed; leave it out."
        )
    steps = [part.strip() for part in transform.split(",")]
    spec["transform"] = steps
    return data.load(**spec)


def _fit(stage: FineTune, run: Run) -> FineTuned:
    """Run a stage to its end, and keep its classifier."""
    with run:
        stage.keep(run)
        stage.fit()
        file = run.path / _FILE
        classifier.save(stage.best, file)
    return FineTuned(stage.best, errors(stage.best, stage.data), file, stage.history)


def errors(model: Classifier, dataset: Dataset, seed: int = 0) -> dict[str, float]:
    """Return the share of misclassified rows of each labelled split but the training rows."""
    out = {}
    for name in ("validation", "test"):
        part = getattr(dataset, name)
        if part is not None and len(part) and part.labels is not None:
            x, labels = part.tensor(generator=seed), torch.from_numpy(part.labels)
            out[name] = float((model.classify(x).cpu() != labels).double().mean())
    return out


__all__ = ["FineTuned", "errors", "resume", "train"]
