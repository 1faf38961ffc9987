"""Centred coordinates: the gradient is A Aᵀ · plain, and neither optimum nor distribution moves."""

import pytest
import torch
from torch import Generator, Tensor

from gibbsian import models, testing
from gibbsian.centring import Centring, Step
from gibbsian.estimators import CD
from gibbsian.machine import BoltzmannMachine
from gibbsian.regularizers import Penalty
from gibbsian.units import Bernoulli, Binomial, Gaussian, Mixed, ReLU, Softmax, Spin

MACHINES = {
    "bernoulli": lambda: models.rbm(3, 2),
    "spin-softmax": lambda: models.rbm(Spin(2), Softmax(1, 3)),
    "gaussian": lambda: models.gaussian_rbm(3, 2),
    "gaussian-fixed": lambda: models.gaussian_rbm(3, 2, learn_precision=False),
    "gaussian-relu": lambda: models.rbm(Gaussian(2), ReLU(2, learn=True)),
    "binomial-gaussian": lambda: models.rbm(Binomial(2, 2), Gaussian(2)),
    "mixed": lambda: models.rbm(Mixed([Gaussian(1), Bernoulli(2)]), Mixed([Spin(1), ReLU(1)])),
    "deep": lambda: models.layered(Bernoulli(3), Spin(2), Bernoulli(2)),
    "deep-real": lambda: models.layered(Gaussian(2), Gaussian(1), ReLU(2, learn=True)),
    "hopfield": lambda: models.hopfield(4, 2),
}


def _machine(name: str) -> BoltzmannMachine:
    machine = testing.perturbed(MACHINES[name](), 0.4, seed=3)
    fixed = MACHINES[name]()
    if name == "hopfield":
        machine.layers[1].load_state_dict(fixed.layers[1].double().state_dict())
    return machine


def _offsets(machine: BoltzmannMachine) -> list[Tensor]:
    generator = Generator().manual_seed(11)
    raw = [torch.randn(n, generator=generator).double() for n in machine.sizes]
    return Centring(machine).allowed(raw)


def _learned(machine: BoltzmannMachine) -> dict[str, Tensor]:
    return {k: p for k, p in machine.named_parameters() if p.requires_grad}


def _gradient(machine: BoltzmannMachine) -> dict[str, Tensor]:
    generator = Generator().manual_seed(5)
    x = machine.layers[0].domain.noise(9, generator).double()
    phases = CD(2).step(machine, x, None, generator)
    return machine.gradient(phases.positive, phases.negative)


def _vector(values: dict[str, Tensor], names) -> Tensor:
    return torch.cat([values[k].flatten() for k in names])


def _jacobian(machine: BoltzmannMachine, offsets: list[Tensor]) -> Tensor:
    """A = ∂ parameters / ∂ centred coordinates, from the definition, by autograd.

    b_l = a'_l − Σ W μ over the neighbours, θ = θ' + γ μ where both are learned; all else is the
    same. The map is written out here with dense matrices, layer by layer.
    """
    learned = _learned(machine)
    names = list(learned)

    def back(*centred: Tensor) -> tuple[Tensor, ...]:
        c = dict(zip(names, centred, strict=True))
        out = dict(c)
        for i, u in enumerate(machine.layers):
            shift = torch.zeros(u.size).double()
            if i > 0:
                shift = shift - offsets[i - 1] @ c[f"connections.{i - 1}.weight"]
            if i < len(machine.joints):
                shift = shift - c[f"connections.{i}.weight"] @ offsets[i + 1]
            first = 0
            parts = [(f"units.{i}.members.{j}.", m) for j, m in enumerate(u.members)]
            for prefix, leaf in parts or [(f"units.{i}.", u)]:
                piece = slice(first, first + leaf.size)
                first += leaf.size
                if f"{prefix}bias" not in c:
                    continue
                move = shift[piece]
                if f"{prefix}log_precision" in c:
                    move = move + c[f"{prefix}log_precision"].exp() * offsets[i][piece]
                out[f"{prefix}bias"] = c[f"{prefix}bias"] + move
        return tuple(out[k] for k in names)

    values = tuple(p.detach().clone() for p in learned.values())
    blocks = torch.autograd.functional.jacobian(back, values)
    sizes = [v.numel() for v in values]
    return torch.cat(
        [
            torch.cat([blocks[i][j].reshape(m, n) for j, n in enumerate(sizes)], dim=1)
            for i, m in enumerate(sizes)
        ]
    )


def _sgd_step(machine, gradient, offsets, lr: float) -> dict[str, Tensor]:
    """Take one SGD step in centred coordinates; return the change of each parameter over lr."""
    learned = _learned(machine)
    before = {k: p.detach().clone() for k, p in learned.items()}
    for k, p in learned.items():
        p.grad = Centring(machine).pull_back(gradient, offsets)[k]
    optimizer = torch.optim.SGD(learned.values(), lr=lr)
    with Step(Centring(machine), offsets):
        optimizer.step()
    return {k: (p.detach() - before[k]) / lr for k, p in learned.items()}


@pytest.mark.parametrize("name", MACHINES)
def test_centred_gradient_is_a_a_transposed_times_plain(name):
    machine = _machine(name)
    offsets, gradient = _offsets(machine), _gradient(machine)
    a, names = _jacobian(machine, offsets), list(_learned(machine))
    plain = _vector(gradient, names)
    pulled = _vector(Centring(machine).pull_back(gradient, offsets), names)
    torch.testing.assert_close(pulled, a.T @ plain)
    step = _vector(_sgd_step(machine, gradient, offsets, lr=1e-7), names)
    torch.testing.assert_close(step, -(a @ a.T @ plain), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(step, -plain, rtol=1e-2, atol=1e-3), "nothing was centred"


@pytest.mark.parametrize("name", ["bernoulli", "spin-softmax"])
def test_sgd_step_is_the_closed_formula(name):
    """∂W from centred states, ∂a = Δ⟨v⟩ − ∂W h̄, ∂b = Δ⟨h⟩ − ∂Wᵀ v̄: one step is exact at any size."""
    machine = _machine(name)
    v_bar, h_bar = offsets = _offsets(machine)
    generator = Generator().manual_seed(5)
    x = machine.layers[0].domain.noise(9, generator).double()
    y = machine.layers[0].domain.noise(6, generator).double()

    def centred(v):
        with torch.no_grad():
            h = machine.layers[1].conditional(machine.joints[0].up(v))["bias"]
        return v.mean(0), h.mean(0), (v - v_bar).T @ (h - h_bar) / len(v)

    (dv, dh, dw), (mv, mh, mw) = centred(x), centred(y)
    w = dw - mw
    a, b = dv - mv - w @ h_bar, dh - mh - w.T @ v_bar
    with torch.no_grad():
        gradient = machine.gradient(
            machine.mean_statistics((x,), 1), machine.mean_statistics((y,), 1)
        )
    step = _sgd_step(machine, gradient, offsets, lr=0.7)
    torch.testing.assert_close(step["connections.0.weight"], w)
    torch.testing.assert_close(step["units.0.bias"], a)
    torch.testing.assert_close(step["units.1.bias"], b)


def test_deep_step_takes_both_neighbours():
    """∂b_l = Δ⟨s_l⟩ − ∂W_{l−1}ᵀ μ_{l−1} − ∂W_l μ_{l+1}."""
    machine = _machine("deep")
    offsets, gradient = _offsets(machine), _gradient(machine)
    step = _sgd_step(machine, gradient, offsets, lr=0.3)
    w0, w1 = step["connections.0.weight"], step["connections.1.weight"]
    middle = -gradient["units.1.bias"] - w0.T @ offsets[0] - w1 @ offsets[2]
    torch.testing.assert_close(step["units.1.bias"], middle)
    top = -gradient["units.2.bias"] - w1.T @ offsets[1]
    torch.testing.assert_close(step["units.2.bias"], top)


def test_gaussian_precision_takes_centred_squares():
    """∂γ = −½ Δ⟨(v−μ)²⟩, ∂ζ = γ ∂γ, and θ gains μ ∂γ."""
    machine = _machine("gaussian")
    offsets = _offsets(machine)
    generator = Generator().manual_seed(5)
    x, y = (torch.randn(n, 3, generator=generator).double() for n in (9, 6))
    with torch.no_grad():
        gradient = machine.gradient(
            machine.mean_statistics((x,), 1), machine.mean_statistics((y,), 1)
        )
        gamma = machine.layers[0].log_precision.exp().clone()
    mu = offsets[0]
    d_gamma = -0.5 * (((x - mu) ** 2).mean(0) - ((y - mu) ** 2).mean(0))
    pulled = Centring(machine).pull_back(gradient, offsets)
    torch.testing.assert_close(pulled["units.0.log_precision"], -gamma * d_gamma)
    lr = 1e-6
    step = _sgd_step(machine, gradient, offsets, lr)
    torch.testing.assert_close(step["units.0.log_precision"], gamma * d_gamma, rtol=1e-6, atol=1e-8)
    w = step["connections.0.weight"]
    # A step of ζ by γ ∂γ moves γ by γ² ∂γ.
    theta = x.mean(0) - y.mean(0) - w @ offsets[1] + mu * gamma**2 * d_gamma
    torch.testing.assert_close(step["units.0.bias"], theta, rtol=1e-4, atol=1e-5)


def test_the_fixed_hidden_layer_of_a_hopfield_machine_stays():
    machine = _machine("hopfield")
    offsets = _offsets(machine)
    assert not bool(offsets[0].any()), "its bias could not make up for a shifted visible layer"
    assert bool(offsets[1].any())
    gradient = _gradient(machine)
    step = _sgd_step(machine, gradient, offsets, lr=0.1)
    assert set(step) == {"units.0.bias", "connections.0.weight"}
    hidden = machine.layers[1]
    assert not bool(hidden.bias.any()) and not bool(hidden.log_precision.any())
    w = -(gradient["connections.0.weight"] - torch.outer(gradient["units.0.bias"], offsets[1]))
    torch.testing.assert_close(step["connections.0.weight"], w)
    torch.testing.assert_close(step["units.0.bias"], -gradient["units.0.bias"] - w @ offsets[1])


@pytest.mark.parametrize("name", MACHINES)
def test_a_step_that_moves_nothing_changes_nothing(name):
    """Coordinates alone never change the distribution."""
    machine = _machine(name)
    before = {k: p.clone() for k, p in machine.state_dict().items()}
    with Step(Centring(machine), _offsets(machine)):
        pass
    for k, p in machine.state_dict().items():
        torch.testing.assert_close(p, before[k], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", MACHINES)
def test_zero_offsets_are_no_centring(name):
    machine = _machine(name)
    zero = [torch.zeros(n).double() for n in machine.sizes]
    gradient = _gradient(machine)
    for k, g in Centring(machine).pull_back(gradient, zero).items():
        torch.testing.assert_close(g, gradient[k])
    step = _sgd_step(machine, gradient, zero, lr=0.1)
    for k, g in step.items():
        torch.testing.assert_close(g, -gradient[k])


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "mixed", "deep"])
def test_adam_steps_in_centred_coordinates_and_is_mapped_back(name):
    """The same as Adam run on centred parameters themselves, for three steps."""
    machine, offsets = _machine(name), _offsets(_machine(name))
    learned = _learned(machine)
    names = list(learned)
    ours = torch.optim.Adam(learned.values(), lr=0.05)
    centred = {k: torch.zeros_like(p).requires_grad_() for k, p in learned.items()}
    start = {k: p.detach().clone() for k, p in learned.items()}
    theirs = torch.optim.Adam(centred.values(), lr=0.05)
    for _ in range(3):
        gradient = _gradient(machine)
        pulled = Centring(machine).pull_back(gradient, offsets)
        for k in names:
            learned[k].grad, centred[k].grad = pulled[k], pulled[k].clone()
        with Step(Centring(machine), offsets):
            ours.step()
        theirs.step()
        moved = {k: c.detach() for k, c in centred.items()}
        for k in names:
            if not k.endswith("bias"):
                torch.testing.assert_close(learned[k].detach(), start[k] + moved[k])
        for k, truth in _biases(machine, offsets, start, moved).items():
            torch.testing.assert_close(learned[k].detach(), truth)
    plain = {k: start[k] + moved[k] for k in names}
    assert any(not torch.allclose(plain[k], learned[k].detach(), atol=1e-3) for k in names)


def _biases(machine, offsets, start, moved) -> dict[str, Tensor]:
    """Map moved centred coordinates back: b = start + Δa' − Σ ΔW μ + μ Δγ."""
    out = {}
    for i, u in enumerate(machine.layers):
        shift = torch.zeros(u.size).double()
        if i > 0:
            shift = shift - offsets[i - 1] @ moved[f"connections.{i - 1}.weight"]
        if i < len(machine.joints):
            shift = shift - moved[f"connections.{i}.weight"] @ offsets[i + 1]
        first = 0
        parts = [(f"units.{i}.members.{j}.", m) for j, m in enumerate(u.members)]
        for prefix, leaf in parts or [(f"units.{i}.", u)]:
            piece, name = slice(first, first + leaf.size), f"{prefix}bias"
            first += leaf.size
            if name in start:
                out[name] = start[name] + moved[name] + shift[piece]
                zeta = f"{prefix}log_precision"
                if zeta in start:
                    change = (start[zeta] + moved[zeta]).exp() - start[zeta].exp()
                    out[name] = out[name] + change * offsets[i][piece]
    return out


def _exact_gradient(
    machine: BoltzmannMachine, x: Tensor, states: tuple[Tensor, ...], penalty: Penalty
) -> dict[str, Tensor]:
    """The gradient of −log p over all states of a machine, plus a penalty's."""
    with torch.no_grad():
        positive = machine.mean_statistics((x,), 1)
        weights = (-machine.energy(states)).softmax(dim=0)
        gradient = machine.gradient(positive, machine.mean_statistics(states, None, weights))
        penalty.add(machine, gradient)
    return gradient


@pytest.mark.parametrize("late", [False, True], ids=["plain", "after-centring"])
def test_penalties_in_the_plain_gradient_leave_the_optimum_where_it_is(late):
    """Exact descent to the penalised optimum, centred: the plain gradient vanishes there.

    The twin adds the penalty after centring, and ends elsewhere.
    """
    machine = testing.perturbed(models.rbm(2, 1), 0.3, seed=1)
    x = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]).double()
    penalty, none = Penalty(l2={"connections.*": 0.02, "units.*": 0.05}), Penalty()
    with torch.no_grad():
        machine.joints[0].weight.fill_(2.0)
    offsets = [x.mean(dim=0), torch.tensor([0.6]).double()]
    states = testing.enumerate_states(machine).states
    for _ in range(600):
        gradient = _exact_gradient(machine, x, states, none if late else penalty)
        pulled = Centring(machine).pull_back(gradient, offsets)
        if late:
            penalty.add(machine, pulled)
        for k, p in _learned(machine).items():
            p.grad = pulled[k]
        with Step(Centring(machine), offsets), torch.no_grad():
            for p in machine.parameters():
                p.sub_(0.5 * p.grad)
    rest = _exact_gradient(machine, x, states, penalty)
    size = max(float(g.abs().max()) for g in rest.values())
    assert float(machine.joints[0].weight.detach().abs().max()) > 0.5, (
        "the penalty would not matter"
    )
    assert (size > 1e-2) if late else (size < 1e-4), size


@pytest.mark.parametrize("name", MACHINES)
def test_centred_rows_are_the_gradient_pulled_back(name):
    """Rows of both phases, whose weights sum to 0, need no outer products."""
    machine = _machine(name)
    generator = Generator().manual_seed(5)
    x = machine.layers[0].domain.noise(9, generator).double()
    offsets = _offsets(machine)
    with torch.no_grad():
        rows = CD(2).step(machine, x, None, generator).gradient(machine, machine.learned())
        assert all(rows.rows(f"connections.{i}.weight") for i in range(len(machine.joints)))
        pulled = Centring(machine).pull_back(rows, offsets)
        truth = Centring(machine).pull_back(dict(rows), offsets)
    assert set(pulled) == set(truth)
    for k, g in truth.items():
        torch.testing.assert_close(pulled[k], g, msg=lambda m, k=k: f"{k}: {m}")


@pytest.mark.parametrize("kept", [False, True], ids=["tensors", "rows"])
@pytest.mark.parametrize("name", [n for n in MACHINES if Centring(MACHINES[n]()).is_linear])
def test_a_gradient_pushed_forward_is_the_step_mapped_back(name, kept):
    machine = _machine(name)
    generator = Generator().manual_seed(5)
    x = machine.layers[0].domain.noise(9, generator).double()
    offsets = _offsets(machine)
    with torch.no_grad():
        plain = CD(2).step(machine, x, None, generator).gradient(machine, machine.learned())
        pulled = Centring(machine).pull_back(plain if kept else dict(plain), offsets)
        Centring(machine).push_forward(pulled, offsets)
    step = _sgd_step(machine, dict(plain), offsets, lr=0.3)
    assert set(step) == set(pulled)
    for k, g in step.items():
        torch.testing.assert_close(pulled[k], -g, msg=lambda m, k=k: f"{k}: {m}")


def test_only_machines_without_learned_precisions_are_linear():
    found = {n for n in MACHINES if Centring(MACHINES[n]()).is_linear}
    assert {"bernoulli", "gaussian-fixed", "deep", "hopfield"} <= found
    assert not found & {"gaussian", "gaussian-relu", "mixed", "deep-real"}
