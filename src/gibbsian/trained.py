"""`train` and `load`: a run from the outside."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from gibbsian import data as datasets
from gibbsian import devices, estimators, growing, models, pretraining, recipes, runs, settings
from gibbsian.callbacks import Callback, ProgressBar, TensorBoard
from gibbsian.checkpoint import Checkpoint
from gibbsian.data import Dataset, Transform
from gibbsian.errors import RunError, TrainingError
from gibbsian.estimators import PCD, Estimator
from gibbsian.machine import BoltzmannMachine
from gibbsian.optimizers import OptimizerFactory
from gibbsian.path import data_statistics, reference
from gibbsian.runs import Run
from gibbsian.samplers import ChainState
from gibbsian.training import SchedulerFactory, Trainer

_BY_HAND = "given as a function"


@dataclass
class Trained:
    """A trained machine, and what training left behind.

    Attributes
    ----------
    machine : BoltzmannMachine
        The Polyak average of the parameters: what to sample and evaluate.
    last : BoltzmannMachine
        The last iterate, to which `chains` belong.
    chains : ChainState or None
        The persistent chains.
    step : int
        Updates done.
    history : list of dict
        Records of metrics.
    config : dict
        Everything that was asked for.
    run : Run or None
        The folder on disk.
    """

    machine: BoltzmannMachine
    last: BoltzmannMachine
    chains: ChainState | None
    step: int
    history: list[dict[str, Any]]
    config: dict[str, Any]
    run: Run | None = None
    dataset: Dataset | None = None
    fitted: Transform | None = None

    @property
    def transform(self) -> Transform:
        """The fitted transform of the data, which a run holds even where its data are gone."""
        return self.data.transform if self.fitted is None else self.fitted

    @cached_property
    def data(self) -> Dataset:
        """The data of the run, loaded anew from its configuration where needed.

        Raises
        ------
        DataError, RunError
            If the data are gone, were handed over as an array, or are no longer the same.
        """
        if self.dataset is None:
            self.dataset = reload(self.config, None)
        return self.dataset

    @cached_property
    def reference(self) -> BoltzmannMachine:
        """The reference machine: W = 0, visible units fitted to the training data."""
        rows = self.data.train
        stats = data_statistics(self.machine.layers[0], rows.chunks(), rows.weights)
        return reference(self.machine, stats)


def train(
    machine: BoltzmannMachine,
    data: Any,
    method: Estimator | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint: int | str = "latest",
    overwrite: bool = False,
    progress: bool = True,
    tensorboard: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    optimizer: str | OptimizerFactory = "sgd",
    schedule: str | SchedulerFactory = "linear",
    labels: Any = None,
    **options: Any,
) -> Trained:
    """Train a machine on data; the default recipe is PCD-1 with a centred gradient.

    Parameters
    ----------
    machine : BoltzmannMachine
        Its parameters are initialised from the data, and trained in place.
    data : Dataset, name, path, array or Tensor
        Whatever `gibbsian.data.load` takes.
    method : Estimator
        ``CD(...)``, ``PCD(...)``, ``FPCD(...)`` or ``Jarzynski(...)``; PCD with one step and 100
        chains unless given.
    out : path, optional
        Folder of the run: configuration, metrics and checkpoints.
    resume : bool
        Go on from the newest good checkpoint in `out`, bit for bit.
    checkpoint : "latest" or int
        Which checkpoint to go on from; what came after it is given up.
    overwrite : bool
        Replace a run that is in `out` already.
    progress : bool
        Show a live bar on standard error.
    tensorboard : path, optional
        Folder for TensorBoard's event files.
    callbacks : sequence of Callback
    optimizer : str or callable
        Name of a `torch.optim` optimiser, or a function from parameter groups to one.
    schedule : str or callable
        Name from `gibbsian.schedules`, or a function from the optimiser to a scheduler.
    **options
        Fields of `gibbsian.settings.Settings`: epochs, updates, batch_size, lr, seed, ….

    Returns
    -------
    Trained

    Raises
    ------
    GibbsianError
        For anything that does not fit together, before the first update where that can be told.

    References
    ----------
    Tieleman (2008), "Training restricted Boltzmann machines using approximations to the likelihood
    gradient"; Melchior, Fischer & Wiskott (2016), "How to center deep Boltzmann machines".
    """
    method = PCD() if method is None else method
    _check_kinds(machine, method, optimizer, schedule)
    if isinstance(optimizer, str):
        options["optimizer"] = optimizer
    if isinstance(schedule, str):
        options["schedule"] = schedule
    if options.get("threads") is None:
        options["threads"] = _threads(out if resume else None)
    chosen = settings.resolved(settings.from_dict(options), machine)
    dataset = _dataset(machine, data, labels, chosen.seed)
    config = _config(machine, dataset, method, chosen)
    if not isinstance(optimizer, str):
        config["training"]["optimizer"] = _BY_HAND
    if not isinstance(schedule, str):
        config["training"]["schedule"] = _BY_HAND
    hooks = list(callbacks)
    if progress:
        hooks.append(ProgressBar())
    if tensorboard is not None:
        hooks.append(TensorBoard(str(tensorboard)))
    if chosen.pretrain:
        pretraining.stack(machine)  # refuses what cannot be
    trainer = Trainer(
        machine, dataset, method, chosen, None,
        None if isinstance(optimizer, str) else optimizer,
        None if isinstance(schedule, str) else schedule,
        hooks,
    )  # fmt: skip
    if chosen.begin and not resume:
        _grow(trainer, chosen.begin)
    # Only now: a setting that does not fit must neither leave an empty run nor overwrite one.
    run = trainer.run = _open(out, config, resume, overwrite)
    try:
        if resume and run is not None and run.checkpoints:
            found = run.checkpoint(checkpoint)
            _trained(run, found, "cpu")  # says in words where machine and checkpoint do not fit
            trainer.load_state_dict(found.tree)
            run.cut(found.step)
            trainer.history = run.metrics()
        elif chosen.begin and resume:
            _grow(trainer, chosen.begin)
        elif chosen.pretrain:
            trainer.begin_at(_pretrained(machine, dataset, chosen, run, resume, progress))
        trainer.fit()
    finally:
        if run is not None:
            run.close()
    return Trained(
        trainer.averaged, trainer.machine, trainer.chains, trainer.step, trainer.history, config,
        run, dataset, dataset.transform,
    )  # fmt: skip


def _grow(trainer: Trainer, smaller: str) -> None:
    """Let the lowest layers begin as the machine of another run."""
    growing.grow(trainer.machine, load(smaller).machine)
    trainer.begin_at(trainer.machine)


def _pretrained(
    machine: BoltzmannMachine, dataset: Dataset, chosen: settings.Settings, run: Run | None,
    resume: bool, progress: bool,
) -> BoltzmannMachine:  # fmt: skip
    """Train the layers of a copy of the machine greedily, each in a run of its own; finished ones stay."""
    folder = None if run is None else run.path
    if folder is not None and not resume:
        pretraining.forget(folder)

    def fit(
        rbm: BoltzmannMachine, rows: Dataset, number: int, place: Path | None
    ) -> BoltzmannMachine:
        begun = place is not None and (place / "config.toml").is_file()
        return train(
            rbm, rows, PCD(), out=place, resume=begun, progress=progress, epochs=chosen.pretrain,
            batch_size=chosen.batch_size, seed=(chosen.seed + number) % 2**31, device=chosen.device,
            threads=chosen.threads, center=chosen.center, monitor_rows=chosen.monitor_rows,
        ).machine  # fmt: skip

    return pretraining.pretrain(models.from_spec(machine.spec()), dataset, fit, folder)


def _check_kinds(machine: Any, method: Any, optimizer: Any, schedule: Any) -> None:
    """Refuse arguments of the wrong kind in words."""
    if not isinstance(machine, BoltzmannMachine):
        raise TrainingError(
            f"What is trained is a machine, such as gb.rbm(64, 100), not {machine!r}."
        )
    if not isinstance(method, Estimator):
        raise TrainingError(f"The method is an object such as gb.PCD() or gb.CD(), not {method!r}.")
    for what, value in (("optimiser", optimizer), ("schedule", schedule)):
        if not isinstance(value, str) and not callable(value):
            raise TrainingError(f"The {what} is a name or a function, not {value!r}.")


def _threads(out: str | Path | None) -> int:
    """Return the threads to use where none are given: those of the run that goes on, else PyTorch's."""
    stored = {} if out is None else runs.open_run(out).config.get("training", {})
    return stored.get("threads", torch.get_num_threads())


def resume(
    path: str | Path,
    data: Any = None,
    progress: bool = True,
    checkpoint: int | str = "latest",
    **hooks: Any,
) -> Trained:
    """Go on with a run from its folder alone, bit for bit.

    Parameters
    ----------
    path : path
        The run's folder.
    data : array or Dataset, optional
        Needed only where the run was trained on an array that no file holds.
    progress : bool
        Show a live bar.
    checkpoint : "latest" or int
        Which checkpoint to go on from; what came after it is given up.
    **hooks
        ``callbacks`` and ``tensorboard`` as `train` takes them; ``optimizer`` and ``schedule`` where
        they were functions, ``method`` where it had a sampler of its own.

    Raises
    ------
    RunError
        If the folder is no run, or its data have changed.
    """
    config = _complete(runs.open_run(path)).config
    known = {"callbacks", "tensorboard", "optimizer", "schedule", "method"}
    if set(hooks) - known:
        raise RunError(
            f"A run goes on as it was made, so resume takes no {sorted(set(hooks) - known)[0]}; it takes "
            f"{', '.join(sorted(known))}."
        )
    dataset = reload(config, data)
    options = dict(config["training"])
    for name in ("optimizer", "schedule"):
        if name in hooks:
            options[name] = hooks.pop(name)
        elif options.get(name) == _BY_HAND:
            raise RunError(f"This run's {name} was {_BY_HAND}; hand it to resume as {name}=….")
    method = hooks.pop("method", None) or estimators.from_spec(config["method"])
    return train(
        models.from_spec(config["machine"]), dataset, method, out=path, resume=True,
        checkpoint=checkpoint, progress=progress, **hooks, **options,
    )  # fmt: skip


def load(
    path: str | Path, checkpoint: int | str = "latest", device: str = "cpu", data: Any = None
) -> Trained:
    """Open a run: its machine, chains, history and configuration.

    Parameters
    ----------
    path : path
        The run's folder.
    checkpoint : "latest" or int
        Which checkpoint, by its number of updates.
    device : str
        Where the machine should live.
    data : array or Dataset, optional
        Needed only where the run was trained on an array that no file holds, and its data are
        asked for.

    Raises
    ------
    RunError
        If the folder is no run, or has no good checkpoint.
    """
    run = _complete(runs.open_run(path))
    found = _trained(run, run.checkpoint(checkpoint), str(devices.find(device)))
    if data is not None:
        found.dataset = reload(run.config, data)
    return found


def _complete(run: Run) -> Run:
    """Return a run whose config.toml has the tables that `train` wrote.

    Raises
    ------
    RunError
        If one is gone.
    """
    if "machine" not in run.config and "kind" in run.config:
        raise RunError(
            f"The run in {run.path} is of the kind {run.config['kind']} and holds no single machine; use a "
            "command for such runs (train --resume, sample, evaluate, features, finetune), or one of its "
            "layers."
        )
    for name in ("machine", "data", "data.spec", "data.fingerprint", "method", "training"):
        found: Any = run.config
        for key in name.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        if not found:
            raise RunError(
                f"{run.path / 'config.toml'} has lost its part {name}; bring the file back as it was, or "
                "train again."
            )
    return run


def _trained(run: Run, found: Checkpoint, device: str) -> Trained:
    state = found.tree
    machines = []
    for part in ("average", "machine"):
        machine = models.from_spec(run.config["machine"])
        try:
            machine.load_state_dict(state[part])
        except RuntimeError:
            raise RunError(
                f"The machine in {run.path / 'config.toml'} is not the one of {found.path}; bring the "
                "configuration back as it was, or train again."
            ) from None
        machines.append(machine.to(device))
    chains = state["chains"]
    if chains is not None:
        layers = tuple(t.to(device) for t in chains["layers"])
        chains = ChainState(layers, {k: t.to(device) for k, t in chains["extra"].items()})
    history = [r for r in run.metrics() if r.get("step", 0) <= found.step]
    fitted = Transform.from_state(state["transform"]) if "transform" in state else None
    return Trained(
        machines[0], machines[1], chains, found.step, history, run.config, run, None, fitted
    )


def _dataset(machine: BoltzmannMachine, data: Any, labels: Any, seed: int) -> Dataset:
    if isinstance(data, Dataset):
        return data
    domain = machine.layers[0].domain
    if isinstance(data, str | Path):
        if all(table is None for table in domain.blocks()):
            # "auto" would draw bits from grey levels, and these units take real values.
            return recipes.load_data(recipes.find("gaussian-rbm"), data, labels=labels, seed=seed)
        return datasets.load(data, labels=labels, seed=seed)
    transform = domain.transform
    return datasets.load(data, labels=labels, seed=seed, transform=transform)


def _config(
    machine: BoltzmannMachine, dataset: Dataset, method: Estimator, chosen: settings.Settings
) -> dict[str, Any]:
    from gibbsian import __version__

    return {
        "machine": machine.spec(),
        "data": {"spec": dataset.spec, "fingerprint": dataset.fingerprint},
        "method": method.config,
        "training": chosen.as_dict(),
        "versions": {
            "gibbsian": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _open(
    out: str | Path | None, config: Mapping[str, Any], resume: bool, overwrite: bool
) -> Run | None:
    if out is None:
        if resume:
            raise RunError("Resuming needs the folder of the run; give it as out=….")
        return None
    if not resume:
        return runs.create(out, config, overwrite=overwrite)
    run = runs.open_run(out)
    plain = runs.plain_config(config)
    for part in ("machine", "data", "method", "training"):
        then, now = run.config.get(part) or {}, plain[part]
        differ = sorted(k for k in {*then, *now} if then.get(k) != now.get(k))
        if differ:
            raise RunError(
                f"The run in {out} was made with another {part} setting ({', '.join(differ)}), so it "
                "cannot be resumed with this one; resume it as it was, or train into another folder."
            )
    run.lock()
    return run


def reload(config: Mapping[str, Any], data: Any) -> Dataset:
    """Load the data of a run again, and make sure that they are the same."""
    entry = config["data"]
    dataset = data
    if not isinstance(data, Dataset):
        spec = dict(entry["spec"])
        if data is not None:
            spec["source"] = data
        elif spec.get("source") == "array":
            raise RunError(
                "This run was trained on an array in memory, which no file holds; hand the same array "
                "over as data=…."
            )
        dataset = datasets.load(**spec)
    if dataset.fingerprint != entry["fingerprint"]:
        raise RunError(
            "The data are not those that this run was trained on (their fingerprints differ); put the "
            "original data back, or train a new run."
        )
    return dataset
