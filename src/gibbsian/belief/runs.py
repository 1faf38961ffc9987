"""Runs of deep belief networks: `train`, `resume` and `load`.

A run's stages are runs of their own in its folder: ``layers/1`` … the machines of the greedy stack from
below, ``updown`` what the up-down algorithm made of them, ``finetune`` a classifier. A run that was killed
goes on at its stage.
"""

import platform
import shutil
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gibbsian import belief, estimators, models, recipes, runs, settings, trained
from gibbsian.belief import DeepBeliefNetwork, updown
from gibbsian.belief.beside import check_labels, classes_of
from gibbsian.belief.greedy import Tell, done, greedy, machines
from gibbsian.belief.stage import Progress
from gibbsian.belief.updown import UpDown
from gibbsian.data import Dataset
from gibbsian.errors import GibbsianWarning, RunError, TrainingError
from gibbsian.estimators import PCD, Estimator
from gibbsian.machine import BoltzmannMachine
from gibbsian.runs import Run
from gibbsian.units import Units

KIND = "dbn"
_STAGES = ("layers", "updown", "finetune")


@dataclass
class Belief:
    """A trained deep belief network, and what training left behind.

    Attributes
    ----------
    network : DeepBeliefNetwork
        What to sample and classify with: averages over the last updates of each stage.
    config : dict
        Everything that was asked for.
    history : list of dict
        Records of the up-down algorithm.
    stage : {"layers", "updown"}
        The last stage that the network has passed.
    run : Run or None
    """

    network: DeepBeliefNetwork
    config: dict[str, Any]
    history: list[dict[str, Any]]
    stage: str
    run: Run | None = None
    dataset: Dataset | None = None

    @cached_property
    def data(self) -> Dataset:
        """The data of the run, loaded anew from its configuration where needed.

        Raises
        ------
        DataError, RunError
            If the data are gone, were handed over as an array, or are no longer the same.
        """
        return self.dataset if self.dataset is not None else trained.reload(self.config, None)


def train(
    data: Dataset,
    hidden: Sequence[int | Units],
    *,
    visible: Units | None = None,
    labels: bool = False,
    method: Estimator | None = None,
    up_down: updown.Settings | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
    tell: Tell | None = None,
    **options: Any,
) -> Belief:
    """Train a deep belief network: a greedy stack, then the up-down algorithm.

    Parameters
    ----------
    data : Dataset
    hidden : sequence of int or Units
        Hidden layers from below.
    visible : Units, optional
        What suits the data unless given.
    labels : bool
        Join the data's labels to the top machine.
    method : Estimator, optional
        Of the stack; PCD-1 unless given.
    up_down : gibbsian.belief.updown.Settings, optional
        No up-down stage follows the stack unless given. A network of one hidden layer has none: it is its
        top machine.
    out : path, optional
        Folder of the run.
    overwrite : bool
        Replace a deep belief run that is in `out` already.
    progress : bool
        Show live bars.
    tell : callable, optional
        Called with a sentence before each stage.
    **options
        Settings of the stack's training: see `gibbsian.settings.Settings`.

    Returns
    -------
    Belief

    Raises
    ------
    GibbsianError
        For anything that does not fit together.
    """
    if options.get("begin"):
        raise TrainingError(
            "A deep belief network is a stack of its own machines and cannot begin as another run; leave "
            "begin out."
        )
    if options.get("pretrain"):
        raise TrainingError(
            "The stack of a deep belief network is its greedy pre-training; leave pretrain out."
        )
    classes = classes_of(data) if labels else []
    if classes:
        check_labels(data, classes)
    if up_down is not None:
        updown.check_share(up_down, classes)
    if visible is None:
        visible = recipes.visible_units(data.layout, data.transform.noise)
    stack = machines(visible, hidden, classes)
    if options.get("threads") is None:
        options["threads"] = torch.get_num_threads()
    plain = settings.from_dict(options).as_dict()
    if len(stack) == 1 and up_down is not None:
        up_down = None
        if tell is not None:
            tell("With one hidden layer the network is its top machine: there is no up-down stage.")
    config = {
        "kind": KIND,
        "network": {
            "machines": [m.spec() for m in stack], "classes": classes,
            "label_names": list(data.label_names or ()),
        },
        "data": {"spec": data.spec, "fingerprint": data.fingerprint},
        "method": (method or PCD()).config,
        "training": plain,
        "updown": up_down.as_dict() if up_down else {},
        "versions": {
            "gibbsian": version("gibbsian"), "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }  # fmt: skip
    if out is None:
        return _stages(stack, data, config, method, None, progress, tell)
    with runs.create(out, config, overwrite=overwrite) as run:
        _clear(run)
        return _stages(stack, data, config, method, run, progress, tell)


def resume(
    path: str | Path, data: Any = None, progress: bool = True, tell: Tell | None = None
) -> Belief:
    """Go on with a run from its folder alone, at the stage where it stopped, bit for bit.

    Parameters
    ----------
    path : path
    data : array or Dataset, optional
        Needed only where the run was trained on an array that no file holds.
    progress, tell
        As for `train`.

    Raises
    ------
    RunError
        If the folder is no run of a deep belief network, or its data have changed.
    """
    run = open_run(path)
    config = run.config
    rows = trained.reload(config, data)
    stack = [models.from_spec(m) for m in config["network"]["machines"]]
    method = estimators.from_spec(config["method"])
    with run:
        run.lock()
        return _stages(stack, rows, config, method, run, progress, tell)


def repeat(
    config: Mapping[str, Any], out: str | Path, *, overwrite: bool = False, progress: bool = True,
    tell: Tell | None = None,
) -> Belief:  # fmt: skip
    """Train anew with the configuration of another run; parameters as for `train`."""
    rows = trained.reload(config, None)
    stack = [models.from_spec(m) for m in config["network"]["machines"]]
    with runs.create(out, config, overwrite=overwrite) as run:
        _clear(run)
        method = estimators.from_spec(config["method"])
        return _stages(stack, rows, config, method, run, progress, tell)


def _stages(
    stack: Sequence[BoltzmannMachine], data: Dataset, config: Mapping[str, Any],
    method: Estimator | None, run: Run | None, progress: bool, tell: Tell | None,
) -> Belief:  # fmt: skip
    """Go through all stages; those that are done are read."""
    classes, options = config["network"]["classes"], config["training"]
    torch.set_num_threads(options["threads"])
    found = greedy(
        stack, data, method, classes=classes, run=run, progress=progress, tell=tell, **options
    )
    network = belief.stack([t.machine for t in found], classes)
    wanted = config.get("updown")
    if not wanted:
        return Belief(network, dict(config), [], "layers", run, data)
    if tell is not None:
        count = wanted["epochs"]
        tell(f"Up-down: {count:,} {'pass' if count == 1 else 'passes'} over the data.")
    # Runs from before there were persistent chains go on without.
    chosen = updown.Settings(**{"persistent": 0.0, **wanted})
    stage = UpDown(network, data, chosen, progress=_teller(tell))
    if run is None:
        stage.fit()
    else:
        path = run.path / "updown"
        with _stage_run(path, {"kind": f"{KIND}-updown", "settings": wanted}) as sub:
            stage.keep(sub)
            stage.fit()
        if "updown" not in done(run):
            run.log({"stage": "updown", "step": stage.step, "time": time.time()})
    return Belief(stage.averaged, dict(config), stage.history, "updown", run, data)


def _teller(tell: Tell | None) -> Progress | None:
    if tell is None:
        return None

    def show(step: int, total: int, record: Mapping[str, Any]) -> None:
        errors = record.get("label_error", {})
        words = "".join(f", label error {100 * e:.2f} % {k}" for k, e in errors.items())
        tell(f"  {step} of {total} updates{words}")

    return show


def _stage_run(path: Path, config: Mapping[str, Any]) -> Run:
    """Open the run of a stage, or make it."""
    if path.is_dir() and any(path.iterdir()) and not runs.is_run(path):
        raise RunError(
            f"{path} has lost its config.toml; bring the file back, or remove the folder to go through this "
            "stage anew."
        )
    return runs.open_run(path) if runs.is_run(path) else runs.create(path, config)


def _clear(run: Run) -> None:
    """Remove the stages of a run that is overwritten."""
    for name in _STAGES:
        shutil.rmtree(run.path / name, ignore_errors=True)


def is_belief(path: str | Path) -> bool:
    """Tell whether a folder holds a run of a deep belief network.

    Raises
    ------
    RunError
        If it holds no run at all.
    """
    return runs.open_run(path).config.get("kind") == KIND


def open_run(path: str | Path) -> Run:
    """Open the run of a deep belief network.

    Raises
    ------
    RunError
        If the folder is no run, is one of another kind, or has lost a part.
    """
    run = runs.open_run(path)
    if run.config.get("kind") != KIND:
        raise RunError(
            f"The run in {path} holds no deep belief network; train one with --model {KIND}, or use a "
            "command for single machines."
        )
    for name in ("network", "data", "method", "training"):
        if not run.config.get(name):
            raise RunError(
                f"{run.path / 'config.toml'} has lost its part {name}; bring the file back as it was, or "
                "train again."
            )
    missing = sorted({"machines", "classes"} - set(run.config["network"]))
    if missing:
        raise RunError(
            f"{run.path / 'config.toml'} has lost the {missing[0]} of its network; bring the file back as it "
            "was, or train again."
        )
    return run


def load(path: str | Path, data: Any = None) -> Belief:
    """Open a run of a deep belief network: as far as the up-down algorithm has brought it.

    Parameters
    ----------
    path : path
    data : array or Dataset, optional
        Needed only where the run was trained on an array that no file holds.

    Raises
    ------
    RunError
        If the folder is no such run, or its stack is not complete.
    """
    run = open_run(path)
    parts, classes = run.config["network"]["machines"], run.config["network"]["classes"]
    rows = None if data is None else trained.reload(run.config, data)
    sub, finished = run.path / "updown", done(run)
    if runs.is_run(sub) and (kept := runs.open_run(sub)).checkpoints:
        network = belief.stack([models.from_spec(m) for m in parts], classes)
        network.load_state_dict(kept.checkpoint().tree["parts"]["average"])
        _tell_unfinished(run, finished)
        return Belief(network, run.config, kept.metrics(), "updown", run, rows)
    if "updown" in finished:
        raise RunError(
            f"The run in {path} has gone through the up-down algorithm, and {sub} is lost; bring it back, or "
            f"go through that stage anew with gibbsian train --resume --out {path}."
        )
    missing = [i for i in range(1, len(parts) + 1) if f"layers/{i}" not in finished]
    if missing:
        raise RunError(
            f"The stack in {path} has {len(parts) - len(missing)} of its {len(parts)} machines trained; go "
            f"on with gibbsian train --resume --out {path}."
        )
    found = [trained.load(run.path / f"layers/{i}").machine for i in range(1, len(parts) + 1)]
    _tell_unfinished(run, finished)
    return Belief(belief.stack(found, classes), run.config, [], "layers", run, rows)


def _tell_unfinished(run: Run, finished: Collection[str]) -> None:
    """Warn of a network that the up-down algorithm has still to pass, or to finish."""
    if run.config.get("updown") and "updown" not in finished:
        warnings.warn(
            f"the up-down stage of the run in {run.path} is not finished, and its network is taken as it is; "
            f"go on with gibbsian train --resume --out {run.path}",
            GibbsianWarning,
            stacklevel=3,
        )
