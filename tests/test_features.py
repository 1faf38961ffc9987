"""What units of any layer look for, and their states, against matrix products and enumeration."""

import itertools

import numpy as np
import pytest
import torch
from command_line import call, works

import gibbsian as gb
from gibbsian.features import features, hidden_layer, projection, transform


def random_machine(*units: gb.Units, scale: float = 0.7) -> gb.BoltzmannMachine:
    generator = torch.Generator().manual_seed(5)
    machine = gb.layered(*units).double()
    with torch.no_grad():
        for p in machine.learned().values():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return machine


DEEP = random_machine(gb.Bernoulli(5), gb.Bernoulli(4), gb.Bernoulli(3), gb.Bernoulli(2))


def test_features_are_products_of_couplings() -> None:
    w = [c.weight.detach() for c in DEEP.joints]
    assert torch.equal(features(DEEP, 1), w[0].T)
    assert torch.allclose(features(DEEP, 2), (w[0] @ w[1]).T)
    assert torch.allclose(features(DEEP, 3), (w[0] @ w[1] @ w[2]).T)
    assert torch.equal(features(DEEP, -1), features(DEEP, 3))
    assert torch.equal(features(DEEP, -3), features(DEEP, 1))
    wrong = (w[0] @ w[1].abs()).T
    assert not torch.allclose(features(DEEP, 2), wrong)


def test_features_follow_linear_fields() -> None:
    """Moving the pixels along a feature moves the unit's field by its squared norm, if units are linear."""
    found = features(DEEP, 2)
    field = found[1] @ DEEP.joints[0].weight @ DEEP.joints[1].weight
    assert float(field[1].detach()) == pytest.approx(float(found[1].square().sum()))


def test_projection_leaves_out_labels_beside_a_layer() -> None:
    """A top machine over a layer of 4 and 2 labels: only the layer leads down to the pixels."""
    low, top = gb.Dense(5, 4), gb.Dense(6, 3)
    for c in (low, top):
        c.weight.data.copy_(torch.randn(c.weight.shape, generator=torch.Generator().manual_seed(1)))
    expected = (low.weight @ top.weight[:4]).T
    assert torch.allclose(projection([low, top], 2), expected.detach())


@pytest.mark.parametrize(
    "units",
    [
        (gb.Bernoulli(4), gb.Bernoulli(3)),
        (gb.Spin(4), gb.Spin(3)),
        (gb.Softmax(2, 3), gb.Binomial(3, 2)),
    ],
)
def test_states_of_one_hidden_layer_are_exact(units) -> None:
    machine = random_machine(*units)
    tables = [t for t in machine.layers[1].domain.blocks() if t is not None]
    hidden = torch.tensor([[float(v[0]) for v in s] for s in itertools.product(*tables)]).double()
    v = machine.layers[0].sample(torch.zeros(6, machine.sizes[0]).double(), torch.Generator())
    log_p = torch.stack([-machine.energy((v, h.expand(6, -1))).detach() for h in hidden], dim=1)
    exact = log_p.softmax(dim=1) @ hidden
    assert torch.allclose(transform(machine, v), exact, atol=1e-6)
    assert not torch.allclose(transform(machine, v.flip(0)), exact, atol=1e-3)


def test_deep_states_come_near_the_exact_posterior() -> None:
    """Mean field of weak couplings, against enumeration; an upward pass alone is further off."""
    machine = random_machine(gb.Bernoulli(5), gb.Bernoulli(4), gb.Bernoulli(3), scale=0.6)
    v = torch.randint(0, 2, (8, 5), generator=torch.Generator().manual_seed(2)).double()
    states = [torch.tensor(list(itertools.product((0.0, 1.0), repeat=n))).double() for n in (4, 3)]
    pairs = [(a, b) for a in states[0] for b in states[1]]
    h1, h2 = (torch.stack([p[i] for p in pairs]) for i in (0, 1))
    many = (len(v), len(pairs))
    log_p = -machine.energy(
        (v[:, None].expand(*many, 5), h1.expand(*many, 4), h2.expand(*many, 3))
    ).detach()
    p = log_p.softmax(dim=1)
    for layer, h in ((1, h1), (2, h2)):
        exact = p @ h
        found = transform(machine, v, layer)
        up = torch.sigmoid(v @ machine.joints[0].weight + machine.layers[1].bias).detach()
        assert float((found - exact).abs().max()) < 0.05
        if layer == 1:
            assert float((found - exact).abs().mean()) < 0.3 * float((up - exact).abs().mean())


@pytest.mark.parametrize("layer", [0, 4, -4, 99])
def test_layers_that_are_not_there_get_a_sentence(layer) -> None:
    for call_it in (
        lambda: features(DEEP, layer),
        lambda: transform(DEEP, torch.zeros(2, 5), layer),
    ):
        with pytest.raises(gb.GibbsianError, match="layers are 1 to 3"):
            call_it()
    assert [hidden_layer(i, 3) for i in (1, 2, 3, -1, -2, -3)] == [1, 2, 3, 3, 2, 1]


def test_rows_that_do_not_fit_get_a_sentence() -> None:
    for rows in (torch.zeros(2, 4), torch.full((2, 5), 3.0), torch.zeros(0, 5)):
        with pytest.raises(gb.DataError):
            transform(DEEP, rows)


# --- on the command line -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    small = ("--updates", 20, "--limit", 200, "--quiet")
    works("train", "digits", "--hidden", 6, *small, "--out", folder / "rbm")
    table = folder / "table.npy"
    np.save(table, (np.random.default_rng(0).random((60, 7)) < 0.4).astype(np.float32))
    works("train", table, "--hidden", 3, "--updates", 5, "--quiet", "--out", folder / "table")
    works("train", "digits", "--model", "dbm", "--hidden", "6,4", *small, "--out", folder / "dbm")
    return folder


def test_command_draws_and_writes_states(runs, tmp_path) -> None:
    picture, values = tmp_path / "f.png", tmp_path / "h.npy"
    found = works("features", runs / "rbm", "--out", picture, "--values", values, "--count", 4)
    assert "4 of the 6 features of layer 1" in found.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    trained = gb.load(runs / "rbm")
    x = trained.data.test.tensor(generator=0)
    assert np.allclose(np.load(values), transform(trained.machine, x).numpy(), atol=1e-6)
    assert len(np.load(values)) == len(trained.data.test.labels)


def test_command_at_the_second_layer_and_on_a_table(runs, tmp_path) -> None:
    works(
        "features", runs / "dbm", "--layer", 2, "--values", tmp_path / "h.npy", "--split", "train"
    )
    assert (runs / "dbm" / "features-2.png").is_file()
    assert np.load(tmp_path / "h.npy").shape == (200, 4)
    works("features", runs / "table", "--layer", -1)
    assert (runs / "table" / "features-1.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rbm", "--layer", 2), "layer is 1"),
        (("dbm", "--layer", 3), "layers are 1 to 2"),
        (("rbm", "--layer", 0), "no hidden layer 0"),
        (("nowhere",), "nowhere"),
        (("rbm", "--out", "f.jpg"), "--out takes a file that ends in .png"),
        (("rbm", "--values", "h.npz"), "--values takes a file that ends in .npy"),
        (("rbm", "--values", "h.npy", "--split", "tset"), "--split takes"),
        (("rbm", "--count", 0), "--count"),
    ],
)
def test_mistakes_get_a_sentence(runs, arguments, words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = arguments
    before = sorted(runs.rglob("*.png"))
    assert words in call("features", runs / name, *rest).sentence
    assert sorted(runs.rglob("*.png")) == before  # nothing is drawn before all is known to fit
