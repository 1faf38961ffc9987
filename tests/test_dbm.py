"""Deep Boltzmann machines: their names, depth 1 as the RBM, and bad input."""

import math

import pytest
import torch

import gibbsian as gb
from gibbsian import evaluators, recipes, testing
from gibbsian.cli import options as opt

DIGITS = {"limit": 120}


def test_sizes_and_units_of_any_depth() -> None:
    assert gb.dbm(6, [5, 4, 3]).sizes == (6, 5, 4, 3)
    assert gb.dbm(gb.Gaussian(6), (5, gb.Spin(4))).sizes == (6, 5, 4)
    kinds = [type(u) for u in gb.dbm(gb.Gaussian(6), (5, gb.Spin(4))).layers]
    assert kinds == [gb.Gaussian, gb.Bernoulli, gb.Spin]


@pytest.mark.parametrize("hidden", [4, [4], (4,)])
def test_one_hidden_layer_is_the_rbm(hidden) -> None:
    """Trained alike, bit for bit."""
    found = []
    for machine in (gb.rbm(64, 4), gb.dbm(64, hidden)):
        result = gb.train(machine, "digits", updates=12, batch_size=20, seed=3, progress=False)
        found.append(result.last.state_dict() | {"chains": result.chains.layers[1]})  # type: ignore[union-attr]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])


def test_recipes_take_lists_for_deep_models_only() -> None:
    data = recipes.load_data(recipes.find("dbm"), "digits", **DIGITS)
    assert recipes.build("dbm", data, [5, 4]).sizes == (64, 5, 4)
    assert recipes.build("dbm", data, 5).sizes == (64, 5)
    assert recipes.build("dbm", data).sizes == (64, 500, 1000)
    assert recipes.build("rbm", data, [5]).sizes == (64, 5)
    with pytest.raises(gb.GibbsianError, match="has one hidden layer, and 2 sizes were given"):
        recipes.build("rbm", data, [5, 4])


@pytest.mark.parametrize("hidden", [0, -1, [3, 0], []])
def test_impossible_sizes_are_refused(hidden) -> None:
    data = recipes.load_data(recipes.find("dbm"), "digits", **DIGITS)
    with pytest.raises(gb.GibbsianError, match="at least"):
        recipes.build("dbm", data, hidden)
    with pytest.raises(gb.GibbsianError, match="at least"):
        gb.dbm(4, hidden)


def test_sizes_on_the_command_line() -> None:
    assert opt.sizes("500", "--hidden") == 500
    assert opt.sizes("20, 20,3", "--hidden") == [20, 20, 3]
    for text in ("", "5,", "5,,4", "-3", "0", "2.5", "5;4", "five", "٣"):
        with pytest.raises(gb.GibbsianError, match="--hidden takes numbers"):
            opt.sizes(text, "--hidden")


@pytest.mark.parametrize(
    "make", [lambda: gb.dbm(4, [3, 2]), lambda: gb.dbm(gb.Spin(3), [3, gb.Softmax(1, 3), 2])]
)
def test_distribution_log_z_and_gradient_are_the_listed_ones(make) -> None:
    machine = testing.perturbed(make(), 0.6, seed=3)
    testing.check_machine(machine)
    testing.check_sampler(gb.Gibbs(), machine, chains=4000, steps=30)
    truth = testing.enumerate_states(machine).log_z
    assert evaluators.log_z(machine) == pytest.approx(truth, abs=1e-9)


def _exact(machine: gb.BoltzmannMachine, x: torch.Tensor) -> torch.Tensor:
    """log p(v) of rows under two hidden layers of bits: the top one is listed, the other summed out."""
    (top,) = next(evaluators.states([machine.layers[2]], 2 ** machine.sizes[2]))
    with torch.no_grad():
        logs = [-machine.marginal_energy((v.expand(len(top), -1), top, top)) for v in x]
    return torch.stack(logs).logsumexp(dim=1) - evaluators.log_z(machine)


def test_centred_it_learns_without_pre_training() -> None:
    """By the exact likelihood of the patterns: far beyond independent bits, with the bound below it."""
    data = gb.data.load("bars-and-stripes", validation=0, test=0)
    x = data.train.tensor().unique(dim=0)
    found = {}
    for updates in (1, 300):
        machine = gb.dbm(data.n_features, [8, 6])
        options = {"updates": updates, "batch_size": 15, "lr": 1.0, "seed": 1, "progress": False}
        machine = gb.train(machine, data, log_every=updates, **options).machine
        found[updates] = float(_exact(machine, x).mean())
        bound = evaluators.variational_bound(machine, x, evaluators.log_z(machine)).mean()
        assert float(bound) <= found[updates] + 1e-6
    independent = -16 * math.log(2)
    assert found[1] < independent + 0.5
    assert independent + 5 < found[300] < -math.log(len(x))


def test_means_of_the_positive_phase_move_the_offsets_of_every_layer() -> None:
    seen = []

    class Look(gb.callbacks.Callback):
        def on_end(self, trainer) -> None:
            seen.extend(trainer.offsets)

    gb.train(gb.dbm(64, [5, 4, 3]), "digits", updates=10, callbacks=[Look()], progress=False)
    assert [len(o) for o in seen] == [64, 5, 4, 3]
    assert all(float((o - 0.5).abs().max()) > 1e-4 for o in seen)
