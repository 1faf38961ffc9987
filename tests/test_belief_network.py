"""Deep belief networks against enumeration: generation, held labels, classification, and bad input."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Generator, Tensor

import gibbsian as gb
from gibbsian import belief, evaluators
from gibbsian.belief import DeepBeliefNetwork
from gibbsian.belief.directed import Directed
from gibbsian.errors import DataError, GibbsianError
from gibbsian.evaluators import states
from gibbsian.evaluators.deep_belief import bound, label_error, top_partition
from gibbsian.testing import Agreement


def shaken(network: torch.nn.Module, seed: int = 0, scale: float = 1.5) -> None:
    g = Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(0, scale, generator=g)


def small(
    sizes: tuple[int, ...] = (3, 2, 2), classes: tuple[int, ...] = (1, 4, 7)
) -> DeepBeliefNetwork:
    *lower, last = pairwise(sizes)
    machines = [gb.rbm(a, b) for a, b in lower]
    pen = belief.with_labels(gb.Bernoulli(last[0]), len(classes)) if classes else last[0]
    network = belief.stack([*machines, gb.rbm(pen, last[1])], classes)
    shaken(network)
    return network


def rows(units: gb.Units) -> Tensor:
    return torch.cat([part[0] for part in states([units])])


def truth(network: DeepBeliefNetwork) -> Tensor:
    """Table of p(v, y): rows of v by columns of classes, the pen and top layers summed out by hand."""
    top, layer = network.top, network.down_layers[0]
    full, hidden = rows(top.layers[0]), rows(top.layers[1])
    e = torch.stack([top.energy((full, h.expand(len(full), -1))) for h in hidden])
    p_top = (-e).logsumexp(dim=0).softmax(dim=0)
    v = rows(network.visible)
    # p(v | pen) from the energy of the layer alone: exp(f·v − e(v)), normalised over all v.
    f = full[:, : network.pen].double() @ layer.connection.weight.T.double()
    bias = layer.units.get_parameter("bias").double()
    given = (v.double() @ (f + bias).T).softmax(dim=0)
    labels = full[:, network.pen :].argmax(dim=1)
    table = torch.zeros(len(v), len(network.classes), dtype=torch.float64)
    return table.index_add_(1, labels, (given * p_top).detach())


def compared(network: DeepBeliefNetwork, table: Tensor, label: int | None, n: int = 4000) -> float:
    """How well generated rows agree with a table of p(v, y); raises where they do not."""
    found = network.generate(n, 60, label=label, generator=5)
    v = rows(network.visible)
    assert found.labels is not None
    index = (found.samples[:, None] == v).all(dim=2).double().argmax(dim=1)
    column = torch.tensor([network.classes.index(int(y)) for y in found.labels])
    counts = torch.zeros_like(table).flatten()
    counts.index_add_(0, index * table.shape[1] + column, torch.ones(n, dtype=torch.float64))
    truth = Agreement()
    truth.histogram("v and y", counts, table.flatten())
    return truth.require("generation")


def test_free_generation_is_the_networks_distribution() -> None:
    network = small()
    compared(network, truth(network), None)


def test_a_held_label_conditions_the_top_machine() -> None:
    network = small()
    table = truth(network)
    given = torch.zeros_like(table)
    given[:, 1] = table[:, 1] / table[:, 1].sum()
    compared(network, given, 4)


def test_wrong_twins_of_generation_fail() -> None:
    """Another class' distribution, and a pass down by the recognition weights."""
    network = small()
    table = truth(network)
    given = torch.zeros_like(table)
    given[:, 1] = table[:, 2] / table[:, 2].sum()
    with pytest.raises(AssertionError):
        compared(network, given, 4)
    with torch.no_grad():
        up = network.up_layers[0].connection.weight
        network.down_layers[0].connection.weight.copy_(up)
    with pytest.raises(AssertionError):
        compared(network, table, None)


def test_every_row_may_have_its_own_class() -> None:
    network = small()
    wanted = torch.tensor([1, 7, 7, 4, 1])
    found = network.generate(5, 3, label=wanted)
    assert found.labels is not None
    assert torch.equal(found.labels, wanted)


def test_samples_are_samples_and_means_are_means() -> None:
    network = small()
    found = network.generate(50, 3)
    assert set(found.samples.unique().tolist()) <= {0.0, 1.0}
    assert bool(((found.means > 0) & (found.means < 1)).all())


def test_label_probabilities_are_those_of_the_top_machine() -> None:
    """p(y | pen) from enumeration of the top layer; with one pass of samples, pen is what was drawn."""
    network = small()
    v = rows(network.visible)
    pen = network.up(v, Generator().manual_seed(3))[-1]
    logits = []
    for i in range(3):
        full = torch.cat([pen, torch.eye(3)[i].expand(len(pen), 3)], dim=1)
        hidden = rows(network.top.layers[1])
        e = torch.stack([network.top.energy((full, h.expand(len(full), -1))) for h in hidden])
        logits.append((-e).logsumexp(dim=0))
    expected = torch.stack(logits, dim=1).log_softmax(dim=1)
    found = network.label_log_probabilities(v, 1, Generator().manual_seed(3))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    best = torch.tensor(network.classes)[network.label_log_probabilities(v).argmax(dim=1)]
    assert torch.equal(network.classify(v), best)


def test_chunks_do_not_change_a_class(monkeypatch) -> None:
    network = small()
    v = rows(network.visible)
    whole = network.label_log_probabilities(v)
    monkeypatch.setattr(belief.network, "_CHUNK_ELEMENTS", 1)
    torch.testing.assert_close(network.label_log_probabilities(v), whole)


def test_many_passes_average_probabilities() -> None:
    network = small()
    v = rows(network.visible)[:1]
    found = network.label_log_probabilities(v.expand(1, -1), 600, 1).exp()[0]
    layer, total = network.up_layers[0], torch.zeros(3, dtype=torch.float64)
    for pen in rows(layer.units):
        p = layer.log_probability(pen[None], v).exp()
        total += (p * network.labels.log_weights(pen[None]).softmax(dim=1))[0].detach()
    torch.testing.assert_close(found, total, rtol=0.05, atol=0.01)


def test_depth_one_samples_as_the_rbm_does() -> None:
    machine = gb.rbm(6, 5)
    shaken(machine)
    network = belief.stack([machine])
    one, other = (
        gb.sample(machine, 8, 20, generator=2), network.generate(8, 20, generator=2)
    )  # fmt: skip
    assert torch.equal(one.samples, other.samples)
    assert torch.equal(one.means, other.means)
    assert network.sizes == machine.sizes
    assert other.labels is None


@pytest.mark.parametrize("units", [
    gb.Bernoulli(3), gb.Spin(3), gb.Gaussian(3), gb.Softmax(1, 3), gb.Binomial(3, 4), gb.ReLU(3),
    gb.Mixed([gb.Bernoulli(1), gb.Softmax(1, 2)]),
], ids=lambda u: type(u).__name__)  # fmt: skip
def test_any_units_lie_at_the_bottom(units: gb.Units) -> None:
    """log p(s | x) is normalised where it can be added up, and its gradient is autograd's."""
    layer = Directed(units, gb.Dense(3, 2), upwards=False)
    shaken(layer, 1)
    g = Generator().manual_seed(0)
    x = torch.randint(0, 2, (40, 2), generator=g).float()
    s = layer.sample(x, g)
    units.domain.check(s)
    if all(b is not None for b in units.domain.blocks()):
        listed = rows(units)
        total = layer.log_probability(listed, x[0].expand(len(listed), 2)).logsumexp(0)
        assert abs(float(total.detach())) < 1e-5
    loss = -layer.log_probability(s, x).mean()
    loss.backward()
    for name, value in layer.gradient(s, x).items():
        expected = layer.get_parameter(name).grad
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4)


def test_a_recognition_layers_gradient_is_autograds() -> None:
    layer = Directed(gb.Bernoulli(3), gb.Dense(4, 3), upwards=True)
    shaken(layer, 1)
    g = Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=g)
    s = layer.sample(x, g)
    (-layer.log_probability(s, x).mean()).backward()
    for name, value in layer.gradient(s, x).items():
        torch.testing.assert_close(value, layer.get_parameter(name).grad, rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        wrong = layer.gradient(1 - s, x)["connection.weight"]
        torch.testing.assert_close(wrong, layer.get_parameter("connection.weight").grad)


def test_a_network_comes_back_from_its_description() -> None:
    network = small((4, 3, 2, 3))
    other = belief.from_spec(network.spec())
    other.load_state_dict(network.state_dict())
    v = rows(network.visible)
    assert torch.equal(network.classify(v), other.classify(v))
    assert other.sizes == (4, 3, 2, 3)


def test_a_description_tells_what_is_fixed_and_how_precise() -> None:
    network = small().double()
    network.up_layers[0].units.get_parameter("bias").requires_grad_(False)
    other = belief.from_spec(network.spec())
    learned = [[k for k, p in n.named_parameters() if p.requires_grad] for n in (network, other)]
    assert learned[0] == learned[1]
    assert "recognition.0.units.bias" not in learned[1]
    assert {p.dtype for p in other.parameters()} == {torch.float64}
    with pytest.raises(GibbsianError, match="no parameter 'lost'"):
        belief.from_spec(network.spec() | {"fixed": ["lost"]})


def test_a_stack_copies_its_lower_machines() -> None:
    a, b = gb.rbm(3, 2), gb.rbm(2, 2)
    network = belief.stack([a, b])
    shaken(network)
    assert not torch.equal(a.joints[0].weight, network.down_layers[0].connection.weight)
    up, down = network.up_layers[0].connection.weight, network.down_layers[0].connection.weight
    assert not torch.equal(up, down)
    assert network.top is b


def test_start_from_data() -> None:
    network = small()
    v = rows(network.visible)
    found = network.generate(6, 0, start="data", data=v, generator=1)
    assert found.samples.shape == (6, 3)


def exact(network: DeepBeliefNetwork) -> Tensor:
    """Log p(v) of every v, labels summed out."""
    return truth(network).sum(dim=1).log()


def test_the_bound_lies_below_the_exact_likelihood_by_the_posteriors_distance() -> None:
    """E[bound] = log p(v) − KL(q(s | v) ‖ p(s | v)), all of it added up."""
    network = small()
    v = rows(network.visible)
    log_z = evaluators.log_z(network.top)
    found = bound(network, v, log_z, 400, 1)
    up, down = network.up_layers[0], network.down_layers[0]
    expected = torch.zeros(len(v), dtype=torch.float64)
    for pen in rows(up.units):
        s = pen.expand(len(v), -1)
        log_q = up.log_probability(s, v).detach()
        joint = down.log_probability(v, s).detach() + network.pen_log_weight(s) - log_z
        expected += log_q.exp() * (joint - log_q)
    error = 5 * float((found.rows - expected).std()) / math.sqrt(len(v))
    assert abs(found.mean - float(expected.mean())) < error
    truth_mean = float(exact(network).mean())
    assert float((exact(network) - expected).min()) > 0
    assert found.mean < found.importance < truth_mean + 0.05
    assert found.mean < truth_mean - error


def test_the_bound_of_a_network_whose_layers_know_nothing_of_each_other_is_exact() -> None:
    network = small()
    for layer in (*network.up_layers, *network.down_layers):
        layer.connection.weight.data.zero_()
    with torch.no_grad():
        network.top.joints[0].weight.zero_()
        network.up_layers[0].units.get_parameter("bias").copy_(
            network.top.layers[0].get_parameter("members.0.bias")
        )
    v = rows(network.visible)
    found = bound(network, v, evaluators.log_z(network.top), 1, 1)
    torch.testing.assert_close(found.rows, exact(network), rtol=1e-5, atol=1e-5)
    with pytest.raises(AssertionError):
        network.up_layers[0].connection.weight.data.fill_(1.0)
        wrong = bound(network, v, evaluators.log_z(network.top), 1, 1)
        torch.testing.assert_close(wrong.rows, exact(network), rtol=1e-5, atol=1e-5)


def test_depth_one_has_the_rbms_likelihood() -> None:
    machine = gb.rbm(4, 3)
    shaken(machine)
    v, log_z = rows(machine.layers[0]), evaluators.log_z(machine)
    found = bound(belief.stack([machine]), v, log_z)
    assert found.mean == pytest.approx(evaluators.log_likelihood(machine, v, log_z).mean)


def test_log_z_of_the_top_machine_by_ais() -> None:
    network = small()
    v = rows(network.visible)
    labels = torch.tensor(network.classes)[torch.arange(len(v)) % 3]
    found = top_partition(network, v, labels, temperatures=200, ladder_steps=0, generator=1)
    assert found.exact is not None
    assert found.ais is not None
    assert abs(found.ais.log_z - found.exact) < 5 * found.ais.standard_error + 0.01


def test_label_error_counts_rows() -> None:
    network = small()
    v = rows(network.visible)
    right = network.classify(v)
    assert label_error(network, v, right) == 0
    wrong = right.clone()
    wrong[0] = next(c for c in network.classes if c != int(right[0]))
    assert label_error(network, v, wrong) == pytest.approx(1 / len(v))


def plain() -> DeepBeliefNetwork:
    return small(classes=())


@pytest.mark.parametrize(("act", "words"), [
    (lambda: small().generate(2, 1, label=3), "the label 3, which this network never saw"),
    (lambda: small().generate(3, 1, label=[1, 4]), "one whole number or 3 of them"),
    (lambda: small().generate(2, 1, label=torch.tensor([1.5])), "one whole number"),
    (lambda: plain().generate(2, 1, label=3), "trained without labels"),
    (lambda: plain().classify(torch.zeros(2, 3)), "cannot classify"),
    (lambda: small().classify(torch.zeros(2, 4)), "rows of 3 values"),
    (lambda: small().classify(torch.full((2, 3), math.nan)), "NaN"),
    (lambda: small().labels.hot(None, "the rows"), "the rows have no labels"),
    (lambda: small().labels.hot(torch.tensor([1, 9]), "the rows"), "the label 9"),
    (lambda: bound(small(), torch.full((2, 3), 0.5), 0.0), "0.5"),
    (lambda: bound(small(), torch.zeros(2, 3), 0.0, 0), "number of samples"),
    (lambda: label_error(small(), torch.zeros(2, 3), None), "have no labels"),
    (lambda: belief.stack([gb.rbm(3, 2), gb.rbm(3, 2)]), "sizes follow on each other"),
    (lambda: belief.stack([]), "at least one machine"),
    (lambda: belief.stack([gb.rbm(3, 2), gb.rbm(2, 2)], [0, 1]), "block of 2 label units"),
    (lambda: belief.stack([gb.rbm(3, 2)], [1]), "at least two classes"),
    (lambda: belief.stack([gb.layered(*map(gb.Bernoulli, (3, 2, 2)))]), "one hidden layer"),
    (lambda: belief.with_labels(gb.Bernoulli(2), 1), "The number of classes"),
    (lambda: belief.from_spec({"layers": []}), "lacks its classes and top"),
    (lambda: Directed(gb.Bernoulli(3), gb.Dense(2, 4), upwards=True), "has as many"),
])  # fmt: skip
def test_bad_input_is_one_sentence(act, words: str) -> None:
    with pytest.raises((GibbsianError, DataError)) as found:
        act()
    text = str(found.value)
    assert words in text
    assert text.endswith(".")


def test_mean_states_of_every_layer_are_those_of_enumeration() -> None:
    """The labels above a row are unknown: the top layer's means are over all of them."""
    network = small()
    v = rows(network.visible)
    assert torch.equal(network.transform(v, 1), network.up(v)[1])
    pen, top = network.up(v)[-1], network.top
    labels, hidden = torch.eye(len(network.classes)), rows(top.layers[1])
    weights = torch.stack([
        torch.stack([-top.energy((torch.cat([pen, y.expand(len(pen), -1)], dim=1), h.expand(len(pen), -1)))
                     for h in hidden]) for y in labels
    ])  # fmt: skip
    p = weights.flatten(0, 1).softmax(dim=0).reshape(weights.shape).sum(dim=0)
    expected = (p.T @ hidden.double()).detach()
    assert (network.transform(v).double() - expected).abs().max() < 1e-5
    # With one label for all it is another answer.
    held = torch.cat([pen, labels[:1].expand(len(pen), -1)], dim=1)
    wrong = top.joints[0].up(held) + top.layers[1].get_parameter("bias")
    assert (wrong.sigmoid().double() - expected).abs().max() > 1e-2
    with pytest.raises(GibbsianError, match="no hidden layer 3"):
        network.transform(v, 3)
