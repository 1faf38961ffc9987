"""The up-down algorithm: each of its eight steps by hand, whole updates, resuming, and bad input."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

import gibbsian as gb
from gibbsian import belief, precision, runs
from gibbsian.belief import DeepBeliefNetwork, updown
from gibbsian.belief.network import lowered
from gibbsian.belief.updown import Settings, UpDown
from gibbsian.errors import GibbsianError, TrainingError
from gibbsian.moments import Moments

SURE = 50.0  # a field at which a bit is certain


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def two_units(labels: bool = False) -> DeepBeliefNetwork:
    """One visible unit, one pen unit, one top unit; two classes 0 and 1 if there are labels."""
    pen = belief.with_labels(gb.Bernoulli(1), 2) if labels else 1
    network = belief.stack([gb.rbm(1, 1), gb.rbm(pen, 1)], (0, 1) if labels else ())
    for p in network.parameters():
        p.data.zero_()
    return network


def put(network: DeepBeliefNetwork, **values: float | list[float]) -> None:
    """Set parameters by short names: up, up_bias, down, down_bias, top, pen_bias, top_bias."""
    up, down, top = network.up_layers[0], network.down_layers[0], network.top
    places = {
        "up": up.connection.weight, "up_bias": up.units.bias,
        "down": down.connection.weight, "down_bias": down.units.bias,
        "top": top.joints[0].weight, "top_bias": top.layers[1].bias,
    }  # fmt: skip
    with torch.no_grad():
        for name, value in values.items():
            places[name].copy_(torch.as_tensor(value).reshape(places[name].shape))


def bits(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


@pytest.fixture
def g() -> Generator:
    return Generator().manual_seed(0)


def test_1_wake_goes_up_by_the_recognition_weights(g) -> None:
    network = two_units()
    put(network, up=2 * SURE, up_bias=-SURE, down=-2 * SURE, down_bias=SURE)
    states = updown.wake(network, bits(1, 0, 1), g)
    assert [s.flatten().tolist() for s in states] == [[1, 0, 1], [1, 0, 1]]


def test_1_wake_draws_with_the_right_probability(g) -> None:
    network = two_units()
    put(network, up=1.0, up_bias=-2.0)
    pen = updown.wake(network, torch.ones(40_000, 1), g)[1]
    error = math.sqrt(sigma(-1) * (1 - sigma(-1)) / 40_000)
    assert abs(float(pen.mean()) - sigma(-1)) < 5 * error
    assert abs(float(pen.mean()) - sigma(-2)) > 5 * error


def test_2_positive_statistics_by_hand(g) -> None:
    """⟨pen·h⟩ = mean of pen·σ(w pen + u_y + c), and ⟨y_k·h⟩ alike."""
    network = two_units(labels=True)
    put(network, top=[0.5, 1.0, -2.0], top_bias=0.3)
    pen, hot = bits(1, 0), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    state, found = updown.positive(network.top, pen, hot, g)
    h = [sigma(0.5 + 1.0 + 0.3), sigma(-2.0 + 0.3)]
    expected = torch.tensor([[h[0] / 2], [h[0] / 2], [h[1] / 2]])
    torch.testing.assert_close(found["connections.0.weight"], expected)
    torch.testing.assert_close(found["units.1.bias"], torch.tensor([(h[0] + h[1]) / 2]))
    torch.testing.assert_close(found["units.0.members.0.bias"], torch.tensor([0.5]))
    torch.testing.assert_close(found["units.0.members.1.bias"], torch.tensor([0.5, 0.5]))
    assert torch.equal(state[0], torch.cat([pen, hot], dim=1))
    assert set(state[1].unique().tolist()) <= {0.0, 1.0}


def test_3_the_chain_alternates_and_draws_labels_as_a_softmax(g) -> None:
    """Top unit on: pen on and class 1; pen then turns the top unit off; all off: class 0."""
    network = two_units(labels=True)
    put(network, top=[4 * SURE, -SURE, SURE], top_bias=-2 * SURE)
    network.top.layers[0].get_parameter("members.0.bias").data.fill_(-2 * SURE)
    state = (torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[1.0]]))
    on = updown.gibbs(network.top, state, 1, g)
    assert on[0].tolist() == [[1.0, 0.0, 1.0]]
    assert on[1].tolist() == [[1.0]]
    network.top.layers[0].get_parameter("members.1.bias").data.copy_(torch.tensor([SURE, 0.0]))
    off = updown.gibbs(network.top, (state[0], torch.tensor([[0.0]])), 3, g)
    assert off[0].tolist() == [[0.0, 1.0, 0.0]]
    assert off[1].tolist() == [[0.0]]
    same = updown.gibbs(network.top, state, 0, g)
    assert all(torch.equal(a, b) for a, b in zip(same, state, strict=True))


def test_4_negative_statistics_by_hand() -> None:
    network = two_units()
    put(network, top=0.7, top_bias=-0.2)
    found = updown.negative(network.top, (bits(1, 1, 0), bits(0, 0, 0)))
    torch.testing.assert_close(
        found["connections.0.weight"], torch.tensor([[2 / 3 * sigma(0.5)]])
    )  # fmt: skip
    mean_h = (2 * sigma(0.5) + sigma(-0.2)) / 3
    torch.testing.assert_close(found["units.1.bias"], torch.tensor([mean_h]))


def test_5_sleep_goes_down_by_the_generative_weights(g) -> None:
    network = two_units()
    put(network, up=2 * SURE, up_bias=-SURE, down=-2 * SURE, down_bias=SURE)
    states = updown.sleep(network, bits(1, 0, 1), g)
    assert [s.flatten().tolist() for s in states] == [[0, 1, 0], [1, 0, 1]]


def test_6_generative_weights_by_the_delta_rule() -> None:
    """Δg ∝ s_1 (s_0 − σ(g s_1 + a)) on the wake states; the recognition weights have no part in it."""
    network = two_units()
    put(network, down=0.8, down_bias=0.1, up=9.0, up_bias=9.0)
    found = updown.generative(network, [bits(1, 0), bits(1, 1)])
    p = sigma(0.9)
    expected = ((p - 1) + (p - 0)) / 2
    assert float(found["generative.0.connection.weight"]) == pytest.approx(expected)
    assert float(found["generative.0.units.bias"]) == pytest.approx(expected)
    silent = updown.generative(network, [bits(1), bits(0)])
    assert float(silent["generative.0.connection.weight"]) == 0
    assert float(silent["generative.0.units.bias"]) == pytest.approx(sigma(0.1) - 1)


def test_7_the_top_machine_by_contrastive_divergence(g) -> None:
    """Model minus data, so that descent raises what the data have and lowers what the chain has."""
    network = two_units()
    put(network, top=0.4)
    _, found = updown.positive(network.top, bits(1, 1), torch.zeros(2, 0), g)
    chain = updown.negative(network.top, (bits(0, 1), bits(0, 0)))
    out = updown.top_machine(network.top, found, chain)
    assert float(out["top.connections.0.weight"]) == pytest.approx(sigma(0.4) / 2 - sigma(0.4))
    assert float(out["top.units.0.bias"]) == pytest.approx(-0.5)
    assert float(out["top.units.1.bias"]) == pytest.approx((0.5 + sigma(0.4)) / 2 - sigma(0.4))


def test_8_recognition_weights_by_the_delta_rule() -> None:
    """Δr ∝ s_0 (s_1 − σ(r s_0 + b)) on the sleep states; the generative weights have no part in it."""
    network = two_units()
    put(network, up=-0.6, up_bias=0.2, down=9.0, down_bias=9.0)
    found = updown.recognition(network, [bits(1, 0), bits(1, 0)])
    on, off = sigma(-0.4), sigma(0.2)
    assert float(found["recognition.0.connection.weight"]) == pytest.approx((on - 1) / 2)
    assert float(found["recognition.0.units.bias"]) == pytest.approx((on - 1 + off) / 2)


def test_an_update_names_every_parameter(g) -> None:
    network = two_units(labels=True)
    found, kept = updown.gradients(network, bits(1, 0), torch.eye(2), 2, g)
    assert kept is None
    assert set(found) == {k for k, _ in network.named_parameters()}
    assert all(found[k].shape == p.shape for k, p in network.named_parameters())


def test_depth_one_is_contrastive_divergence() -> None:
    """The gradient of a network without directed layers is CD's, draw for draw."""
    machine = gb.rbm(5, 4)
    for p in machine.parameters():
        p.data.normal_(0, 1, generator=Generator().manual_seed(1))
    network = belief.stack([machine])
    x = torch.randint(0, 2, (20, 5), generator=Generator().manual_seed(2)).float()
    found, _ = updown.gradients(network, x, torch.zeros(20, 0), 3, Generator().manual_seed(3))
    phases = gb.CD(steps=3).step(machine, x, None, Generator().manual_seed(3))
    for name, value in phases.gradient(machine, machine.learned()).items():
        torch.testing.assert_close(found[f"top.{name}"], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_chains_that_are_kept_have_their_share_of_the_negative_phase(share: float) -> None:
    network = fresh()
    x, hot = torch.randint(0, 2, (20, 6)).float(), torch.eye(2).repeat(10, 1)
    visible = network.top.layers[0].domain.noise(20, Generator().manual_seed(5))
    kept = (visible, network.top.layers[1].domain.noise(20, Generator().manual_seed(6)))
    found, moved = updown.gradients(
        network, x, hot, 3, Generator().manual_seed(7), kept=kept, share=share
    )
    g = Generator().manual_seed(7)  # the same draws, one step after the other
    awake = updown.wake(network, x, g)
    state, before = updown.positive(network.top, awake[-1], hot, g)
    chains = [updown.gibbs(network.top, s, 3, g) for s in (state, kept)]
    assert all(torch.equal(a, b) for a, b in zip(moved, chains[1], strict=True))
    near, far = (
        updown.top_machine(network.top, before, updown.negative(network.top, s)) for s in chains
    )
    assert not torch.allclose(near["top.units.1.bias"], far["top.units.1.bias"])
    for name, value in near.items():
        torch.testing.assert_close(found[name], value.lerp(far[name], share))


def labelled_top(seed: int) -> DeepBeliefNetwork:
    network = two_units(labels=True)
    for i, p in enumerate(network.parameters()):
        p.data.normal_(generator=Generator().manual_seed(seed + i))
    return network.double()


def test_7_labels_told_apart_by_hand() -> None:
    """Each label counts by p(y | pen) − 1 or − 0, p ∝ exp(d_y) (1 + exp(w pen + u_y + c)); pen stands."""
    network = two_units(labels=True)
    put(network, top=[0.5, 1.0, -2.0], top_bias=0.3)
    network.top.layers[0].get_parameter("members.1.bias").data.copy_(torch.tensor([0.2, -0.1]))
    found = updown.discriminate(network, bits(1), torch.tensor([[1.0, 0.0]]))
    fields = (0.5 + 1.0 + 0.3, 0.5 - 2.0 + 0.3)
    weights = [math.exp(d) * (1 + math.exp(x)) for d, x in zip((0.2, -0.1), fields, strict=True)]
    p = weights[1] / sum(weights)
    on, off = (sigma(x) for x in fields)
    expected = torch.tensor([[p * off - p * on], [-p * on], [p * off]])
    torch.testing.assert_close(found["connections.0.weight"], expected)
    torch.testing.assert_close(found["units.1.bias"], torch.tensor([p * off - p * on]))
    assert float(found["units.0.members.0.bias"]) == pytest.approx(0, abs=1e-7)
    torch.testing.assert_close(found["units.0.members.1.bias"], torch.tensor([-p, p]))


def test_labels_that_are_told_apart_are_left_alone_in_bfloat16() -> None:
    """Both sides of a difference, each rounded, would not cancel."""
    network = two_units(labels=True)
    put(network, top=[0.7, 30.0, -30.0], top_bias=0.37)
    low = lowered(network)
    pen, hot = torch.ones(100, 1), torch.tensor([[1.0, 0.0]]).expand(100, 2)
    rows = updown.discriminate(low, pen, hot).rows("connections.0.weight")
    assert rows is not None
    moved = torch.zeros(3, 1)
    rows.add_to(moved, 1.0)
    assert float(moved.abs().max()) < 1e-6


def test_all_discriminative_descends_the_log_probability_of_labels() -> None:
    """What the top machine descends is autograd's gradient of −log p(y | s_P)."""
    network, g = labelled_top(3), Generator().manual_seed(0)
    x = torch.randint(0, 2, (30, 1), generator=g).double()
    labels = torch.randint(0, 2, (30,), generator=g)
    hot = torch.eye(2).double()[labels]
    found, _ = updown.gradients(network, x, hot, 1, g.manual_seed(1), discriminative=1.0)
    pen = updown.wake(network, x, g.manual_seed(1))[-1]
    top = network.top
    rows = [torch.cat([pen, y.expand(30, 2)], dim=1) for y in torch.eye(2).double()]
    log_p = torch.stack([-top.free_energy(v) for v in rows], dim=1).log_softmax(dim=1)
    loss = -log_p[torch.arange(30), labels].mean()
    for (name, p), slope in zip(
        top.named_parameters(), torch.autograd.grad(loss, list(top.parameters())), strict=True
    ):
        torch.testing.assert_close(found[f"top.{name}"], slope, rtol=1e-6, atol=1e-9, msg=name)
        assert slope.shape == p.shape
    half, _ = updown.gradients(network, x, hot, 1, g.manual_seed(1), discriminative=0.5)
    none, _ = updown.gradients(network, x, hot, 1, g.manual_seed(1))
    for name, value in half.items():
        torch.testing.assert_close(value, none[name].lerp(found[name], 0.5))


def stripes(rows: int = 400) -> gb.data.Dataset:
    """Rows of 6 bits: class 3 has its left half on, class 8 its right half, with 5 % flips."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    x = np.zeros((rows, 6), dtype=np.float32)
    x[y == 0, :3], x[y == 1, 3:] = 1, 1
    x = np.abs(x - (rng.random(x.shape) < 0.05))
    return gb.data.load(x, labels=np.where(y == 0, 3, 8), transform="identity")


def fresh(classes: tuple[int, ...] = (3, 8)) -> DeepBeliefNetwork:
    network = belief.stack(
        [gb.rbm(6, 5), gb.rbm(belief.with_labels(gb.Bernoulli(5), 2), 6)], classes
    )
    g = Generator().manual_seed(4)
    for p in network.parameters():
        p.data.normal_(0, 0.1, generator=g)
    return network


def test_a_step_is_that_of_pytorchs_sgd_with_momentum() -> None:
    stage = UpDown(fresh(), stripes(), Settings(momentum=0.7, lr=0.1, schedule="constant"))
    copies = {k: p.detach().clone().requires_grad_() for k, p in stage.network.named_parameters()}
    sgd = torch.optim.SGD(list(copies.values()), lr=0.1, momentum=0.7)
    g = Generator().manual_seed(7)
    for _ in range(3):
        found = {k: torch.randn(p.shape, generator=g) for k, p in copies.items()}
        for k, p in copies.items():
            p.grad = found[k].clone()
        sgd.step()
        with torch.no_grad():
            stage._descend(Moments(found))
    for k, p in stage.network.named_parameters():
        torch.testing.assert_close(p, copies[k])


def test_it_learns_classes_and_what_they_look_like() -> None:
    data, network = stripes(), fresh()
    stage = UpDown(network, data, Settings(epochs=25, batch_size=20, lr=0.4, momentum=0.5, steps=1))
    assert stage.fit()
    assert data.test is not None
    x, labels = data.test.tensor(), torch.from_numpy(data.test.labels)
    error = float((stage.averaged.classify(x) != labels).double().mean())
    assert error < 0.1
    made = stage.averaged.generate(200, 100, label=8, generator=1)
    left, right = made.samples[:, :3].mean(), made.samples[:, 3:].mean()
    assert float(right) > 0.6 > 0.4 > float(left)
    assert stage.history[-1]["label_error"]["validation"] < 0.1


def run_of(path, data, seconds: float | None = None, stop: int | None = None, **more) -> UpDown:
    settings = Settings(
        **{"epochs": 3, "batch_size": 50, "momentum": 0.5, "persistent": 0.0} | more
    )
    stage = UpDown(fresh(), data, settings)
    run = (
        runs.open_run(path)
        if (path / "config.toml").is_file()
        else runs.create(path, {"kind": "x"})
    )
    stage.keep(run)
    if stop is not None:
        original = stage.update

        def update(batch) -> None:
            original(batch)
            if stage.step + 1 == stop:
                stage._interrupt.asked = True

        stage.update = update
        with pytest.raises(KeyboardInterrupt):
            stage.fit()
    else:
        stage.fit(seconds)
    run.close()
    return stage


@pytest.mark.parametrize(
    "more", [{"persistent": 0.0}, {"persistent": 0.5}, {"persistent": 0.5, "precision": "bf16"}]
)
def test_a_resumed_stage_goes_on_bit_for_bit(tmp_path, more) -> None:
    data = stripes()
    whole = run_of(tmp_path / "a", data, **more)
    assert whole.total > 15
    run_of(tmp_path / "b", data, stop=10, **more)
    parts = run_of(tmp_path / "b", data, **more)
    assert parts.finished
    for one, other in ((whole.network, parts.network), (whole.averaged, parts.averaged)):
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)
    strip = [{k: v for k, v in r.items() if k != "time"} for r in whole.history]
    assert strip == [{k: v for k, v in r.items() if k != "time"} for r in parts.history]


def test_statistics_of_chains_in_bfloat16_are_those_of_the_top_machine() -> None:
    stage = UpDown(
        fresh(), stripes(), Settings(epochs=8, batch_size=20, lr=1.0, average=0, precision="bf16")
    )
    assert stage._walker.top is not stage.network.top
    before = stage.network.top.joints[0].weight.detach().clone()
    stage.fit()
    assert float((stage.network.top.joints[0].weight.detach() - before).abs().max()) > 0.1
    precision.refresh(stage._walker.top)
    state = tuple(t.float() for t in stage.chains)
    for name, value in updown.negative(stage.network.top, state).items():
        close = updown.negative(stage._walker.top, state)[name]
        torch.testing.assert_close(close, value, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_a_step_in_bfloat16_is_the_step_of_the_gradient_that_it_rounds(momentum: float) -> None:
    settings = Settings(
        lr=0.5, top_lr=2.0, momentum=momentum, schedule="constant", precision="bf16"
    )
    stage = UpDown(fresh(), stripes(), settings)
    network, g = stage.network, Generator().manual_seed(4)
    x, hot = torch.randint(0, 2, (100, 6), generator=g).float(), torch.eye(2).repeat(50, 1)
    more = (stage.chains, 0.5, 0.0, stage._walker)
    found, _ = updown.gradients(network, x, hot, 2, g.manual_seed(5), *more)
    again, _ = updown.gradients(network, x, hot, 2, g.manual_seed(5), *more)
    before = {k: p.detach().clone() for k, p in network.named_parameters()}
    with torch.no_grad():
        stage._descend(found)
    for k, p in network.named_parameters():
        rate = 2.0 if k.startswith("top.") else 0.5
        close = {"rtol": 0.02, "atol": 5e-3} if k.endswith("weight") else {}
        torch.testing.assert_close(p.detach(), before[k] - rate * again[k], **close)
    top = "top.connections.0.weight"
    assert float(again[top].abs().max()) > 0.05


def test_an_update_rounds_the_couplings_anew(monkeypatch) -> None:
    stage = UpDown(fresh(), stripes(), Settings(epochs=1, batch_size=50, lr=1.0, precision="bf16"))
    seen = []
    original = updown.gradients

    def gradients(*args, **more):
        walker = args[-1]
        low = walker.top.joints[0]._rounded
        seen.append(torch.equal(low, stage.network.top.joints[0].weight.bfloat16()))
        return original(*args, **more)

    monkeypatch.setattr(updown, "gradients", gradients)
    stage.fit()
    assert len(seen) > 3
    assert all(seen)


def test_a_budget_of_time_ends_a_stage_early(tmp_path) -> None:
    data = stripes()
    stage = run_of(tmp_path / "a", data, seconds=0.0)
    assert not stage.finished
    assert run_of(tmp_path / "a", data).finished


@pytest.mark.parametrize(("act", "words"), [
    (lambda: Settings(lr=0), "learning rate lr of the up-down algorithm must be positive"),
    (lambda: Settings(momentum=1), "momentum of the up-down algorithm lies in [0, 1)"),
    (lambda: Settings(persistent=1.5), "persistent is a share"),
    (lambda: Settings(discriminative=-0.1), "discriminative is a share"),
    (lambda: UpDown(two_units(), stripes(), Settings(discriminative=0.5)), "no labels to tell apart"),
    (lambda: Settings(steps=0), "number of Gibbs steps"),
    (lambda: Settings(precision="half"), "A precision is fp32, bf16, auto"),
    (lambda: UpDown(fresh(), stripes(), Settings(epochs=0)), "number of epochs"),
    (lambda: UpDown(fresh(), stripes(), Settings(batch_size=0)), "batch size"),
    (lambda: UpDown(fresh(), stripes(), Settings(schedule="up")), "no schedule 'up'"),
    (lambda: UpDown(fresh((1, 2)), stripes()), "The training rows hold the label"),
    (lambda: UpDown(fresh(), gb.data.load(np.eye(6, dtype=np.float32))), "have no labels"),
])  # fmt: skip
def test_bad_input_is_one_sentence(act, words: str) -> None:
    with pytest.raises(GibbsianError) as found:
        act()
    assert words in str(found.value)
    assert str(found.value).endswith(".")


def test_a_network_that_runs_away_is_stopped() -> None:
    stage = UpDown(fresh(), stripes(), Settings(epochs=2, lr=1.0))
    stage.network.up_layers[0].connection.weight.data.fill_(math.inf)
    with pytest.raises(TrainingError, match="stopped being finite"):
        stage.fit()
