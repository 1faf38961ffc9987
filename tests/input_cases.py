"""What a user of the Python interface can get wrong ends in one sentence, never in a traceback.

The checks of types and shapes that all tests run under would refuse most of it first, in words of their
own; so test_wrong_input.py runs these in a process of their own, without them.
"""

import math

import numpy as np
import pytest
import torch

import gibbsian as gb
from gibbsian import arguments, belief, devices, evaluators


def bars(**options) -> gb.data.Dataset:
    return gb.data.load("bars-and-stripes:n=3,rows=120", **options)


def train(machine=None, data=None, **options) -> gb.Trained:
    options = {"updates": 4, "batch_size": 20, "progress": False} | options
    data = bars() if data is None else data
    return gb.train(gb.rbm(9, 4) if machine is None else machine, data, **options)


def refused(words: str, call, kind=gb.GibbsianError) -> None:
    with pytest.raises(kind, match=words) as caught:
        call()
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text


# Numbers of NumPy are numbers.


def test_whole_numbers_of_numpy_are_taken_and_stored_as_pythons_own(tmp_path) -> None:
    machine = gb.rbm(np.int64(9), np.int32(4))
    method = gb.PCD(steps=np.int64(1), chains=np.uint8(5))
    result = train(
        machine, method=method, updates=np.int64(3), lr=np.float32(0.5), seed=np.int64(2),
        biases={0: np.full(9, 0.5), 1: np.float64(-1)}, out=tmp_path / "run",
    )  # fmt: skip
    assert result.step == 3
    stored = gb.load(tmp_path / "run").config
    assert stored["training"]["biases"] == {"0": [0.5] * 9, "1": -1.0}
    assert stored["method"]["chains"] == 5
    assert gb.resume(tmp_path / "run", progress=False).step == 3
    assert gb.sample(machine, np.int64(2), np.int64(3)).samples.shape == (2, 9)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, [1], math.nan])
def test_what_is_no_whole_number(value) -> None:
    refused(
        "The number must be a whole number of at least 1",
        lambda: arguments.whole(value, "The number"),
    )
    assert arguments.whole(torch.tensor(3), "The number") == 3


@pytest.mark.parametrize("value", [True, "1", None, math.nan, math.inf, [1.0]])
def test_what_is_no_number(value) -> None:
    refused("It must be a finite number", lambda: arguments.number(value, "It"))
    assert arguments.number(np.float16(0.5), "It") == 0.5


# Training.


@pytest.mark.parametrize(
    "options, words",
    [
        ({"method": "pcd"}, r"method is an object such as gb\.PCD"),
        ({"machine": "rbm"}, r"What is trained is a machine.*not 'rbm'"),
        ({"optimizer": None}, "optimiser is a name or a function, not None"),
        ({"optimizer": lambda groups: None}, "must return a torch.optim optimiser"),
        ({"optimizer_options": {"lr": 3.0}}, "give it as lr"),
        ({"optimizer_options": [1]}, "optimizer_options must be a table"),
        ({"schedule": 3}, "schedule is a name or a function, not 3"),
        ({"schedule": lambda optimizer: None}, "must return a scheduler"),
        ({"schedule": torch.optim.lr_scheduler.ReduceLROnPlateau}, "without a metric"),
        (
            {"schedule": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=3)},
            "ends after 3 steps, and the run has 4",
        ),
        ({"schedule_options": [1]}, "schedule_options must be a table"),
        ({"lr": "0.1"}, "learning rate must be a finite number, and '0.1' is not"),
        ({"precision_lr": "x"}, "precision_lr"),
        ({"average": "x"}, "average"),
        ({"average": -0.1}, "average must be at least 0 and below 1"),
        ({"scale": math.inf}, "scale must be a finite number"),
        ({"center": "yes"}, "center must be true or false"),
        ({"l1": "x"}, "penalty must be a finite number"),
        ({"l2": {"connections.*": math.nan}}, "penalty must be a finite number"),
        ({"biases": {"visible": 1.0}}, "number of their layer"),
        ({"biases": {0: ["a"] * 9}}, "bias of layer 0 must be a finite number"),
        ({"biases": {0: [[0.0] * 9]}}, "bias of layer 0 must be a finite number"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"log_every": 2, "log_epochs": 1}, "log_every in updates or log_epochs"),
        ({"log_epochs": 0}, "log_epochs"),
        ({"patience": 1, "monitor": "cross_entropy.test"}, "cross_entropy.test"),
    ],
)
def test_impossible_trainings(options, words: str, tmp_path) -> None:
    refused(words, lambda: train(out=tmp_path / "run", **options), gb.GibbsianError)
    assert not (tmp_path / "run" / "config.toml").exists() or "monitor" in options


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta", 3.5, None])
def test_a_device_that_is_not_there(name, tmp_path) -> None:
    refused("There is no device", lambda: devices.find(name))
    if isinstance(name, str):
        refused("There is no device", lambda: train(device=name))
        train(out=tmp_path / "run")
        refused("There is no device", lambda: gb.load(tmp_path / "run", device=name))


def test_a_device_may_be_an_object(tmp_path) -> None:
    train(device=torch.device("cpu"), out=tmp_path / "run")
    assert gb.load(tmp_path / "run").config["training"]["device"] == "cpu"


def test_every_training_row_is_checked_before_the_first_update() -> None:
    rows = np.zeros((6000, 9))
    rows[:, 0] = np.arange(6000) % 2
    data = gb.data.load(rows, transform="identity", validation=0, test=0)
    place = int(data.train.index[5500])  # far behind the rows that metrics are taken on
    rows[place, 3] = 2.0
    data = gb.data.load(rows, transform="identity", validation=0, test=0)
    refused("run from 0 to 2; use the transform", lambda: train(data=data), gb.DataError)


def test_validation_rows_are_checked_before_the_first_update(tmp_path) -> None:
    rows = (np.random.default_rng(0).random((100, 9)) < 0.5).astype(float)
    data = gb.data.load(rows, transform="identity", validation=2 * rows[:50], test=0)
    refused("transform", lambda: train(data=data, out=tmp_path / "run"), gb.DataError)
    assert not (tmp_path / "run").exists()


def test_early_stopping_without_validation_rows_is_refused_before_the_first_update() -> None:
    refused("validation part", lambda: train(data=bars(validation=0), patience=2, updates=10**9))


# Real-valued units take real values.


def test_named_data_are_not_turned_into_bits_for_real_valued_units() -> None:
    result = train(gb.gaussian_rbm(64, 4), "digits")
    assert result.transform.names == ["standardise-global", "dequantise:0.43"]
    assert result.data.layout == [("real", 64)]


def test_plain_arrays_are_standardised_for_real_valued_units() -> None:
    rows = np.random.default_rng(0).normal(1000, 300, (200, 3))
    result = train(gb.gaussian_rbm(3, 4), rows)
    assert result.transform.names == ["standardise"]
    samples = result.transform.inverse(gb.sample(result.machine, 400, 20).samples)
    assert abs(float(samples.mean()) - 1000) < 100


# Sampling.


def machine() -> gb.BoltzmannMachine:
    return gb.rbm(3, 2)


@pytest.mark.parametrize(
    "start", [[[0, 1, 1]], np.array([[0, 1, 1]]), np.array([[False, True, True]])]
)
def test_chains_start_from_rows_of_any_kind(start) -> None:
    found = gb.sample(machine(), steps=0, start=start)
    assert torch.equal(found.samples, torch.tensor([[0.0, 1, 1]]))
    assert gb.sample(machine(), 4, 1, start="data", data=np.zeros((2, 3))).samples.shape == (4, 3)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"n": 2.5}, "number of chains must be a whole number"),
        ({"steps": 2.5}, "number of steps must be a whole number"),
        ({"steps": "x"}, "number of steps must be a whole number"),
        ({"record": ["x"]}, "recorded step"),
        ({"start": "data", "data": bars}, r"dataset\.train\.tensor"),
        ({"start": object()}, "Chains start from noise"),
        ({"generator": "x"}, "seed of a generator"),
        ({"clamp": (torch.ones(3, dtype=torch.bool),)}, "pair"),
        ({"clamp": "all"}, "pair"),
        ({"sampler": "tempering"}, r"gb\.Tempering\(rows\), and 'tempering' is not"),
        ({"sampler": gb.Gibbs}, "sampler must be an object.*<class"),
    ],
)
def test_impossible_samples(options, words: str) -> None:
    refused(words, lambda: gb.sample(machine(), **({"n": 2, "steps": 1} | options)))


def test_a_result_of_training_is_no_machine_but_has_one() -> None:
    refused(r"result\.machine of a training, not from Trained", lambda: gb.sample(train(), 2, 1))


def test_what_is_held_may_be_arrays() -> None:
    held = np.array([True, False, False]), np.array([1.0, 0, 0])
    assert bool((gb.sample(machine(), 5, 2, clamp=held).samples[:, 0] == 1).all())


# Evaluation.


def test_rows_to_evaluate_may_be_arrays() -> None:
    found = gb.evaluate(machine(), np.zeros((5, 3)), temperatures=5, mixing_steps=9)
    assert found.splits["test"].rows == 5


@pytest.mark.parametrize(
    "options, words",
    [
        ({"subject": "runs/x"}, "a machine or a run that gibbsian.load opened, not 'runs/x'"),
        ({"chains": 0}, "number of chains"),
        ({"temperatures": 1.5}, "temperatures of AIS must be a whole number"),
        ({"chains": 1}, "number of chains must be a whole number of at least 2"),
        ({"mixing_steps": 0}, "number of mixing steps"),
        ({"mixing_steps": 1}, "number of mixing steps must be a whole number of at least 8"),
        ({"ladder_steps": "x"}, "number of steps of the ladder"),
        ({"training_steps": "x"}, "number of steps of an update"),
        ({"sampler": "tempering"}, "sampler must be an object.*'tempering' is not"),
        ({"sampler": gb.Gibbs}, "sampler must be an object.*<class"),
        ({"reference": "a"}, "reference is a machine with W = 0.*not str"),
        ({"data": "digits"}, "test data are rows of values"),
        ({"data": None}, "A machine alone has no data"),
    ],
)
def test_impossible_evaluations(options, words: str) -> None:
    given = {"subject": machine(), "data": torch.zeros(5, 3)} | options
    told = []
    given["progress"] = lambda *stage: told.append(stage)
    refused(words, lambda: gb.evaluate(given.pop("subject"), given.pop("data"), **given))
    assert not told  # refused before any chain has run


@pytest.mark.parametrize(
    "options, words",
    [
        ({"chains": 2.5}, "number of chains"),
        ({"steps": 1}, "number of steps must be a whole number of at least 16"),
        ({"margin": "x"}, "margin of a certificate"),
        ({"training_steps": 1.5}, "number of steps of an update"),
        ({"sampler": "tempering"}, r"gb\.Tempering\(rows\), and 'tempering' is not"),
        ({"sampler": gb.Gibbs}, "sampler must be an object.*<class"),
    ],
)
def test_impossible_certificates(options, words: str) -> None:
    refused(words, lambda: gb.certify(machine(), torch.zeros(5, 3), **({"steps": 16} | options)))


def _ais(machine, reference, *settings):
    return evaluators.ais(machine, reference, *settings)


def _reverse(machine, reference, chains, *temperatures):
    return evaluators.reverse_ais(machine, reference, torch.zeros(4, 3), *temperatures)


def _partition(machine, reference, chains=4, temperatures=5, **settings):
    return evaluators.partition(
        machine, torch.zeros(4, 3), reference=reference, chains=chains, temperatures=temperatures,
        **settings,
    )  # fmt: skip


def _ladder(machine, reference, *settings):
    return evaluators.ladder_log_z(machine, reference, *settings)


@pytest.mark.parametrize(
    "ask, settings, words",
    [
        (_ais, (2.5, 10), "number of chains of AIS must be a whole number of at least 2"),
        (_ais, (1, 10), "number of chains of AIS"),
        (_ais, ("x", 10), "number of chains of AIS"),
        (_ais, (4, 2.5), "number of temperatures of AIS"),
        (_ais, (4, True), "number of temperatures of AIS"),
        (_ais, (4, None), "number of temperatures of AIS"),
        (_ais, (4, "xy"), "levels of a path"),
        (_reverse, (4, 0), "number of temperatures of AIS"),
        (_partition, (2.5,), "number of chains of AIS"),
        (_partition, (4, 2.5), "number of temperatures of AIS"),
        (_ladder, (2.5,), "number of chains"),
        (_ladder, (4, 1.5), "number of levels of tempering"),
        (_ladder, (4, None, "x"), "number of steps"),
    ],
)
def test_impossible_estimates_of_log_z(ask, settings, words: str) -> None:
    reference = gb.path.reference(machine(), torch.zeros(4, 3))
    refused(words, lambda: ask(machine(), reference, *settings))


@pytest.mark.parametrize("ask", [_ais, _reverse, _partition, _ladder])
def test_a_reference_is_a_machine(ask) -> None:
    for wrong in ("a", None, torch.zeros(4, 3), gb.rbm):
        if wrong is not None or ask is not _partition:  # which fits one itself
            refused("reference is a machine with W = 0", lambda w=wrong: ask(machine(), w, 4))


def test_numbers_of_numpy_are_temperatures() -> None:
    reference = gb.path.reference(machine(), torch.zeros(4, 3))
    assert evaluators.ais(machine(), reference, np.int64(4), np.int64(5)).temperatures == 5
    assert len(gb.samplers.annealed(machine(), reference, 3, np.int64(5)).samples) == 3


@pytest.mark.parametrize("given", [{"equilibrate": 1.5}, {"ladder_steps": "x"}])
def test_impossible_steps_of_a_partition(given) -> None:
    reference = gb.path.reference(machine(), torch.zeros(4, 3))
    refused("number of steps", lambda: _partition(machine(), reference, **given))


@pytest.mark.parametrize("value", ["no", None, 1])
def test_a_switch_is_true_or_false(value) -> None:
    for name in ("adjusted", "scaled"):
        refused("must be True or False", lambda n=name: gb.Langevin(**{n: value}))
    refused("must be True or False", lambda: gb.RatesFPCD(torch.zeros(2, 3), shared=value))
    assert gb.Langevin(adjusted=np.bool_(False)).adjusted is False


@pytest.mark.parametrize("make", [gb.CD, gb.PCD])
def test_a_sampler_is_an_object(make) -> None:
    refused("sampler must be an object", lambda: make(sampler=3), gb.TrainingError)
    refused("samplers by name are gibbs", lambda: gb.PCD(sampler="gibs"), gb.TrainingError)
    refused("sampler must be an object", lambda: gb.CD(sampler="gibbs"), gb.TrainingError)
    refused("probability of a refresh", lambda: gb.PCD(refresh="x"), gb.TrainingError)


def test_sizes_of_deep_machines() -> None:
    for hidden in (3, np.int64(3), [np.int64(3)], np.array([3])):
        assert gb.dbm(4, hidden).sizes == (4, 3)
    for hidden in (3.5, None, "3"):
        refused("number of Bernoulli units", lambda h=hidden: gb.dbm(4, h))


def test_classes_and_rows_of_deep_belief_networks() -> None:
    machine = gb.rbm(belief.with_labels(gb.Bernoulli(4), 3), 5)
    network = belief.stack([machine], [0, 1, 2])
    for label in ("1", True, 1.5):
        refused("one whole number", lambda y=label: network.generate(2, 3, label=y))
    refused("use torch.as_tensor", lambda: network.classify(np.zeros((2, 4), dtype=np.float32)))
