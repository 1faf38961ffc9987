"""Recipes choose units that fit the data's columns."""

import numpy as np
import pytest

import gibbsian as gb
from gibbsian import recipes


def test_tables_of_mixed_columns_get_mixed_units(tmp_path) -> None:
    rng = np.random.default_rng(0)
    lines = ["age,smokes,colour,height"]
    for _ in range(60):
        colour = ("red", "green", "blue")[rng.integers(3)]
        lines.append(f"{rng.normal():.4f},{rng.integers(2)},{colour},{rng.normal():.4f}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    recipe = recipes.find("rbm")
    data = recipes.load_data(recipe, path)
    machine = recipes.build("rbm", data, 4)
    kinds = [m["kind"] for m in machine.layers[0].config["members"]]
    assert sorted(kinds) == ["Bernoulli", "Gaussian", "Gaussian", "Softmax"]
    result = gb.train(machine, data, updates=30, batch_size=10, progress=False)
    samples = gb.sample(result.machine, 5, 20).samples
    result.machine.check(samples)


def test_neighbouring_one_hot_blocks_of_one_width_become_one_softmax_layer() -> None:
    units = recipes.visible_units([("onehot", 3), ("onehot", 3), ("onehot", 2)])
    assert [m.config for m in units.members] == [
        {"groups": 2, "categories": 3},
        {"groups": 1, "categories": 2},
    ]


@pytest.mark.parametrize("model", list(recipes.RECIPES))
def test_every_model_meets_digits(model: str) -> None:
    recipe = recipes.find(model)
    data = recipes.load_data(recipe, "digits", limit=200)
    machine = recipes.build(model, data, 5)
    machine.check(data.train.tensor())
    options = dict(recipe.settings) | {"updates": 4, "batch_size": 20, "progress": False}
    assert gb.train(machine, data, gb.PCD(**recipe.method), **options).step == 4


def test_columns_that_a_model_does_not_take_are_refused() -> None:
    data = gb.data.load("digits", transform="standardise-global")
    with pytest.raises(gb.DataError, match="real"):
        recipes.build("hopfield", data, 5)
    with pytest.raises(gb.GibbsianError, match="no model"):
        recipes.find("rmb")


def test_data_of_no_image_go_through_the_transform_of_tables(tmp_path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal([0, 50], [1, 9], (80, 2)))
    data = recipes.load_data(recipes.find("gaussian-rbm"), path)
    assert data.transform.names == ["standardise"]
    assert data.train.tensor().std(dim=0) == pytest.approx([1, 1], abs=0.02)
    pictures = recipes.load_data(recipes.find("gaussian-rbm"), "digits")
    assert pictures.transform.names[0] == "standardise-global"
    chosen = recipes.load_data(recipes.find("gaussian-rbm"), path, transform="identity")
    assert chosen.transform.names == ["identity"]


def test_a_machine_needs_hidden_units() -> None:
    data = gb.data.load("digits")
    with pytest.raises(gb.GibbsianError, match="at least 1, not 0"):
        recipes.build("rbm", data, 0)


def test_what_is_chosen_goes_before_the_recipe_and_whitening_needs_centred_coordinates() -> None:
    recipe = recipes.find("gaussian-rbm")
    assert recipes.settings(recipe, {"lr": 0.5}) == dict(recipe.settings) | {"lr": 0.5}
    assert "whiten" not in recipes.settings(recipe, {"center": False})
    # What was asked for by name is not left out in silence.
    assert recipes.settings(recipe, {"center": False, "whiten": 2.0})["whiten"] == 2.0
