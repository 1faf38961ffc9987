"""Deep Boltzmann machines: their names, depth 1 as the RBM, and bad input."""

import pytest
import torch

import gibbsian as gb
from gibbsian import recipes
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
