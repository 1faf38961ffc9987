"""The usual machines under their names, and machines to and from files."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from gibbsian import models, testing
from gibbsian.errors import GibbsianError, RunError
from gibbsian.units import Bernoulli, Binomial, Gaussian, Mixed, ReLU, Softmax, Spin


def _kinds(machine):
    return [type(u) for u in machine.layers]


def test_whole_numbers_mean_the_usual_units():
    assert _kinds(models.rbm(4, 3)) == [Bernoulli, Bernoulli]
    assert _kinds(models.gaussian_rbm(4, 3)) == [Gaussian, Bernoulli]
    assert _kinds(models.relu_rbm(4, 3)) == [Gaussian, ReLU]
    assert _kinds(models.softmax_rbm(2, 3, 5)) == [Softmax, Bernoulli]
    assert _kinds(models.hopfield(4, 2)) == [Bernoulli, Gaussian]
    assert models.softmax_rbm(2, 3, 5).sizes == (6, 5)


def test_units_may_be_given():
    assert _kinds(models.rbm(Spin(4), Binomial(3))) == [Spin, Binomial]
    assert _kinds(models.gaussian_rbm(Gaussian(4, precision=2.0), Spin(3))) == [Gaussian, Spin]
    assert _kinds(models.relu_rbm(ReLU(2), ReLU(3))) == [ReLU, ReLU]
    assert _kinds(models.hopfield(Spin(4), 2)) == [Spin, Gaussian]


def test_precision_of_a_gaussian_rbm_may_be_fixed():
    assert models.gaussian_rbm(3, 2).layers[0].log_precision.requires_grad
    fixed = models.gaussian_rbm(3, 2, learn_precision=False)
    assert not fixed.layers[0].log_precision.requires_grad
    assert fixed.layers[0].bias.requires_grad


def test_hopfield_energy_is_hopfields():
    """Hidden units summed out: F(v) = −a·v − ½ Σ_μ (w_μ·v)² − (k/2) log 2π."""
    m = testing.perturbed(models.hopfield(Spin(5), 3), 0.0)
    assert [k for k, p in m.named_parameters() if p.requires_grad] == [
        "units.0.bias",
        "connections.0.weight",
    ]
    patterns = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        m.joints[0].weight.copy_(patterns)
        v = m.layers[0].domain.noise(6, torch.Generator().manual_seed(1)).double()
        found = m.free_energy(v)
    truth = -0.5 * ((v @ patterns) ** 2).sum(dim=1) - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize(
    "machine",
    [
        lambda: models.rbm(4, 3),
        lambda: models.gaussian_rbm(4, 3, learn_precision=False),
        lambda: models.hopfield(4, 2),
        lambda: models.layered(Mixed([Gaussian(1), Softmax(1, 3)]), Binomial(2, 5), ReLU(1)),
        lambda: models.rbm(4, 3).double(),
    ],
    ids=["rbm", "fixed-precision", "hopfield", "deep-mixed", "double"],
)
def test_a_saved_machine_comes_back_whole(machine, tmp_path):
    m = machine()
    with torch.no_grad():
        for p in m.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(3)).to(p))
    models.save(m, tmp_path / "m.safetensors")
    back = models.read(tmp_path / "m.safetensors")
    assert back.spec() == m.spec() == json.loads(json.dumps(m.spec()))
    old, new = dict(m.named_parameters()), dict(back.named_parameters())
    assert list(old) == list(new)
    for k, p in old.items():
        assert p.dtype == new[k].dtype and torch.equal(p, new[k])
        assert p.requires_grad == new[k].requires_grad, f"{k} changes between learned and fixed"


def test_a_description_without_fixed_parameters_is_accepted():
    spec = models.hopfield(3, 2).spec()
    del spec["fixed"]
    assert not models.from_spec(spec).layers[1].bias.requires_grad


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"connections": ["Conv"]}, "no connection called 'Conv'"),
        ({"units": [{"kind": "Bernoulli", "size": 2}, {"kind": "Nothing"}]}, "no units called"),
        ({"fixed": ["units.7.bias"]}, "no parameter 'units.7.bias'"),
        ({"units": None}, "lacks its units"),
        ({"dtype": "int8"}, "no machines of the type .int8."),
    ],
)
def test_a_description_of_something_else_is_refused(change, words):
    spec = {k: v for k, v in (models.rbm(2, 2).spec() | change).items() if v is not None}
    with pytest.raises(GibbsianError, match=words):
        models.from_spec(spec)


def test_missing_damaged_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(RunError, match="no machine file"):
        models.read(path)
    models.save(models.rbm(30, 20), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(RunError, match="not a readable machine file"):
        models.read(path)
    path.write_bytes(b"PK\x03\x04 not safetensors at all")
    with pytest.raises(RunError, match="not a readable machine file"):
        models.read(path)
    save_file({"x": torch.zeros(1)}, str(path))
    with pytest.raises(RunError, match="holds no gibbsian machine"):
        models.read(path)


@pytest.mark.parametrize(
    "text",
    ["{", '{"units": []}', json.dumps(models.rbm(3, 3).spec()), '{"units": 3, "connections": []}'],
    ids=["no-json", "half", "other-sizes", "no-list"],
)
def test_a_description_that_does_not_fit_its_parameters_is_named(text, tmp_path):
    path = tmp_path / "m.safetensors"
    models.save(models.rbm(2, 2), path)
    tensors = {k: t.detach() for k, t in models.rbm(2, 2).state_dict().items()}
    save_file(tensors, str(path), metadata={"format": "gibbsian-machine-1", "machine": text})
    with pytest.raises(RunError, match="does not fit its parameters"):
        models.read(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RunError, match="could not be written"):
        models.save(models.rbm(2, 2), tmp_path / "nowhere" / "m.safetensors")


def test_sizes_are_checked():
    with pytest.raises(GibbsianError, match="whole number of at least 1"):
        models.rbm(4, 0)
