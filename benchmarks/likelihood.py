"""Likelihood on MNIST: the long run, the table of training methods, and the machine small enough to list.

    export GIBBSIAN_DATA=DIR
    .venv/bin/python -m benchmarks.likelihood long --minutes 30 --out runs/long
    .venv/bin/python -m benchmarks.likelihood long --hidden 1000 --minutes 60 --out runs/large
    .venv/bin/python -m benchmarks.likelihood certify --out runs/long
    .venv/bin/python -m benchmarks.likelihood methods --minutes 10 --out runs/methods
    .venv/bin/python -m benchmarks.likelihood small

Bits are drawn anew from the grey levels at each visit; the test bits are drawn once, with seed 0. The long
run has two stages, with few chains and then with more; `--shares 1` leaves the second out. A run that is
there is only evaluated, and one that was killed goes on. Training stops by the clock (`long`) or by the
processor time of one thread (`methods`), and the learning rate falls to zero by the same measure, in each
stage anew. `certify` certifies the machine of the long run that is in OUT.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import gibbsian as gb
from benchmarks.budget import Budget, Timer
from gibbsian import recipes
from gibbsian.cli.evaluate import kernel
from gibbsian.comparison.training import Cost
from gibbsian.data import Dataset
from gibbsian.estimators import Estimator
from gibbsian.machine import BoltzmannMachine

TEST_BITS = 0

# Settings of training that may be given, and those of the long run. Others are the recipe's.
SETTINGS = ("lr", "l2", "prior_scale", "whiten")
LONG = {"lr": 0.5, "whiten": 0.3, "prior_scale": 0.12}
# What its second stage has in place of that, beside more chains. A third, plain steps with tempering, cost
# half a nat and led further from held-out rows.
MANY = {"batch_size": 200}

# What each is trained by, and settings other than the recipe's. PTT has to be slow at first, or it makes
# one checkpoint after another.
METHODS: dict[str, tuple[Callable[[], Estimator], dict[str, float]]] = {
    "CD-1": (lambda: gb.CD(), {}),
    "CD-25": (lambda: gb.CD(steps=25), {}),
    "PCD-1": (lambda: gb.PCD(), {}),
    "PCD-10": (lambda: gb.PCD(steps=10), {}),
    "FPCD": (lambda: gb.FPCD(), {}),
    "PT-PCD": (lambda: gb.PCD(sampler="tempering"), {}),
    "Jarzynski": (lambda: gb.Jarzynski(), {}),
    "PTT": (lambda: gb.PTT(), {"lr": 0.02}),
    "PCD-1, whitened": (lambda: gb.PCD(), {"lr": 0.5, "whiten": 0.3, "l2": 1e-4}),
}


def load(options: argparse.Namespace) -> Dataset:
    """Load MNIST; where settings are chosen already, without validation rows."""
    return gb.data.load("mnist", validation=options.validation)


def train(
    name: str, options: argparse.Namespace, data: Dataset, method: Estimator, clock: Timer,
    share: float = 1.0, **settings: Any,
) -> BoltzmannMachine:  # fmt: skip
    """Train a machine for a share of the time that is given, go on with it, or read the one that is there."""
    path = options.out / f"{name}.pt"
    machine = recipes.build("rbm", data, options.hidden)
    if path.is_file():
        machine.load_state_dict(torch.load(path, weights_only=True))
        return machine
    budget = Budget(share * options.minutes, clock)
    begin, used = time.perf_counter(), time.process_time()
    given = {k: getattr(options, k) for k in SETTINGS if getattr(options, k) is not None}
    usual = dict(recipes.find("rbm").settings) | {"batch_size": options.batch_size}
    settings = usual | settings | given | {"seed": options.seed}
    cost = Cost()  # of this training alone: `methods` has others in the same process
    folder = options.out / name  # which a second stage can begin as
    hooks = {"schedule": budget.schedule, "callbacks": [budget, cost], "progress": False}
    if (folder / "config.toml").is_file():
        result = gb.resume(folder, **hooks)
    else:
        result = gb.train(
            machine, data, method, out=folder, updates=10**8, log_every=10**8,
            checkpoint_every=20_000, **hooks, **settings,
        )  # fmt: skip
    told = {
        "updates": result.step, "minutes": (time.perf_counter() - begin) / 60,
        "processor_minutes": (time.process_time() - used) / 60,
        "peak_mb": cost.state_dict()["peak_mb"],
        "report": result.history[-1] if result.history else {},
    }  # fmt: skip
    torch.save(result.machine.state_dict(), path)
    path.with_suffix(".json").write_text(json.dumps(told, indent=1, default=str))
    print(
        f"{name}: {told['updates']} updates, {told['minutes']:.1f} minutes by the clock, "
        f"{told['processor_minutes']:.1f} of processors, peak {told['peak_mb']:.0f} MB",
        flush=True,
    )
    return result.machine


def bounds(
    machine: BoltzmannMachine, data: Dataset, options: argparse.Namespace
) -> dict[str, float]:
    """Return test (and validation) log-likelihood by AIS, reverse AIS and the bridge, in nats.

    Reverse chains start at the ladder's top. `low` and `high` are the ends of the 95 % interval of the
    estimate of log Z; `rows_error` is the standard error of the mean over test rows, which adds to it
    when other test rows are meant.
    """
    start = gb.path.reference(machine, data.train.tensor())
    found: dict[str, float] = {}
    begin = time.perf_counter()
    z = gb.evaluators.partition(
        machine, data.train.tensor(limit=1_000, generator=options.seed), reference=start,
        chains=options.chains, temperatures=options.temperatures, starts={},
        ladder_steps=options.ladder_steps, generator=options.seed,
    )  # fmt: skip
    forward, ladder, backward = z.ais, z.ladder, z.reverse["ladder"]
    assert forward is not None and ladder is not None
    print("; ".join(z.words()), flush=True)
    for split in ("validation", "test"):
        if getattr(data, split) is None:
            continue
        rows = getattr(data, split).tensor(generator=TEST_BITS)
        with torch.no_grad():
            energies = -machine.free_energy(rows).double()
        mean = float(energies.mean())
        for name, z in (("ais", forward), ("reverse", backward), ("bridge", ladder)):
            found[f"{split}_{name}"] = mean - z.log_z
            found[f"{split}_{name}_low"] = mean - z.high
            found[f"{split}_{name}_high"] = mean - z.low
        found[f"{split}_rows_error"] = float(energies.std()) / math.sqrt(len(energies))
    found |= {
        "ais_ess": forward.ess, "reverse_ess": backward.ess, "round_trips": ladder.round_trips,
        "levels": len(ladder.betas), "gap": backward.log_z - forward.log_z,
        "evaluation_minutes": (time.perf_counter() - begin) / 60,
    }  # fmt: skip
    return found


def tell(name: str, found: dict[str, float]) -> None:
    """Print a line for each way to log Z."""
    for way in ("ais", "reverse", "bridge"):
        low, high = found[f"test_{way}_low"], found[f"test_{way}_high"]
        held = found.get(f"validation_{way}")
        beside = "" if held is None else f", validation {held:.2f}"
        print(
            f"{name}: test {found[f'test_{way}']:.2f} [{low:.2f}, {high:.2f}] nats by {way}{beside}"
        )
    print(
        f"{name}: gap {found['gap']:.2f}, ESS {found['ais_ess']:.0f} and {found['reverse_ess']:.0f}, "
        f"{found['round_trips']:.0f} round trips on {found['levels']:.0f} levels; mean over test rows "
        f"± {found['test_rows_error']:.2f}; evaluated in {found['evaluation_minutes']:.1f} minutes",
        flush=True,
    )


# Folders of the long run's stages.
STAGES = ("first", "long")


def last(options: argparse.Namespace) -> Path:
    """Return the folder of the last stage that the long run has."""
    return options.out / STAGES[len(options.shares) - 1]


def stages(options: argparse.Namespace, data: Dataset) -> BoltzmannMachine:
    """Train by whitened PCD-1, with few chains and then, unless there is one share, with many."""
    how, clock = {**LONG, "precision": options.precision}, time.perf_counter
    first, *more = options.shares
    machine = train(STAGES[0], options, data, gb.PCD(), clock, first, **how)
    for share in more:
        how |= {**MANY, "begin": str(options.out / STAGES[0])}
        many = gb.PCD(chains=options.many, start="data")
        machine = train(STAGES[1], options, data, many, clock, share, **how)
    return machine


def long(options: argparse.Namespace) -> None:
    """Train in stages, and print the test log-likelihood."""
    data = load(options)
    machine = stages(options, data)
    tell("PCD-1", save(options.out / "long-bounds.json", bounds(machine, data, options)))


def certify(options: argparse.Namespace) -> None:
    """Certify the last stage of the long run that is in OUT, by chains from noise and from data.

    Held out are validation rows: MNIST's test rows are not like its training rows to within the margin.
    """
    found, begin = gb.load(last(options)), time.perf_counter()
    made = gb.certify(
        found, chains=options.certify_chains, steps=options.certify_steps, seed=options.seed,
        sampler=kernel(found, options.certify_sampler), held_out=options.held_out,
    )  # fmt: skip
    minutes = (time.perf_counter() - begin) / 60
    save(options.out / "certificate.json", made.as_dict() | {"minutes": minutes})
    print(*made.words, f"Certified in {minutes:.1f} minutes.", sep="\n", flush=True)


def methods(options: argparse.Namespace) -> None:
    """Train by every method for the same processor time on one thread; print the table."""
    torch.set_num_threads(1)
    data = load(options)
    for name in options.only or METHODS:
        make, settings = METHODS[name]
        machine = train(name, options, data, make(), time.process_time, **settings)
        tell(name, save(options.out / f"{name}-bounds.json", bounds(machine, data, options)))


def small(options: argparse.Namespace) -> None:
    """Print the exact log-likelihood of machines with 16 hidden units on thresholded MNIST."""
    data = gb.data.load("mnist", transform=["scale", "threshold:0.5"])
    rows = {k: getattr(data, k).tensor() for k in ("train", "validation", "test")}
    for seed in range(options.seeds):
        begin = time.perf_counter()
        settings = dict(recipes.find("rbm").settings) | {"lr": options.lr or 0.1, "seed": seed}
        machine = recipes.build("rbm", data, 16)
        gb_trained = gb.train(
            machine, data, gb.PCD(), epochs=options.epochs, progress=False, **settings
        )
        machine, minutes = gb_trained.machine, (time.perf_counter() - begin) / 60
        log_z = float(gb.evaluators.log_z(machine))
        with torch.no_grad():
            found = {k: float(-machine.free_energy(x).mean()) - log_z for k, x in rows.items()}
        told = ", ".join(f"{k} {v:.2f}" for k, v in found.items())
        print(f"seed {seed}: {told} nats exactly, {minutes:.1f} minutes", flush=True)


def save(path: Path, found: dict[str, float]) -> dict[str, float]:
    """Write figures beside the machine that they belong to."""
    path.write_text(json.dumps(found, indent=1))
    return found


COMMANDS = {"long": long, "certify": certify, "methods": methods, "small": small}


def reader() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=tuple(COMMANDS))
    parser.add_argument("--hidden", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=30)
    for name in SETTINGS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, help="in place of what the benchmark takes"
        )
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.4, 0.6],
        help="of the long run's time, for one or both of its stages",
    )  # fmt: skip
    parser.add_argument(
        "--validation", type=int, help="validation rows; 0: learn from them as well"
    )
    parser.add_argument(
        "--many", type=int, default=500, help="chains of the long run's second stage"
    )
    parser.add_argument("--precision", default="auto", help="of the long run's products")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--chains", type=int, default=200)
    parser.add_argument("--temperatures", type=int, default=20_000)
    parser.add_argument("--ladder-steps", type=int, default=1_000)
    parser.add_argument("--certify-chains", type=int, default=400)
    parser.add_argument("--certify-steps", type=int, default=200_000)
    parser.add_argument("--certify-sampler", choices=("gibbs", "tempering"), default="gibbs")
    parser.add_argument("--held-out", choices=("test", "validation"), default="validation")
    parser.add_argument("--only", nargs="*", choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("runs/likelihood"))
    return parser


def main() -> None:
    """Run one of the benchmarks."""
    parser = reader()
    options = parser.parse_args()
    shares = options.shares
    if len(shares) > len(STAGES) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        parser.error("--shares are one or two shares of the time, above 0, which add up to 1")
    try:
        COMMANDS[options.what](options)
    except gb.GibbsianError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
