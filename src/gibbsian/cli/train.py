"""gibbsian train: from data to a run."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gibbsian.cli import configuration, dbn
from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    from gibbsian.trained import Trained

NAME = "train"
EXAMPLES = """Examples:

gibbsian train digits --hidden 200 --updates 20000 --out runs/digits

gibbsian train mnist --classes 4 --model gaussian-rbm --out runs/fours

gibbsian train mnist --model dbm --hidden 500,1000 --out runs/deep

gibbsian train mnist --model dbn --hidden 500,500,2000 --labels --out runs/belief

gibbsian train table.csv --labels species --test 0.2 --out runs/table

gibbsian train --config options.toml --seed 1 --out runs/second

gibbsian train --resume --out runs/digits"""

_MACHINE, _LEARNING, _DATA, _RUN = "Machine and method", "Learning", "Data", "Run"


def _option(help: str, panel: str, default: str | None = None, **more: Any) -> Any:
    """Declare an option that is None unless given; `default` is what help says happens then."""
    text = help if default is None else rf"{help} \[default: {default}]"  # "[…]" alone is markup
    return typer.Option(help=text, rich_help_panel=panel, show_default=False, **more)


_Source = Annotated[
    str | None,
    typer.Argument(metavar="DATA", show_default=False, help="digits, mnist, fashion-mnist, cifar10, "
                   "bars-and-stripes, ising2d, or a .npy, .npz, .csv, .parquet, .h5 or IDX file."),
]  # fmt: skip
_Model = Annotated[
    str | None,
    _option("rbm, gaussian-rbm, relu-rbm, softmax-rbm, dbm, dbn or hopfield.", _MACHINE, "rbm"),
]
_Hidden = Annotated[
    str | None,
    _option("Hidden units; 500,1000 for two layers of a deep machine.", _MACHINE,
            "500; dbm 500,1000; dbn 500,500,2000", metavar="N[,N…]"),
]  # fmt: skip
_Method = Annotated[str | None, _option("cd, pcd, fpcd, jarzynski or ptt.", _MACHINE, "pcd")]
_Steps = Annotated[int | None, _option("Gibbs steps an update.", _MACHINE, "1")]
_Chains = Annotated[int | None, _option("Persistent chains.", _MACHINE, "100")]
_Refresh = Annotated[
    float | None,
    _option("PCD: probability that a chain restarts from noise at an update.", _MACHINE, "0"),
]
_FastLr = Annotated[
    float | None, _option("FPCD: learning rate of its fast weights.", _MACHINE, "0.01")
]
_Witnesses = Annotated[int | None, _option("Jarzynski: chains that tell log Z.", _MACHINE, "100")]
_Reservoir = Annotated[
    int | None,
    _option("PTT: samples of its checkpoint, in multiples of --chains.", _MACHINE, "10"),
]
_Acceptance = Annotated[
    float | None, _option("PTT: acceptance at which it makes a checkpoint.", _MACHINE, "0.3")
]
_Sampler = Annotated[
    str | None,
    _option("PCD: gibbs, tempering, transitions, driven, langevin, gibbs-langevin or rates.",
            _MACHINE, "gibbs"),
]  # fmt: skip
_SamplerOption = Annotated[
    list[str] | None,
    _option("Its settings, such as size=0.05 of langevin; repeatable. " + opt.SAMPLER_OPTIONS,
            _MACHINE, metavar="KEY=VALUE"),
]  # fmt: skip
_Levels = Annotated[
    int | None, _option("Tempering and transitions: levels.", _MACHINE, "as many as needed")
]
_Weights = Annotated[str | None, _option("normal, glorot, pca or low-rank.", _MACHINE, "normal")]
_VisibleBias = Annotated[
    float | None, _option("First visible bias.", _MACHINE, "from the data's mean")
]
_HiddenBias = Annotated[
    float | None, _option("First hidden bias.", _MACHINE, "0; -1 for real data")
]

_BatchSize = Annotated[int | None, _option("Rows an update.", _LEARNING, "100")]
_Epochs = Annotated[int | None, _option("Passes over the data.", _LEARNING)]
_Updates = Annotated[
    int | None, _option("Parameter updates, in place of --epochs.", _LEARNING, "6000")
]
_Lr = Annotated[float | None, _option("Learning rate.", _LEARNING, "what suits the units")]
_Optimizer = Annotated[str | None, _option("Name in torch.optim.", _LEARNING, "sgd")]
_OptimizerOption = Annotated[
    list[str] | None,
    _option("Its settings, such as momentum=0.9; repeatable.", _LEARNING, metavar="KEY=VALUE"),
]
_Schedule = Annotated[
    str | None, _option("constant, linear, step, exponential or power.", _LEARNING, "linear")
]
_ScheduleOption = Annotated[
    list[str] | None,
    _option("Its settings, such as hold=0.2; repeatable.", _LEARNING, metavar="KEY=VALUE"),
]
_L1 = Annotated[float | None, _option("L1 penalty on the couplings.", _LEARNING, "0")]
_L2 = Annotated[float | None, _option("L2 penalty on the couplings.", _LEARNING, "0")]
_PriorScale = Annotated[
    float | None,
    _option("Scale of a heavy-tailed prior on the couplings, against overfitting; 0.1 suits many rows.",
            _LEARNING, "0, for none"),
]  # fmt: skip
_Center = Annotated[
    bool | None,
    typer.Option("--center/--no-center", help=r"Centred gradient. \[default: center]",
                 rich_help_panel=_LEARNING, show_default=False),
]  # fmt: skip
_Whiten = Annotated[
    float | None,
    _option("Largest variance of states along a direction before couplings step more slowly along it, so "
            "that larger rates are stable; 0.3 with --lr 0.5 suits MNIST.", _LEARNING,
            "0: off; gaussian-rbm and relu-rbm: 1"),
]  # fmt: skip
_Pretrain = Annotated[
    int | None,
    _option("Epochs of greedy pre-training of each layer of a deep machine.", _LEARNING, "0: none"),
]
_Begin = Annotated[
    str | None, _option("Run whose machine the lowest layers begin as.", _LEARNING, "none")
]
_Average = Annotated[float | None, _option("Decay of the Polyak average.", _LEARNING, "0.999")]
_UpDownEpochs = Annotated[
    int | None, _option("dbn: passes of the up-down algorithm; 0 for none.", _LEARNING, "10", min=0)
]
_UpDownLr = Annotated[
    float | None, _option("dbn: learning rate of the up-down algorithm.", _LEARNING, "0.05")
]
_UpDownTopLr = Annotated[
    float | None,
    _option("dbn: learning rate of its top machine.", _LEARNING, "that of --updown-lr"),
]
_Discriminative = Annotated[
    float | None,
    _option("dbn: share of telling labels apart in what up-down's top learns.", _LEARNING, "0"),
]
_Patience = Annotated[
    int | None,
    _option("Stop once so many records in a row bring no improvement on validation rows.",
            _LEARNING, "never"),
]  # fmt: skip
_Tolerance = Annotated[float | None, _option("Smallest improvement that counts.", _LEARNING, "0")]
_Seed = Annotated[int | None, _option("Seed of all randomness.", _LEARNING, "0")]

_Classes = Annotated[
    str | None, _option("Only rows with these labels, such as 4 or 0,1.", _DATA, "all")
]
_Limit = Annotated[int | None, _option("At most so many training rows.", _DATA, "all")]
_Transform = Annotated[
    str | None,
    _option("threshold, stochastic-binarise, scale, standardise, one-hot, …, or several such as "
            "scale,threshold.", _DATA, "what suits the data"),
]  # fmt: skip
_Key = Annotated[str | None, _option("Array in an .npz or .h5 file.", _DATA, "the only one")]
_Labels = Annotated[
    str | None,
    _option("Column, key or file of labels; without one, those that come with the data. A dbn joins "
            "them to its top machine.", _DATA, "none", metavar="[COLUMN]"),
]  # fmt: skip
_Validation = Annotated[
    str | None, _option("Share below 1, number of rows, or file.", _DATA, "0.1")
]
_Test = Annotated[str | None, _option("Share below 1, number of rows, or file.", _DATA, "0.1")]
_DataDir = Annotated[
    Path | None, _option("Folder of the named sets.", _DATA, "GIBBSIAN_DATA, or a download")
]

_Out = Annotated[Path | None, _option("Folder of the run.", _RUN, "runs/DATA-MODEL")]
_Device = Annotated[str | None, _option("cpu, cuda, mps, ….", _RUN, "cpu")]
_Precision = Annotated[
    str | None,
    _option("Of the chains' products: fp32, bf16, or auto.", _RUN, "fp32"),
]
_Threads = Annotated[int | None, _option("CPU threads, fixed for the run.", _RUN, "all")]
_LogEvery = Annotated[
    int | None, _option("Updates between metrics.", _RUN, "a hundredth of the run")
]
_LogEpochs = Annotated[int | None, _option("The same in epochs.", _RUN)]
_CheckpointEvery = Annotated[
    int | None, _option("Updates between checkpoints.", _RUN, "a tenth of the run")
]
_KeepLast = Annotated[int | None, _option("Newest checkpoints to keep.", _RUN, "3")]
_KeepEvery = Annotated[
    int | None, _option("Keep checkpoints at multiples of so many updates, too.", _RUN)
]
_SaveTrajectory = Annotated[
    bool | None,
    typer.Option("--save-trajectory", help="Keep machines of the way, for --sampler trajectory.",
                 rich_help_panel=_RUN, show_default=False),
]  # fmt: skip
_TrajectoryLimit = Annotated[
    int | None, _option("Most machines of the trajectory on disk.", _RUN, "50")
]
_TensorBoard = Annotated[
    Path | None, _option("Folder for TensorBoard's event files.", _RUN, "none")
]
_Config = Annotated[
    Path | None,
    _option("TOML file of these options, or the config.toml of a run to repeat.", _RUN),
]
_Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out.", rich_help_panel=_RUN)
]
_Checkpoint = Annotated[
    str | None, _option("With --resume: the checkpoint to go on from.", _RUN, "latest")
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress bar.", rich_help_panel=_RUN)
]
_Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run in --out.", rich_help_panel=_RUN)
]


def command(
    source: _Source = None,
    model: _Model = None, hidden: _Hidden = None, method: _Method = None, steps: _Steps = None,
    chains: _Chains = None, refresh: _Refresh = None, fast_lr: _FastLr = None,
    witnesses: _Witnesses = None, reservoir: _Reservoir = None, acceptance: _Acceptance = None,
    sampler: _Sampler = None, sampler_option: _SamplerOption = None, levels: _Levels = None,
    weights: _Weights = None,
    visible_bias: _VisibleBias = None, hidden_bias: _HiddenBias = None,
    batch_size: _BatchSize = None, epochs: _Epochs = None, updates: _Updates = None,
    lr: _Lr = None, optimizer: _Optimizer = None, optimizer_option: _OptimizerOption = None,
    schedule: _Schedule = None, schedule_option: _ScheduleOption = None, l1: _L1 = None,
    l2: _L2 = None, prior_scale: _PriorScale = None, center: _Center = None,
    whiten: _Whiten = None, average: _Average = None,
    pretrain: _Pretrain = None, begin: _Begin = None,
    updown_epochs: _UpDownEpochs = None, updown_lr: _UpDownLr = None,
    updown_top_lr: _UpDownTopLr = None, discriminative: _Discriminative = None,
    patience: _Patience = None, tolerance: _Tolerance = None, seed: _Seed = None,
    classes: _Classes = None, limit: _Limit = None, transform: _Transform = None,
    key: _Key = None, labels: _Labels = None, validation: _Validation = None, test: _Test = None,
    data_dir: _DataDir = None,
    out: _Out = None, device: _Device = None, precision: _Precision = None,
    threads: _Threads = None, log_every: _LogEvery = None, log_epochs: _LogEpochs = None,
    checkpoint_every: _CheckpointEvery = None, keep_last: _KeepLast = None,
    keep_every: _KeepEvery = None, save_trajectory: _SaveTrajectory = None,
    trajectory_limit: _TrajectoryLimit = None, tensorboard: _TensorBoard = None, config: _Config = None,
    resume: _Resume = False, checkpoint: _Checkpoint = None, overwrite: _Overwrite = False,
    quiet: _Quiet = False,
) -> None:  # fmt: skip
    """Train a machine on DATA and keep everything in a run folder.

    The default recipe is PCD-1 with a centred gradient, a linearly falling learning rate and a
    Polyak average. What the command line leaves open comes from --config, and then from the recipe.
    """
    given = {k: v for k, v in locals().items() if v not in (None, []) and k not in _NOT_SETTINGS}
    how = {"progress": not quiet and sys.stderr.isatty(), "tensorboard": tensorboard}
    if resume:
        if out is None or source is not None or given or config is not None or overwrite:
            raise GibbsianError(
                "--resume goes on with a run exactly as it was made, so it takes --out RUN alone, and "
                "--checkpoint where it should go back."
            )
        how |= {"checkpoint": checkpoint or "latest"}
        if _is_belief(out):
            dbn.resume(out, how | {"quiet": quiet})
            return
        _tell(_resume(out, how), out)
        return
    if checkpoint is not None:
        raise GibbsianError(
            "A new run has no checkpoint to start from; --checkpoint goes with --resume."
        )
    stored = configuration.read(config) if config is not None else {}
    if configuration.is_run(stored) or stored.get("kind") == "dbn":
        if out is None or source is not None or given:
            raise GibbsianError(
                "The config.toml of a run repeats that run as it was, so it takes no options but --out."
            )
        if stored.get("kind") == "dbn":
            dbn.repeat(stored, out, overwrite, how | {"quiet": quiet})
            return
        _tell(_repeat(stored, out, overwrite, how), out)
        return
    chosen = configuration.merged(config, given, source)
    destination = out or Path("runs") / f"{Path(str(chosen['data'])).stem}-{chosen['model']}"
    if chosen["model"] == "dbn":
        dbn.train(chosen, destination, overwrite, how | {"quiet": quiet})
        return
    _tell(_train(chosen, destination, overwrite, how), destination)


_NOT_SETTINGS = {
    "source", "out", "config", "resume", "checkpoint", "overwrite", "quiet", "tensorboard",
}  # fmt: skip


def _train(
    chosen: Mapping[str, Any], out: Path, overwrite: bool, how: Mapping[str, Any]
) -> "Trained":
    """Train as the merged options say."""
    from gibbsian import devices, estimators, recipes, trained

    recipe = recipes.find(chosen["model"], ["dbn"])
    method = dict(chosen["method"])
    if method["kind"] == "pcd":
        method = dict(recipe.method) | method
    estimator = estimators.from_spec(method)
    settings = recipes.settings(recipe, chosen["settings"])
    devices.find(settings.get("device", "cpu"))
    dataset = recipes.load_data(
        recipe, chosen["data"], seed=settings.get("seed", 0), **chosen["load"]
    )
    machine = recipes.build(chosen["model"], dataset, chosen["hidden"])
    return trained.train(
        machine, dataset, estimator, out=out, overwrite=overwrite, **how, **settings
    )


def _is_belief(out: Path) -> bool:
    from gibbsian.belief.runs import is_belief

    return is_belief(out)


def _resume(out: Path, how: Mapping[str, Any]) -> "Trained":
    from gibbsian import devices, runs, trained

    device = runs.open_run(out).config.get("training", {}).get("device", "cpu")
    try:
        devices.find(device)
    except GibbsianError:
        raise GibbsianError(
            f"The run in {out} is trained on {device!r}, which this computer does not have; resume it "
            "on one that has."
        ) from None
    return trained.resume(out, **how)


def _repeat(
    stored: Mapping[str, Any], out: Path, overwrite: bool, how: Mapping[str, Any]
) -> "Trained":
    """Train anew with the configuration of another run."""
    from gibbsian import data, devices, estimators, models, trained

    settings = dict(stored["training"])
    devices.find(settings.get("device", "cpu"))
    return trained.train(
        models.from_spec(stored["machine"]), data.load(**stored["data"]["spec"]),
        estimators.from_spec(stored["method"]), out=out, overwrite=overwrite, **how, **settings,
    )  # fmt: skip


def _tell(result: "Trained", out: Path) -> None:
    typer.echo(f"Trained {result.step} updates; the run is in {out}.")
    typer.echo(f"Next: gibbsian report {out}")
