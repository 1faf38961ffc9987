"""bfloat16 products: exact where they claim to be, and close where they round."""

import itertools

import pytest
import torch

import gibbsian as gb
from gibbsian import models, precision, testing
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import Gibbs
from gibbsian.testing import perturbed
from gibbsian.units import Bernoulli, Binomial, Gaussian, Softmax, Spin


def _states(units) -> torch.Tensor:
    """List all states of a layer of one-column blocks."""
    values = [b[:, 0].tolist() for b in units.domain.blocks()]
    return torch.tensor(list(itertools.product(*values)))


def _stationary(machine: BoltzmannMachine, visible: torch.Tensor) -> torch.Tensor:
    """Return the exact law of the visible layer under endless Gibbs sweeps, rounding included."""
    hidden = _states(machine.layers[1])
    with torch.no_grad():
        up = _law(machine.layers[1], machine.joints[0].up(visible), hidden)
        down = _law(machine.layers[0], machine.joints[0].down(hidden), visible)
        sweep = up @ down
    for _ in range(12):  # 4,096 sweeps
        sweep = sweep @ sweep
    return sweep[0]


def _law(units, field: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Return p(s | field) for all states, in float64, from fields as they come."""
    f = field.double()
    bias = units.bias.double()
    log_p = (f + bias) @ states.double().T
    return torch.softmax(log_p, dim=1)


@pytest.mark.parametrize(("units", "scale"), [(Bernoulli, 0.5), (Bernoulli, 2.0), (Spin, 0.7)])
def test_what_rounding_does_to_the_stationary_law(units, scale):
    """No sampling noise: the chain's law is computed, with and without rounded products."""
    machine = perturbed(models.rbm(units(6), Bernoulli(5)), scale, seed=4).float()
    visible = _states(machine.layers[0])
    truth = torch.softmax(-machine.free_energy(visible).double(), dim=0)
    exact = _stationary(machine, visible)
    torch.testing.assert_close(exact, truth, rtol=1e-4, atol=1e-6)
    rounded = _stationary(precision.lowered(machine), visible)
    divergence = float((truth * (truth / rounded).log()).sum().detach())
    means = (rounded - truth) @ visible.double()
    assert 1e-9 < divergence < 1e-4  # nats; 0 would mean that nothing was rounded
    assert float(means.abs().max()) < 5e-3


def test_coarser_rounding_would_be_seen(monkeypatch):
    """The wrong-answer twin: four bits in place of eight."""
    machine = perturbed(models.rbm(6, 5), 2.0, seed=4).float()
    visible = _states(machine.layers[0])
    truth = torch.softmax(-machine.free_energy(visible).double(), dim=0)
    lowered = precision.lowered(machine)
    low = lowered.joints[0]._rounded
    low.copy_((low.float().view(torch.int32) & ~0x7FFFF).view(torch.float32))
    rounded = _stationary(lowered, visible)
    assert float((truth * (truth / rounded).log()).sum().detach()) > 1e-4


@pytest.mark.parametrize("units", [Bernoulli(4), Spin(3), Binomial(2, 3), Softmax(1, 3)])
def test_chains_in_bfloat16_agree_with_enumeration(units):
    """At weights that bfloat16 holds, and 10,000 chains, its rounding of fields is not seen."""
    machine = perturbed(models.rbm(units, Bernoulli(3)), 0.5, seed=1).float()
    with torch.no_grad():
        weight = machine.joints[0].weight
        weight.copy_(weight.bfloat16())
    lowered = precision.lowered(machine)
    testing.check_distribution(Gibbs(), lowered, truth=machine, steps=30)


def test_states_fields_and_parameters_keep_their_dtypes(generator):
    machine = models.rbm(8, 5)
    lowered = precision.lowered(machine)
    assert [p.data_ptr() for p in lowered.layers[0].parameters()] == [
        p.data_ptr() for p in machine.layers[0].parameters()
    ]
    state = Gibbs().init(lowered, torch.zeros(3, 8), generator)
    state, info = Gibbs().step(lowered, state, generator)
    assert {s.dtype for s in state.layers} == {torch.bfloat16}
    assert info.fields[1].dtype == torch.bfloat16
    found = gb.sample(machine, 3, 4, precision="bf16", record=[2])
    assert found.samples.dtype == found.means.dtype == found.trace.dtype == torch.float32
    assert {s.dtype for s in found.state.layers} == {torch.float32}


def test_real_layers_stay_in_full_precision():
    machine = models.gaussian_rbm(4, 3)
    assert precision.lowered(machine) is machine
    deep = models.layered(Gaussian(3), Bernoulli(4), Bernoulli(2))
    joints = precision.lowered(deep).joints
    assert joints[0] is deep.joints[0] and joints[1] is not deep.joints[1]
    assert not precision.is_exact(Binomial(1, 300)) and precision.is_exact(Binomial(1, 200))


def test_refresh_follows_the_couplings():
    machine = models.rbm(3, 2)
    lowered = precision.lowered(machine)
    with torch.no_grad():
        machine.joints[0].weight.fill_(1.0)
    assert not lowered.joints[0].up(torch.ones(1, 3)).any()
    precision.refresh(lowered)
    assert lowered.joints[0].up(torch.ones(1, 3)).tolist() == [[3.0, 3.0]]


def test_a_gradient_in_bfloat16_is_off_by_less_than_a_hundredth_of_its_noise():
    """Signed rows of two phases: the difference is taken in full, and equal phases leave nothing."""
    source = torch.Generator().manual_seed(0)
    joint = models.rbm(30, 20).joints[0]
    low = precision.Rounded(joint)
    a, b = torch.rand(100, 30, generator=source) - 0.3, torch.rand(100, 20, generator=source) - 0.3
    more_a = torch.rand(100, 30, generator=source) - 0.3
    more_b = torch.rand(100, 20, generator=source) - 0.3
    weights = torch.cat([torch.full((100,), -0.01), torch.full((100,), 0.01)])
    found, exact = torch.zeros(30, 20), torch.zeros(30, 20)
    rows = (torch.cat([a, more_a]), torch.cat([b, more_b]), weights)
    low.add_statistics(found, *rows, 2.0)
    joint.add_statistics(exact, *rows, 2.0)
    torch.testing.assert_close(exact, 2 * joint.statistics(*rows))
    products = rows[0][:, :, None] * rows[1][:, None, :]
    noise = 2 * products.std(dim=0) / 10
    assert 0 < float((found - exact).square().mean()) < float((noise / 100).square().mean())
    same = torch.zeros(30, 20)
    low.add_statistics(same, torch.cat([a, a]), torch.cat([b, b]), weights, 1.0)
    assert float(same.abs().max()) < 1e-6  # the order of sums


def test_names():
    assert precision.resolve("fp32", "cpu") == "fp32"
    assert precision.resolve("bf16", "cpu") == "bf16"
    fast = precision.is_fast(torch.device("cpu"))
    assert precision.resolve("auto", "cpu") == ("bf16" if fast else "fp32")
    with pytest.raises(GibbsianError, match="fp32, bf16, auto"):
        precision.resolve("fp16", "cpu")
    with pytest.raises(GibbsianError, match="precision"):
        gb.Settings(precision="half")


@pytest.mark.parametrize("flag", ["amx_bf16", "avx512_bf16"])
def test_auto_asks_the_processor(flag, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: True}, raising=False)
    assert precision.resolve("auto", "cpu") == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: False}, raising=False)
    assert precision.resolve("auto", "cpu") == "fp32"


@pytest.mark.parametrize("method", [gb.PCD(chains=20), gb.PCD(chains=20, refresh=0.1), gb.CD(2)])
def test_training_rounds_products_and_keeps_full_parameters(method):
    rows = (torch.rand(200, 12, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    data = gb.data.load(rows, transform="identity")
    settings = {"updates": 40, "seed": 0, "batch_size": 50, "progress": False}
    found = {
        name: gb.train(models.rbm(12, 6), data, method, precision=name, **settings)
        for name in ("fp32", "bf16")
    }
    full, low = (next(iter(r.machine.joints)).weight.detach() for r in found.values())
    assert low.dtype == torch.float32 and not torch.equal(low, low.bfloat16().float())
    assert not torch.equal(full, low)
    torch.testing.assert_close(full, low, rtol=0, atol=0.05)


def test_a_run_in_bfloat16_resumes_bit_for_bit(tmp_path):
    rows = (torch.rand(200, 12, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    data = gb.data.load(rows, transform="identity")
    how = {"updates": 30, "batch_size": 50, "checkpoint_every": 10, "keep_last": 9, "precision": "bf16",
           "progress": False}  # fmt: skip
    whole = gb.train(models.rbm(12, 6), data, gb.PCD(chains=20), out=tmp_path / "a", **how)
    again = gb.resume(tmp_path / "a", data=data, checkpoint=10, progress=False)
    pairs = zip(whole.last.state_dict().items(), again.last.state_dict().items(), strict=True)
    assert all(j == k and torch.equal(a, b) for (j, a), (k, b) in pairs)
