"""Machines placed along a trajectory between two clusters, whose weights the training moves to and fro."""

import copy

import torch
from test_tempering import _strong
from torch import Generator

from gibbsian import testing
from gibbsian.path import BaseRatePath
from gibbsian.samplers import TrajectoryTempering, ladder, refine, run
from gibbsian.samplers.gibbs import draw
from gibbsian.trajectory import Trajectory, between, same


def _to_and_fro(turns: int = 30) -> Trajectory:
    """Machines on the way to two deep valleys, whose biases lean one way and the other in turn."""
    target, found = _strong(), []
    base = copy.deepcopy(target)
    with torch.no_grad():
        base.joints[0].weight.zero_()
    for k in range(1, turns):
        machine = between(base, target, min(1.0, k / 20))
        with torch.no_grad():
            machine.layers[0].get_parameter("bias").add_(0.08 * (-1) ** k)
        found.append(machine)
    return Trajectory((base, *found, target), tuple(range(turns + 1)))


def _swaps(trajectory: Trajectory, steps: int = 200, chains: int = 150):
    """Return each rung's acceptance, and the share of either valley in the last machine's chains."""
    machine, generator = trajectory.machines[-1], Generator().manual_seed(1)
    sampler, rates, ups = TrajectoryTempering(trajectory), [], []
    state = sampler.init(machine, -torch.ones(chains, 8).double(), generator)

    def see(step, now, info):
        rates.append(info.diagnostics["acceptance"])
        ups.append((now.layers[0].sum(1) > 0).double())

    run(sampler, machine, state, steps, generator, visit=see)
    each = torch.stack(ups[steps // 3 :]).mean(dim=0)
    return torch.stack(rates[steps // 3 :]).mean(dim=0), each


def _share(machine) -> float:
    table = testing.enumerate_states(machine)
    return float(table.probabilities @ (table.states[0].sum(1) > 0).double())


def test_clusters_cost_no_machines():
    trajectory = _to_and_fro()
    refined = trajectory.refined(generator=0)
    assert same(refined.machines[-1], trajectory.machines[-1]) and len(refined) <= 6
    rates, each = _swaps(refined)
    assert float(rates.min()) > 0.15
    error = float(each.std()) / len(each) ** 0.5
    truth = _share(refined.machines[-1])
    assert error < 0.03 and abs(float(each.mean()) - truth) < 4 * error


@torch.no_grad()
def test_the_length_of_the_way_would_cost_many():
    """A wrong twin: each step measured from the one before, as if no way led back."""
    generator = Generator().manual_seed(0)
    lengths = refine._measure(_to_and_fro(20), 100, 0.0, generator)[1]
    assert lengths[-1] / ladder.spread_of(0.3) > 10


@torch.no_grad()
def test_weights_and_draws_keep_the_shares_of_clusters():
    target, n = _strong(), 4000
    base = copy.deepcopy(target)
    with torch.no_grad():
        base.joints[0].weight.zero_()
        target.layers[0].get_parameter("bias").fill_(0.06)
    truth, generator = _share(target), Generator().manual_seed(3)
    layers = list(BaseRatePath(base, base).draw(n, generator))
    now = refine._Weighted(base, layers, torch.zeros(n).double())
    plain = [s.clone() for s in layers]
    for k in range(1, 11):
        at = between(base, target, k / 10)
        now = now.moved(at, generator)
        for parity in (1, 0, 1, 0):
            draw(at, plain, parity, generator)
    share = now.log_weights.softmax(0)
    up = (now.layers[0].sum(1) > 0).double()
    # Draws by weight have made some chains the same: an eighth of them may count.
    error = (truth * (1 - truth) * 8 / n) ** 0.5
    assert abs(float(share @ up) - truth) < 4 * error
    assert abs(float((plain[0].sum(1) > 0).double().mean()) - truth) > 4 * error
