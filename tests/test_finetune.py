"""Fine-tuning: where it starts, what its parts do, resuming, files, and bad input."""

import numpy as np
import pytest
import torch
from torch import Generator, nn

import gibbsian as gb
from gibbsian import belief, runs
from gibbsian.belief import DeepBeliefNetwork, classifier
from gibbsian.belief.classifier import Classifier, Dropout
from gibbsian.belief.finetune import FineTune, Settings
from gibbsian.errors import DataError, GibbsianError, RunError, TrainingError


def network(classes: tuple[int, ...] = (3, 8)) -> DeepBeliefNetwork:
    pen = belief.with_labels(gb.Bernoulli(5), 2) if classes else 5
    made = belief.stack([gb.rbm(6, 5), gb.rbm(pen, 6)], classes)
    g = Generator().manual_seed(4)
    for p in made.parameters():
        p.data.normal_(0, 0.5, generator=g)
    return made


def stripes(rows: int = 300, **more) -> gb.data.Dataset:
    """Rows of 6 bits: class 3 has its left half on, class 8 its right half, with 5 % flips."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    x = np.zeros((rows, 6), dtype=np.float32)
    x[y == 0, :3], x[y == 1, 3:] = 1, 1
    x = np.abs(x - (rng.random(x.shape) < 0.05))
    return gb.data.load(x, labels=np.where(y == 0, 3, 8), transform="identity", **more)


def test_it_starts_as_the_networks_mean_field_pass() -> None:
    """Logits are those of the labels given the means of the top layer."""
    made = network()
    model = classifier.classifier(made)
    assert isinstance(model, nn.Sequential)
    x = torch.rand(7, 6, generator=Generator().manual_seed(0))
    pen = made.up(x)[-1]
    weight, bias = made.top.joints[0].weight, made.top.layers[1].get_parameter("bias")
    h = torch.sigmoid(pen @ weight[:5] + bias)
    labels = made.top.layers[0].get_parameter("members.1.bias")
    torch.testing.assert_close(model(x), h @ weight[5:].T + labels)


def test_a_network_without_labels_takes_classes() -> None:
    model = classifier.classifier(network(()), [3, 8], generator=Generator().manual_seed(0))
    assert float(model.output.weight.abs().max()) < 0.1
    again = classifier.classifier(network(()), [3, 8], generator=Generator().manual_seed(0))
    assert torch.equal(model.output.weight, again.output.weight)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    drop = Dropout(0.25)
    drop.generator = Generator().manual_seed(0)
    x = torch.ones(200, 100)
    y = drop(x)
    assert abs(float((y == 0).double().mean()) - 0.25) < 0.02
    assert abs(float(y.mean()) - 1) < 0.03
    drop.eval()
    assert torch.equal(drop(x), x)


def test_it_learns() -> None:
    data = stripes()
    assert data.test is not None
    x, labels = data.test.tensor(), torch.as_tensor(data.test.labels)
    model = classifier.classifier(network(), dropout=0.1)
    stage = FineTune(model, data, Settings(epochs=8, batch_size=20, lr=0.01))
    first = int((model.classify(x) != labels).sum())
    assert stage.fit()
    last = int((stage.best.classify(x) != labels).sum())
    assert last <= 2 < first
    assert stage.best_error <= 0.1


@pytest.mark.parametrize(
    ("optimizer", "options", "fused"),
    [
        ("adam", {}, True),
        ("sgd", {"momentum": 0.9}, True),
        ("adam", {"foreach": True}, None),
        ("adam", {"fused": False}, False),
        ("rmsprop", {}, None),
    ],
)
def test_the_one_pass_optimiser_is_a_default(optimizer, options, fused) -> None:
    settings = Settings(epochs=1, optimizer=optimizer, optimizer_options=options)
    stage = FineTune(classifier.classifier(network()), stripes(), settings)
    assert stage.fit()
    assert stage.optimizer.defaults.get("fused") is fused


def test_the_norm_of_weights_is_kept() -> None:
    model = classifier.classifier(network())
    FineTune(model, stripes(), Settings(epochs=2, lr=0.5, optimizer="sgd", max_norm=0.3)).fit()
    for layer in model.hidden:
        assert float(layer.connection.weight.norm(dim=0).max()) < 0.3 + 1e-5


def test_it_stops_early_and_keeps_the_best() -> None:
    model = classifier.classifier(network())
    stage = FineTune(model, stripes(), Settings(epochs=60, lr=0.05, patience=3))
    stage.fit()
    errors = [r["error"]["validation"] for r in stage.history]
    assert len(errors) < 60
    assert stage.best_error == min(errors)
    assert "did not fall for 3 epochs" in stage.stopped
    held = stage.data.validation
    assert held is not None
    found = (stage.best.classify(held.tensor()) != torch.as_tensor(held.labels)).double().mean()
    assert float(found) == stage.best_error


def test_what_is_kept_drops_nothing() -> None:
    """As an `nn.Sequential` of its own, called without a word of evaluation."""
    stage = FineTune(
        classifier.classifier(network(), dropout=0.5, input_dropout=0.5), stripes(), Settings(epochs=1)
    )  # fmt: skip
    stage.fit()
    x = torch.ones(20, 6)
    for model in (stage.best, stage.averaged):
        assert torch.equal(model(x), model.logits(x))
    assert not torch.equal(stage.model(x), stage.model.logits(x))


def tuned(path, stop: int | None = None) -> FineTune:
    model = classifier.classifier(network(), dropout=0.5, input_dropout=0.2)
    stage = FineTune(model, stripes(), Settings(epochs=4, batch_size=50, average=0.9))
    run = (
        runs.open_run(path)
        if (path / "config.toml").is_file()
        else runs.create(path, {"kind": "x"})
    )
    stage.keep(run)
    if stop is None:
        stage.fit()
    else:
        original = stage.update

        def update(batch) -> None:
            original(batch)
            stage._interrupt.asked = stage.step + 1 == stop

        stage.update = update
        with pytest.raises(KeyboardInterrupt):
            stage.fit()
    run.close()
    return stage


def test_a_resumed_fine_tuning_goes_on_bit_for_bit(tmp_path) -> None:
    whole = tuned(tmp_path / "a")
    tuned(tmp_path / "b", stop=7)
    parts = tuned(tmp_path / "b")
    assert parts.finished
    for one, other in ((whole.model, parts.model), (whole.best, parts.best)):
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)


def test_a_classifier_comes_back_from_its_file(tmp_path) -> None:
    model = classifier.classifier(network(), dropout=0.5)
    classifier.save(model, tmp_path / "c.safetensors")
    other = classifier.read(tmp_path / "c.safetensors")
    x = torch.rand(9, 6)
    assert torch.equal(other.classify(x), model.classify(x))
    assert (other.classes, other.dropout) == ((3, 8), 0.5)


def damaged(tmp_path) -> Classifier:
    (tmp_path / "c.safetensors").write_bytes(b"no such thing")
    return classifier.read(tmp_path / "c.safetensors")


def a_machine(tmp_path) -> Classifier:
    gb.save(gb.rbm(3, 2), tmp_path / "m.safetensors")
    return classifier.read(tmp_path / "m.safetensors")


def tune(data: gb.data.Dataset, **settings) -> FineTune:
    return FineTune(classifier.classifier(network()), data, Settings(**settings))


@pytest.mark.parametrize(("act", "words"), [
    (lambda t: classifier.read(t / "none"), "There is no classifier file"),
    (damaged, "not a readable classifier file"),
    (a_machine, "holds no classifier"),
    (lambda t: classifier.classifier(network(()), []), "at least two classes"),
    (lambda t: classifier.classifier(network(), dropout=1.0), "probability of dropout"),
    (lambda t: classifier.classifier(network()).classify(torch.zeros(2, 5)), "have 5 columns"),
    (lambda t: classifier.from_spec({"columns": 3}), "lacks its classes and hidden"),
    (lambda t: tune(stripes(), lr=0.0), "lr must be positive"),
    (lambda t: tune(stripes(), average=1.0), "average lies in [0, 1)"),
    (lambda t: tune(stripes(), patience=0), "patience must be a whole number"),
    (lambda t: tune(stripes(validation=0), patience=2), "Stopping early needs validation rows"),
    (lambda t: tune(stripes(), optimizer="none"), "no optimiser 'none'"),
    (lambda t: tune(gb.data.load(np.eye(6, dtype=np.float32))), "rows have none"),
    (lambda t: tune(gb.data.load(np.eye(6, dtype=np.float32), labels=np.arange(6))), "hold the label"),
    (lambda t: tune(gb.data.load(np.eye(9, dtype=np.float32), labels=[3, 8, 3] * 3)), "have 9 columns"),
])  # fmt: skip
def test_bad_input_is_one_sentence(act, words: str, tmp_path) -> None:
    with pytest.raises((GibbsianError, DataError, RunError, TrainingError)) as found:
        act(tmp_path)
    assert words in str(found.value)
    assert str(found.value).endswith(".")
