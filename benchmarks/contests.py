"""The four contests: a sweep, an epoch, annealed importance sampling, and a single chain."""

import copy
import dataclasses
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import gibbsian as gb
from benchmarks import ours, peers
from benchmarks.sizes import Sizes
from benchmarks.timing import Work, rows, take_turns
from gibbsian import evaluators
from gibbsian.evaluators import Estimate

BARE, OURS = "bare products", "gibbsian"


def sweep(sizes: Sizes) -> dict[str, Any]:
    """One Gibbs sweep of many chains against its two products."""
    made, count, chains = ours.machine(sizes), sizes.sweeps, sizes.chains
    weight = made.joints[0].get_parameter("weight").detach()

    def half() -> Work:
        return ours.sweep(ours.in_bfloat16(made), chains, count)

    def half_bare() -> Work:
        ours.in_bfloat16(made)  # has its say on whether the row makes sense
        return ours.bare_sweep(sizes, count, torch.bfloat16)

    makers = {OURS: lambda: ours.sweep(made, chains, count), f"{OURS}, bf16": half}
    makers[f"{BARE}, bf16"] = half_bare
    makers |= {p.name: lambda p=p: p.sweep(weight, chains, count) for p in peers.PEERS}
    turns = take_turns(ours.bare_sweep(sizes, count), makers, sizes.rounds)
    return {
        "title": f"Gibbs sweep of {chains:,} chains, {_size(sizes)}, fp32, × its two bare products",
        "unit": "sweep", "base": BARE, "skipped": turns.skipped,
        "rows": rows(turns, BARE, count, chains * (sizes.visible + sizes.hidden)),
    }  # fmt: skip


def epoch(sizes: Sizes) -> dict[str, Any]:
    """PCD-1 by plain SGD against the five products of each update."""
    work, updates = ours.epoch(sizes)
    data = ours.bits(updates * sizes.batch, sizes.visible)

    def half() -> Work:
        ours.in_bfloat16(gb.rbm(1, 1))  # has its say on whether the row makes sense
        return ours.epoch(sizes, "bf16")[0]

    makers: dict[str, Callable[[], Work]] = {OURS: lambda: work, f"{OURS}, bf16": half}
    makers |= {p.name: lambda p=p: p.epoch(data, sizes.hidden, sizes.batch) for p in peers.PEERS}
    turns = take_turns(ours.bare_epoch(sizes, updates), makers, sizes.rounds)
    return {
        "title": f"Epoch of PCD-1, batch {sizes.batch}, {_size(sizes)}, plain SGD, × its five bare products",
        "unit": "update", "base": BARE, "skipped": turns.skipped,
        "rows": rows(turns, BARE, updates),
        "notes": [f"an epoch of 60,000 rows is {60_000 // sizes.batch} updates"]
        + [f"{p.name} trains by {p.trains}" for p in peers.PEERS if p.name in turns.pairs],
    }  # fmt: skip


def ais(sizes: Sizes) -> dict[str, Any]:
    """Annealed importance sampling of the same machine over the same path and temperatures."""
    made, chains, steps = ours.machine(sizes), sizes.ais_chains, sizes.temperatures
    reference = independent(made)
    weight = made.joints[0].get_parameter("weight").detach()
    visible, hidden = (u.get_parameter("bias").detach() for u in made.layers)
    peer = next(p for p in peers.PEERS if isinstance(p, peers.Rbms))
    estimates: list[Estimate] = []
    theirs: list[float] = []

    def anneal(temperatures: int) -> None:
        betas = torch.linspace(0, 1, temperatures + 1).tolist()
        estimates.append(evaluators.ais(made, reference, chains, betas, len(estimates)))

    def theirs_of(temperatures: int) -> None:
        theirs.append(peer.log_z(weight, visible, hidden, chains, temperatures))

    def warmed(work: Callable[[int], None]) -> Callable[[], Work]:
        return lambda: (work(2), lambda: work(steps))[1]

    products = ours.bare_sweep(dataclasses.replace(sizes, chains=chains), steps)
    makers = {peer.name: warmed(theirs_of), BARE: lambda: products}
    turns = take_turns(lambda: anneal(steps), makers, max(2, sizes.rounds // 3))
    flips = chains * (sizes.visible + sizes.hidden)
    found = {
        "title": f"AIS, {chains} chains × {steps:,} temperatures, {_size(sizes)}, × gibbsian's time",
        "unit": "temperature", "base": OURS, "skipped": turns.skipped,
        "rows": rows(turns, OURS, steps, flips),
    }  # fmt: skip
    return found | _agreement(estimates, theirs[1:])


def independent(made: gb.BoltzmannMachine) -> gb.BoltzmannMachine:
    """Return the reference that rbms anneals from: no couplings, and no hidden biases."""
    reference = copy.deepcopy(made)
    with torch.no_grad():
        reference.joints[0].get_parameter("weight").zero_()
        reference.layers[1].get_parameter("bias").zero_()
    return reference


def _agreement(estimates: list[Estimate], theirs: list[float]) -> dict[str, Any]:
    """Compare the mean log Z of both; the scatter of one estimate is that of ours."""
    mean = statistics.fmean(e.log_z for e in estimates)
    found: dict[str, Any] = {"log_z": {OURS: mean}}
    if not theirs:
        return found
    variance = statistics.fmean(e.standard_error**2 for e in estimates)
    error = math.sqrt(variance * (1 / len(estimates) + 1 / len(theirs)))
    difference = statistics.fmean(theirs) - mean
    found["log_z"] |= {"rbms": mean + difference, "difference": difference, "standard_error": error}
    # rbms adds up its log weights in float32, which costs about 0.01 nat.
    found["log_z"]["agree"] = abs(difference) < 4 * error + 0.02
    return found


def single(sizes: Sizes) -> dict[str, Any]:
    """One chain in a bare loop, against scikit-learn's `gibbs` in a loop."""
    made, steps = ours.machine(sizes), sizes.steps
    weight = made.joints[0].get_parameter("weight").detach()
    peer = next(p for p in peers.PEERS if isinstance(p, peers.ScikitLearn))

    def loop(dtype: Any) -> Callable[[], Work]:
        return lambda: peer.sweep(weight, 1, steps, dtype)

    makers = {f"{peer.name}, {d.__name__}": loop(d) for d in (np.float64, np.float32)}
    makers[BARE] = lambda: ours.bare_sweep(dataclasses.replace(sizes, chains=1), steps)
    turns = take_turns(lambda: gb.sample(made, 1, steps), makers, max(2, sizes.rounds // 2))
    return {
        "title": f"One chain of {steps:,} steps, {_size(sizes)}, × gibbsian's time",
        "unit": "step", "base": OURS, "skipped": turns.skipped,
        "rows": rows(turns, OURS, steps, sizes.visible + sizes.hidden),
        "notes": ["scikit-learn: BernoulliRBM.gibbs in a loop, with weights of the dtype named;"
                  " float64 is what partial_fit makes, and fit of float64 rows"],
    }  # fmt: skip


def _size(sizes: Sizes) -> str:
    return f"{sizes.visible}-{sizes.hidden}"
