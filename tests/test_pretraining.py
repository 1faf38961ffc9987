"""Greedy pre-training: what doubling means, what composing promises, and a run that is killed."""

import pytest
import torch
from command_line import call, works
from torch import Generator

import gibbsian as gb
from gibbsian import pretraining, stacking, testing
from gibbsian.evaluators import exact
from gibbsian.training import Trainer


def _random(*layers, seed: int = 0, scale: float = 0.8) -> gb.BoltzmannMachine:
    return testing.perturbed(gb.layered(*layers), scale, seed=seed)


def _all(n: int) -> torch.Tensor:
    (x,) = next(exact.states([gb.Bernoulli(n)], 2**n))
    return x.double()


def _hidden(rbm: gb.BoltzmannMachine, summed: int) -> torch.Tensor:
    """log p of each state of the layer that is not summed, by enumeration, in order of states."""
    m = rbm.sizes[1 - summed]
    h = _all(m)
    with torch.no_grad():
        logits = -rbm.marginal_energy((h, h), summed)
    return logits - logits.logsumexp(dim=0)


def _tied(rbm: gb.BoltzmannMachine) -> gb.BoltzmannMachine:
    """An RBM with two copies of the visible bits side by side, of the same couplings and biases."""
    a, b = rbm.layers
    copies = gb.rbm(2 * a.size, b.size).double()
    with torch.no_grad():
        copies.joints[0].weight.copy_(rbm.joints[0].weight.repeat(2, 1))
        copies.layers[0].bias.copy_(a.bias.repeat(2))
        copies.layers[1].bias.copy_(b.bias)
    return copies


def test_a_doubled_layer_is_two_tied_copies() -> None:
    """Exactly: log Z, the law of the other layer, conditionals, and the gradient at v + v."""
    rbm = _random(gb.Binomial(3, 2), gb.Bernoulli(4))
    tied = _tied(rbm)
    assert exact.log_z(rbm) == pytest.approx(exact.log_z(tied), abs=1e-9)
    torch.testing.assert_close(_hidden(rbm, 0), _hidden(tied, 0))
    v, h = _all(3), _all(4)
    with torch.no_grad():
        both = torch.cat([v, v], dim=1)
        mean = rbm.layers[1].conditional(rbm.field(1, (2 * v, h)))["bias"]
        torch.testing.assert_close(
            mean, tied.layers[1].conditional(tied.field(1, (both, h)))["bias"]
        )
        counts = rbm.layers[0].conditional(rbm.field(0, (v, h)))["bias"]
        copies = tied.layers[0].conditional(tied.field(0, (v, h)))["bias"]
        torch.testing.assert_close(counts, copies[:, :3] + copies[:, 3:])
        one = rbm.mean_statistics((2 * v, h), 1)["connections.0.weight"]
        two = tied.mean_statistics((both, h), 1)["connections.0.weight"]
        torch.testing.assert_close(one, two[:3] + two[3:])
    wrong = _random(gb.Bernoulli(3), gb.Bernoulli(4))  # couplings doubled instead of units
    with torch.no_grad():
        wrong.load_state_dict({k: p for k, p in rbm.state_dict().items() if "log_" not in k})
        wrong.joints[0].weight.mul_(2)
    assert float((_hidden(wrong, 0) - _hidden(tied, 0)).abs().max()) > 0.1


def test_composing_averages_both_laws_of_the_shared_layer() -> None:
    """p(h) ∝ √(p₁ p₂) and p(v | h) as before; couplings that are not as composed do otherwise."""
    first, second = (
        _random(gb.Binomial(3, 2), gb.Bernoulli(4)),
        _random(gb.Bernoulli(4), gb.Binomial(2, 2), seed=1),
    )
    machine = gb.dbm(3, [4, 2]).double()
    pretraining.compose(machine, [first, second])
    h = _all(4)

    def law() -> torch.Tensor:
        with torch.no_grad():
            logits = -machine.marginal_energy((h, h, h), 0)
        return logits - logits.logsumexp(dim=0)

    truth = (_hidden(first, 0) + _hidden(second, 1)) / 2
    truth = truth - truth.logsumexp(dim=0)
    torch.testing.assert_close(law(), truth)
    with torch.no_grad():
        ours = machine.layers[0].conditional(machine.field(0, (h, h, h)))["bias"]
        theirs = first.layers[0].conditional(first.field(0, (h, h)))["bias"]
        torch.testing.assert_close(ours, theirs / 2)
        machine.joints[1].weight.mul_(2)
    assert float((law() - truth).abs().max()) > 0.1


def _bound(log_v_given_h, log_h, q) -> torch.Tensor:
    """Σ_h q(h|v) [log p(v|h) + log p(h) − log q(h|v)] of each v."""
    return (q * (log_v_given_h + log_h - q.clamp(min=1e-300).log())).sum(dim=1)


def _laws(first, v, h) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(v | h) of one copy, and q(h | v) = p(h | v, v), as tables (v, h)."""
    with torch.no_grad():
        p = torch.sigmoid(first.joints[0].down(h) + first.layers[0].bias)
        log_v = v @ p.log().T + (1 - v) @ (1 - p).log().T
        m = torch.sigmoid(first.joints[0].up(2 * v) + first.layers[1].bias)
        q = (m.log() @ h.T + (1 - m).log() @ (1 - h).T).exp()
    return log_v, q


@pytest.mark.parametrize("seed", range(2))
def test_composing_does_not_lower_the_bound(seed: int) -> None:
    """bound(deep) = bound(first) + ½ E_q[log p₂ − log p₁] − log Σ√(p₁p₂), whatever the RBMs."""
    first = _random(gb.Binomial(3, 2), gb.Bernoulli(4), seed=seed)
    second = _random(gb.Bernoulli(4), gb.Binomial(5, 2), seed=seed + 10)
    machine = gb.dbm(3, [4, 5]).double()
    v, h = _all(3), _all(4)
    log_v, q = _laws(first, v, h)
    for steps in (0, 200):
        if steps:
            _learn(second, q.mean(dim=0), steps)
        pretraining.compose(machine, [first, second])
        one, two = _hidden(first, 0), _hidden(second, 1)
        with torch.no_grad():
            logits = -machine.marginal_energy((h, h, h), 0)
        deep = _bound(log_v, logits - logits.logsumexp(dim=0), q)
        start = _bound(log_v, one, q)
        gain = q @ (two - one) / 2
        overlap = ((one + two) / 2).logsumexp(dim=0)
        assert float(overlap) < 0
        torch.testing.assert_close(deep, start + gain - overlap)
        exact_v = -exact.log_z(machine) + torch.tensor(
            [testing.machines.posterior(machine, row).log_z for row in v]
        )
        assert bool((deep <= exact_v + 1e-9).all())
    # After training the second RBM on the first one's states the bound has risen.
    assert float(gain.mean()) > 0 and float(deep.mean()) > float(start.mean())


def _learn(rbm, weights, steps: int) -> None:
    """Follow the exact gradient of Σ_h weight(h) log p(h)."""
    h = _all(rbm.sizes[0])
    table = testing.enumerate_states(rbm)
    step = torch.optim.Adam(list(rbm.learned().values()), lr=0.05)
    for _ in range(steps):
        with torch.no_grad():
            table = testing.enumerate_states(rbm)
            positive = rbm.mean_statistics((h, h), 1, weights)
            negative = rbm.mean_statistics(table.states, None, table.probabilities)
            for k, g in rbm.gradient(positive, negative).items():
                rbm.get_parameter(k).grad = g
        step.step()


def test_a_second_rbm_that_mirrors_the_first_composes_to_it() -> None:
    """Then the top layer is the second copy of the visible one, and nothing is lost: log Z is the same."""
    first = _random(gb.Binomial(3, 2), gb.Bernoulli(4))
    mirror = gb.layered(gb.Bernoulli(4), gb.Binomial(3, 2)).double()
    with torch.no_grad():
        mirror.joints[0].weight.copy_(first.joints[0].weight.T)
        mirror.layers[0].bias.copy_(first.layers[1].bias)
        mirror.layers[1].bias.copy_(first.layers[0].bias)
    machine = gb.dbm(3, [4, 3]).double()
    pretraining.compose(machine, [first, mirror])
    assert exact.log_z(machine) == pytest.approx(exact.log_z(first), abs=1e-9)


def test_every_shared_layer_takes_half_of_both_fields() -> None:
    """With copies equal, each field is the mean of those in the two RBMs: middle couplings are halved."""
    shape = gb.dbm(5, [4, gb.Gaussian(3), 2]).double()
    rbms = [testing.perturbed(m, 0.8, seed=i) for i, m in enumerate(pretraining.stack(shape))]
    assert [type(u).__name__ for m in rbms for u in m.layers] == [
        "Binomial", "Bernoulli", "Bernoulli", "Gaussian", "Gaussian", "Binomial",
    ]  # fmt: skip
    pretraining.compose(shape, rbms)
    s = [u.domain.noise(6, Generator().manual_seed(i)).double() for i, u in enumerate(shape.layers)]
    doubled = [2 * s[0], s[1], s[2], 2 * s[3]]
    with torch.no_grad():
        for i in (1, 2):
            below, above = rbms[i - 1], rbms[i]
            low = below.joints[0].up(doubled[i - 1]) + below.layers[1].bias
            high = above.joints[0].down(doubled[i + 1]) + above.layers[0].bias
            found = shape.field(i, s) + shape.layers[i].bias
            torch.testing.assert_close(found, (low + high) / 2)
        precision = [m.log_precision.exp() for m in (rbms[1].layers[1], rbms[2].layers[0])]
        torch.testing.assert_close(shape.layers[2].log_precision.exp(), sum(precision) / 2)


def test_fixed_parameters_stay_at_their_values() -> None:
    machine = gb.dbm(5, [4, gb.Gaussian(3), 2])
    fixed = machine.layers[2].get_parameter("log_precision")
    fixed.data.fill_(1.5)
    fixed.requires_grad_(False)
    rbms = pretraining.stack(machine)
    for units in (rbms[1].layers[1], rbms[2].layers[0]):
        precision = units.get_parameter("log_precision")
        assert not precision.requires_grad
        assert torch.equal(precision, fixed)
        assert units.get_parameter("bias").requires_grad
    pretraining.compose(machine, rbms)
    torch.testing.assert_close(fixed.data, torch.full((3,), 1.5))


def test_what_has_no_doubling_is_refused() -> None:
    for machine, words in (
        (gb.rbm(4, 3), "two or more hidden layers"),
        (
            gb.dbm(gb.Gaussian(4), [3, 2]),
            "doubles the visible layer, and two tied copies of Gaussian",
        ),
        (gb.dbm(4, [3, gb.Spin(2)]), "doubles the top layer, and two tied copies of Spin"),
        (gb.dbm(gb.Mixed([gb.Bernoulli(2), gb.Softmax(1, 3)]), [3, 2]), "copies of Mixed"),
    ):
        with pytest.raises(gb.TrainingError, match=words):
            pretraining.stack(machine)
        with pytest.raises(gb.TrainingError, match=words):
            gb.train(
                machine, torch.zeros(9, machine.sizes[0]), pretrain=1, updates=1, progress=False
            )
    mixed = gb.dbm(gb.Mixed([gb.Bernoulli(2), gb.Binomial(1, 3)]), [3, 2])
    trials = [m.trials for m in pretraining.stack(mixed)[0].layers[0].members]
    assert trials == [2, 6]


OPTIONS = {"updates": 6, "batch_size": 20, "pretrain": 2, "progress": False, "seed": 4}


def _train(out=None) -> gb.Trained:
    data = gb.data.load("digits", limit=120)
    return gb.train(gb.dbm(64, [6, 5, 4]), data, gb.PCD(chains=10), out=out, **OPTIONS)


class _Killed(BaseException):
    """What stands for a kill."""


@pytest.mark.parametrize("after", [3, 16, 40])
def test_a_run_killed_while_pre_training_goes_on_bit_for_bit(after, tmp_path, monkeypatch) -> None:
    """Killed in layer 1, 2 or 3, or in the joint training: what is finished is not done again."""
    whole, count, update = _train().machine.state_dict(), [0], Trainer._update

    def counted(self, x, weights):
        if count[0] == after:
            raise _Killed
        count[0] += 1
        return update(self, x, weights)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", counted)
        with pytest.raises(_Killed):
            _train(tmp_path / "run")
    count[0] = -100
    monkeypatch.setattr(Trainer, "_update", counted)
    result = gb.resume(tmp_path / "run", progress=False)
    assert all(torch.equal(p, whole[k]) for k, p in result.machine.state_dict().items())
    # 12 updates each layer and 6 together; a layer's checkpoints are at most 1 update old.
    assert count[0] + 100 <= 3 * 12 + 6 - after + 1
    layers = sorted(p.name for p in (tmp_path / "run" / "layers").iterdir())
    assert layers == ["1", "2", "3"]


def test_an_overwritten_run_forgets_its_layers(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = (
        "train",
        "digits",
        "--limit",
        100,
        "--batch-size",
        20,
        "--updates",
        2,
        "--out",
        "run",
    )
    works(*options, "--model", "dbm", "--hidden", "5,4,3", "--pretrain", 1)
    works(*options, "--model", "dbm", "--hidden", "4,3", "--pretrain", 1, "--overwrite")
    assert sorted(p.name for p in (tmp_path / "run" / "layers").iterdir()) == ["1", "2"]
    found = call(*options, "--hidden", 5, "--pretrain", 1, "--overwrite")
    assert "two or more hidden layers" in found.sentence
    found = call(*options, "--model", "dbm", "--pretrain", -1, "--overwrite")
    assert "pretrain must be a whole number" in found.sentence
    with pytest.raises(gb.RunError, match="array in memory"):
        print(gb.load("run/layers/2").data)


def test_pre_trained_layers_start_the_joint_training() -> None:
    data = gb.data.load("digits", limit=120)

    class Look(gb.callbacks.Callback):
        def on_start(self, trainer) -> None:
            self.start = trainer.machine.joints[0].weight.clone()
            assert torch.equal(trainer.averaged.joints[0].weight, self.start)

    look, plain, again = Look(), Look(), Look()
    for hook, epochs in ((look, 1), (plain, 0), (again, 1)):
        gb.train(gb.dbm(64, [6, 5]), data, callbacks=[hook], **OPTIONS | {"pretrain": epochs})
    assert torch.equal(look.start, again.start) and not torch.equal(look.start, plain.start)


def test_doubled_rows_feed_the_first_rbm() -> None:
    data = gb.data.load("digits", limit=120)
    seen = []

    def fit(rbm, rows, number, place):
        x = rows.train.tensor(20)
        rbm.check(x)
        seen.append(sorted(x.unique().tolist()))
        return rbm

    pretraining.pretrain(gb.dbm(64, [6, 5, 4]), data, fit)
    assert seen == [[0, 2], [0, 1], [0, 1]]
    assert stacking.Doubled(gb.Bernoulli(3))(torch.ones(1, 3), None).tolist() == [[2, 2, 2]]
