"""Data in two clusters: how often chains jump at equal cost, and whether the shares are right.

    GIBBSIAN_DATA=DIR .venv/bin/python -m benchmarks.clusters --out runs/clusters

Three machines are trained. Two learn MNIST's digits 0 and 1, thresholded: by PCD, and by PTT, whose chains
exchange with its own past. The third learns exact samples of a machine of 61 visible and 8 hidden units with
two far modes; as its hidden states can be enumerated, the share of each cluster under it is known exactly.

A trajectory can only carry chains between clusters if its machines give both a share. PCD's chains are stuck
in theirs, so nothing in its gradient holds the shares, and on the way the odds of ones to zeros go far beyond
what chains can follow. PTT's chains do cross.

A chain's place is its projection on the axis between the clusters, and a jump is a passage from well on one
side of the middle to well on the other. Every sampler has the same number of sweeps for each
chain, all levels counted: one with L levels makes an L-th of the steps. Chains start from noise. Machines
that were trained are only sampled again.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import gibbsian as gb
from benchmarks import budget
from gibbsian import recipes, samplers
from gibbsian.data import Dataset
from gibbsian.evaluators import exact
from gibbsian.evaluators.mixing import autocorrelation_time
from gibbsian.samplers import Sampler
from gibbsian.units import base as unit

VISIBLE, HIDDEN, SHARE = 61, 8, 0.3


@dataclass(frozen=True)
class Axis:
    """The way between two clusters: a row's place is direction · x, with its centres at 0 and 1.

    Attributes
    ----------
    direction : Tensor (n,)
    offset : float
        Taken off the product.
    """

    direction: Tensor
    offset: float

    @classmethod
    def between(cls, a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> "Axis":
        """Lead from the centre a to the centre b."""
        way = (b - a) / float((b - a).square().sum())
        return cls(way, float(way @ a))

    def place(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """Return the places of rows."""
        return x @ self.direction - self.offset


def jumps(
    places: Float[Tensor, "draws chains"], low: float = 0.25, high: float = 0.75
) -> Float[Tensor, " chains"]:
    """Count each chain's passages from below `low` to above `high` and back; what lies between is neither."""
    side = torch.zeros_like(places[0])
    count = torch.zeros_like(side)
    for now in places:
        seen = (now > high).to(side) - (now < low).to(side)
        count += ((seen * side) < 0).to(side)
        side = torch.where(seen != 0, seen, side)
    return count


def far_modes(seed: int = 0) -> tuple[gb.BoltzmannMachine, Tensor]:
    """Make a machine with two far modes, and the signs (n,) of its cluster axis.

    The first hidden unit pulls every visible unit one way or the other, the others do little.
    """
    machine, generator = gb.rbm(VISIBLE, HIDDEN), torch.Generator().manual_seed(seed)
    signs = 2.0 * torch.randint(2, (VISIBLE,), generator=generator) - 1
    weight = 0.3 * torch.randn(VISIBLE, HIDDEN, generator=generator)
    weight[:, 0] = 2.2 * signs
    with torch.no_grad():
        machine.joints[0].weight.copy_(weight)
        # Without the others both states of the first unit would be as likely; their pull is taken off.
        machine.layers[0].bias.copy_(-weight[:, 0] / 2 - weight[:, 1:].sum(dim=1) / 2)
        for _ in range(20):
            now = share(machine, signs)
            gap = math.log(SHARE / (1 - SHARE)) - math.log(now / (1 - now))
            machine.layers[1].bias[0] += gap
    return machine, signs


def _hidden_states(machine: gb.BoltzmannMachine) -> tuple[Tensor, Tensor]:
    """Return P(h) and E[v | h] of every hidden state, in float64."""
    (h,) = next(exact.states([machine.layers[1]], 2 ** machine.layers[1].size))
    with torch.no_grad():
        free = machine.marginal_energy([h, h], summed=0)
        means = unit.mean(machine.layers[0], machine.field(0, [h, h]))
    return torch.softmax(-free.double(), dim=0), means.double()


def share(machine: gb.BoltzmannMachine, signs: Float[Tensor, " n"]) -> float:
    """Return P(more than half of the bits agree with the signs) exactly.

    Given h the bits are independent, so that the number that agree has the convolution of their
    distributions.
    """
    p, means = _hidden_states(machine)
    agree = torch.where(signs > 0, means, 1 - means)
    count = torch.zeros(len(p), len(signs) + 1, dtype=torch.float64)
    count[:, 0] = 1
    for q in agree.T:
        count = count * (1 - q[:, None]) + count.roll(1, dims=1) * q[:, None]
    return float(p @ count[:, len(signs) // 2 + 1 :].sum(dim=1))


def draw(machine: gb.BoltzmannMachine, rows: int, seed: int) -> Float[Tensor, "rows n"]:
    """Draw exact samples of the visible layer by its hidden states."""
    generator = torch.Generator().manual_seed(seed)
    p, means = _hidden_states(machine)
    chosen = means[torch.multinomial(p, rows, replacement=True, generator=generator)]
    return torch.bernoulli(chosen, generator=generator).float()


@dataclass(frozen=True)
class Problem:
    """A trained machine in two clusters.

    Attributes
    ----------
    trained : Trained
    axis : Axis
        The centres of the clusters are at 0 and 1.
    exact : float or None
        The share of the cluster at 1, where it is known.
    half : float
        Where along the axis one cluster ends and the other begins.
    margin : float
        How far from there a chain must come to be on a side, when jumps are counted.
    """

    trained: gb.Trained
    axis: Axis
    exact: float | None
    half: float = 0.5
    margin: float = 0.25


def mixture(out: Path, minutes: float, **settings: Any) -> Problem:
    """Train a machine on samples of the one with two far modes."""
    source, signs = far_modes()
    rows = draw(source, 5_000, 1)
    data = gb.data.load(rows.numpy(), seed=0)
    trained, _ = budget.train(
        "rbm", data, HIDDEN, minutes, out / "mixture", save_trajectory=True, **settings
    )
    # Agreement with the signs, from 0 to 1: of few bits it can only be one of 62 values.
    axis = Axis(signs / VISIBLE, -float((signs < 0).sum()) / VISIBLE)
    return Problem(trained, axis, share(trained.machine, signs), margin=0.1)


def digits(out: Path, minutes: float, name: str = "digits", **settings: Any) -> Problem:
    """Train a machine on MNIST's zeros and ones."""
    options = {"classes": [0, 1], "transform": ["scale", "threshold:0.5"]}
    data: Dataset = recipes.load_data(recipes.find("rbm"), "mnist", **options)
    trained, _ = budget.train(
        "rbm", data, 100, minutes, out / name, save_trajectory=True, **settings
    )
    rows, labels = data.train.tensor(), torch.from_numpy(data.train.labels)
    centres = [rows[labels == k].mean(dim=0) for k in (0, 1)]
    return Problem(trained, Axis.between(*centres), None)


def digits_ptt(out: Path, minutes: float, **settings: Any) -> Problem:
    """Train a machine on MNIST's zeros and ones by PTT, slowly enough for its first checkpoints."""
    given = {"method": gb.PTT(), "lr": 0.02} | settings
    return digits(out, minutes, "digits-ptt", **given)


def _samplers(trained: gb.Trained) -> dict[str, Callable[[], Sampler]]:
    return {
        "gibbs": samplers.Gibbs,
        "tempering": lambda: samplers.Tempering(trained.reference),
        "trajectory tempering": lambda: samplers.TrajectoryTempering(_trajectory(trained)),
        "trajectory tempering, sparser": lambda: samplers.TrajectoryTempering(
            _trajectory(trained, 0.05)
        ),
    }


def _trajectory(trained: gb.Trained, acceptance: float = 0.3) -> gb.Trajectory:
    """Return the trajectory that leads to the averaged machine, at equal acceptance."""
    whole = gb.trajectory.load(trained).to(trained.machine)
    return whole.refined(acceptance, generator=0)


def measure(
    problem: Problem, make: Callable[[], Sampler], chains: int, sweeps: int, seed: int = 0
) -> dict[str, Any]:
    """Run one sampler for so many sweeps a chain, and look at the second nine tenths of its steps."""
    machine, generator = problem.trained.machine, torch.Generator().manual_seed(seed)
    sampler, watch = make(), budget.Stopwatch()
    start = samplers.start(machine, chains, "noise", generator)
    state = sampler.init(machine, start, generator)
    levels = len(state.extra.get("replica", ())) or 1
    steps = sweeps // levels
    places = torch.empty(steps, chains)

    def see(step: int, now: samplers.ChainState, info: samplers.Info) -> None:
        places[step - 1] = problem.axis.place(now.layers[0])

    samplers.run(sampler, machine, state, steps, generator, visit=see)
    seconds = watch.seconds()
    return {"levels": levels, "chains": chains, "steps": steps, "seconds": seconds} | figures(
        places[steps // 10 :], levels, seconds * 0.9, problem
    )


def figures(
    places: Float[Tensor, "draws chains"], levels: int, seconds: float, problem: Problem
) -> dict[str, Any]:
    """Return jumps, autocorrelation times and shares of chains' places."""
    draws, chains = places.shape
    low, high = (problem.half + d for d in (-problem.margin, problem.margin))
    found = jumps(places, low, high)
    rate, error = (float(x) / draws for x in (found.mean(), found.std() / math.sqrt(chains)))
    above = (places > problem.half).float()
    tau = autocorrelation_time(above)
    each = above.mean(dim=0)
    return {
        "jumps": int(found.sum()),
        "jumps_per_10000_steps": 1e4 * rate, "error": 1e4 * error,
        "jumps_per_10000_sweeps": 1e4 * rate / levels,
        "jumps_per_second": float(found.sum()) / seconds,
        "tau_steps": tau, "tau_sweeps": tau * levels,
        "share": float(each.mean()), "share_error": float(each.std()) / math.sqrt(chains),
        "share_exact": problem.exact,
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """Write the results as a table."""
    lines = [
        "| data | sampler | levels | chains × steps | CPU s | jumps per 10⁴ steps | per 10⁴ sweeps | "
        "per CPU s | τ, steps | τ, sweeps | share | exact |",
        "|---" * 12 + "|",
    ]
    for data, results in found.items():
        for name, r in results.items():
            known = "" if r["share_exact"] is None else f"{r['share_exact']:.4f}"
            lines.append(
                f"| {data} | {name} | {r['levels']} | {r['chains']} × {r['steps']} | {r['seconds']:.1f} | "
                f"{r['jumps_per_10000_steps']:.2f} ± {r['error']:.2f} | {r['jumps_per_10000_sweeps']:.2f} | "
                f"{r['jumps_per_second']:.2f} | {r['tau_steps']:.1f} | {r['tau_sweeps']:.0f} | "
                f"{r['share']:.4f} ± {r['share_error']:.4f} | {known} |"
            )
    return "\n".join(lines)


PROBLEMS = {"mixture": mixture, "digits": digits, "digits-ptt": digits_ptt}


def main() -> None:
    """Train both machines, sample them by every sampler, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1, help="of the processor, for training")
    parser.add_argument("--only", nargs="+", choices=tuple(PROBLEMS), default=tuple(PROBLEMS))
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument(
        "--sweeps", type=int, default=20_000, help="of each chain, all levels counted"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/clusters"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = options.out / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in options.only:
        problem = PROBLEMS[name](options.out, options.minutes)
        results[name] = {}
        for sampler, kernel in _samplers(problem.trained).items():
            results[name][sampler] = measure(problem, kernel, options.chains, options.sweeps)
            print(name, sampler, results[name][sampler], flush=True)
            kept.write_text(json.dumps(results, indent=1))
            (options.out / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
