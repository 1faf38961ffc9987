"""Many steps of a few chains in one kernel: the same chains as step by step."""

import pytest
import torch
from torch import Generator

import gibbsian as gb
from gibbsian.kernels import native
from gibbsian.models import layered, rbm
from gibbsian.samplers import Gibbs, run, start
from gibbsian.testing import perturbed
from gibbsian.units import Bernoulli, Spin

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels are off")


def _machine(visible=37, hidden=21, scale=0.3):
    return perturbed(rbm(visible, hidden), scale, seed=5).float()


def _begin(machine, chains, seed=0):
    g = Generator().manual_seed(seed)
    return Gibbs().init(machine, start(machine, chains, "noise", g), g)


@pytest.mark.parametrize("chains", [1, 2, 3, 4])
@pytest.mark.parametrize("sizes", [(37, 21), (1, 1), (64, 33), (5, 200)])
def test_a_leap_is_its_steps(chains, sizes):
    machine = _machine(*sizes)
    before = _begin(machine, chains)
    g, other = Generator().manual_seed(7), Generator().manual_seed(7)
    leapt = Gibbs().leap(machine, before, 30, g)
    assert leapt is not None
    state, info = before, None
    for _ in range(30):
        state, info = Gibbs().step(machine, state, other)
    assert all(torch.equal(a, b) for a, b in zip(leapt[0].layers, state.layers, strict=True))
    torch.testing.assert_close(leapt[1].fields[1], info.fields[1])
    assert torch.equal(g.get_state(), other.get_state())


def test_leaps_compose_and_leave_their_start_alone():
    machine = _machine()
    before = _begin(machine, 2)
    copies = [s.clone() for s in before.layers]
    g, other = Generator().manual_seed(1), Generator().manual_seed(1)
    whole, _ = Gibbs().leap(machine, before, 50, g)
    half, _ = Gibbs().leap(machine, before, 20, other)
    half, _ = Gibbs().leap(machine, half, 30, other)
    assert all(torch.equal(a, b) for a, b in zip(whole.layers, half.layers, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before.layers, copies, strict=True))


def test_recording_does_not_change_a_chain():
    machine = _machine()
    plain = gb.sample(machine, 2, 1500, generator=3)
    recorded = gb.sample(machine, 2, 1500, generator=3, record=[0, 1, 10, 1001, 1500])
    assert torch.equal(plain.samples, recorded.samples)
    assert recorded.at == (0, 1, 10, 1001, 1500)
    again = gb.sample(machine, 2, 10, generator=3)
    assert torch.equal(recorded.trace[2], again.samples)


def test_visits_see_every_step():
    machine = _machine()
    seen = []
    run(Gibbs(), machine, _begin(machine, 1), 5, None, visit=lambda i, s, _: seen.append(i))
    assert seen == [1, 2, 3, 4, 5]


class Slow(Gibbs):
    """Counts its steps."""

    def __init__(self):
        self.steps = 0

    def step(self, machine, state, generator, clamps=None):
        self.steps += 1
        return super().step(machine, state, generator, clamps)


def test_no_leap_past_what_a_step_must_do():
    machine = _machine()
    g = Generator().manual_seed(0)
    assert Gibbs().leap(machine, _begin(machine, native.FEW + 1), 5, g) is None
    held = {0: gb.Clamp(torch.ones(37, dtype=torch.bool), torch.zeros(37))}
    assert Gibbs().leap(machine, _begin(machine, 1), 5, g, held) is None
    for other in (
        rbm(Spin(4), 3),
        layered(Bernoulli(3), Bernoulli(3), Bernoulli(2)),
        rbm(4, 3).double(),
    ):
        assert Gibbs().leap(other, _begin(other, 1), 5, g) is None
    slow = Slow()
    run(slow, machine, _begin(machine, 1), 9, g)
    assert slow.steps == 9


def test_a_wrong_weight_would_be_seen():
    """The twin: equality above fails for couplings that differ in the third digit."""
    machine = _machine(200, 150, 1.0)
    before = _begin(machine, 4)
    leapt, _ = Gibbs().leap(machine, before, 100, Generator().manual_seed(7))
    with torch.no_grad():
        machine.joints[0].weight.mul_(1.01)
    state, _ = run(Slow(), machine, before, 100, Generator().manual_seed(7))
    assert not all(torch.equal(a, b) for a, b in zip(leapt.layers, state.layers, strict=True))
