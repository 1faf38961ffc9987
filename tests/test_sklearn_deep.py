"""Features of any layer in scikit-learn: the deep estimator, and machines that are trained already."""

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import gibbsian as gb
from gibbsian import belief, features
from gibbsian.sklearn import BernoulliDBM, BernoulliRBM, MachineFeatures

ARRAYS = ("components_", "intercept_hidden_", "intercept_visible_")
BITS = (np.random.default_rng(1).random((60, 8)) < 0.4).astype(np.float64)


@pytest.mark.slow  # the everyday run has them for BernoulliRBM, whose code this is but for its depth
@pytest.mark.filterwarnings("ignore::gibbsian.errors.GibbsianWarning")
@parametrize_with_checks([BernoulliDBM((2, 2), n_iter=1, batch_size=50)])
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def test_with_one_hidden_layer_it_is_the_rbm_bit_for_bit() -> None:
    shared = {"n_iter": 3, "random_state": 4, "center": True, "learning_rate": 0.1}
    deep = BernoulliDBM((5,), **shared).fit(BITS)
    flat = BernoulliRBM(5, **shared).fit(BITS)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(deep, name), getattr(flat, name))
    np.testing.assert_allclose(deep.transform(BITS), flat.transform(BITS), rtol=1e-12)


def test_transform_shows_any_layer_and_follows_the_machine() -> None:
    deep = BernoulliDBM((5, 4, 3), n_iter=2, random_state=0).fit(BITS)
    assert deep.machine_.sizes == (8, 5, 4, 3)
    assert deep.components_3_.shape == (3, 4)
    rows = torch.from_numpy(BITS)
    for layer, width in ((1, 5), (2, 4), (3, 3), (-1, 3), (-3, 5)):
        deep.set_params(layer=layer)
        expected = features.transform(deep.machine_, rows, layer)
        np.testing.assert_allclose(deep.transform(BITS), expected.numpy(), atol=1e-12)
        assert deep.transform(BITS).shape == (60, width)
        assert len(deep.get_feature_names_out()) == width
    np.testing.assert_array_equal(deep.transform(sparse.csr_matrix(BITS)), deep.transform(BITS))


def test_refitting_forgets_deeper_layers_and_copies_are_equal() -> None:
    deep = BernoulliDBM((5, 4, 3), n_iter=1, random_state=0).fit(BITS)
    again = pickle.loads(pickle.dumps(deep))
    np.testing.assert_array_equal(again.transform(BITS), deep.transform(BITS))
    deep.set_params(n_components=(5, 4)).fit(BITS)
    assert deep.machine_.sizes == (8, 5, 4)
    assert not hasattr(deep, "components_3_")
    one = clone(deep).fit(BITS)
    np.testing.assert_array_equal(one.components_2_, deep.components_2_)
    before = one.components_2_.copy()
    one.partial_fit(BITS)
    assert not np.array_equal(one.components_2_, before)


def test_pipelines_classify_by_any_layer() -> None:
    X, y = load_digits(n_class=2, return_X_y=True)
    X = X / 16
    for layer in (1, -1):
        pipe = make_pipeline(
            BernoulliDBM((20, 10), layer=layer, n_iter=10, random_state=0), LogisticRegression()
        ).fit(X[:200], y[:200])
        assert pipe.score(X[200:], y[200:]) > 0.9
    machine = pipe[0].machine_
    ready = make_pipeline(MachineFeatures(machine, 1), LogisticRegression()).fit(X[:200], y[:200])
    assert ready.score(X[200:], y[200:]) > 0.9
    shuffled = np.random.default_rng(0).permutation(y)
    assert clone(ready).fit(X[:200], shuffled[:200]).score(X[200:], shuffled[200:]) < 0.7


def test_a_trained_machine_of_any_units() -> None:
    machine = gb.gaussian_rbm(4, 3)
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    step = MachineFeatures(machine).fit(X)
    expected = features.transform(machine, torch.from_numpy(X)).numpy()
    np.testing.assert_array_equal(step.transform(X), expected)
    assert step.transform(X).dtype == np.float32
    assert list(step.get_feature_names_out()) == [f"machinefeatures{i}" for i in range(3)]


def test_a_deep_belief_network_is_a_step_as_well() -> None:
    pen = belief.with_labels(gb.Bernoulli(5), 2)
    network = belief.stack([gb.rbm(8, 5), gb.rbm(pen, 4)], (0, 1))
    for p in network.parameters():
        p.data.normal_(generator=torch.Generator().manual_seed(0))
    X = BITS.astype(np.float32)
    for layer, width in ((1, 5), (2, 4), (-1, 4)):
        found = MachineFeatures(network, layer).fit_transform(X)
        assert found.shape == (60, width)
        expected = network.transform(torch.from_numpy(X), layer).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: BernoulliDBM((3, 2), layer=3).fit(BITS), "layers are 1 to 2"),
        (lambda: BernoulliDBM((3, 2), layer=0).fit(BITS), "no hidden layer 0"),
        (lambda: BernoulliDBM((3, 2), layer=1.5).fit(BITS), "layer must be a whole number"),
        (lambda: BernoulliDBM(()).fit(BITS), "at least one hidden layer"),
        (lambda: BernoulliDBM((3, 0)).fit(BITS), "each of n_components"),
        (lambda: BernoulliDBM("deep").fit(BITS), "each of n_components"),
        (lambda: BernoulliDBM((2, 2), n_iter=1).fit(BITS).inverse_transform(BITS), "no inverse"),
        (lambda: BernoulliDBM((2, 2), n_iter=1).fit(BITS).free_energy(BITS), "one hidden layer"),
        (lambda: MachineFeatures("runs/digits").fit(BITS), "takes a machine"),
        (lambda: MachineFeatures(gb.rbm(8, 2), 2).fit(BITS), "layer is 1"),
        (lambda: MachineFeatures(gb.rbm(7, 2)).fit(BITS), "rows of 7 values"),
        (lambda: MachineFeatures(gb.rbm(8, 2)).fit(BITS + 1), "from 0 to 1"),
    ],
)
def test_impossible_requests_get_a_sentence(call, words) -> None:
    with pytest.raises(gb.GibbsianError, match=words):
        call()
