import itertools
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import expit
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from gibbsian.errors import GibbsianWarning, TrainingError
from gibbsian.evaluators.exact import log_z
from gibbsian.sklearn import BernoulliRBM, GaussianRBM

BOTH = pytest.mark.parametrize("kind", [BernoulliRBM, GaussianRBM])


def failing_checks(estimator):
    """The names of scikit-learn's own checks that an estimator fails, with the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(found) > 30  # the list was really run
    return {c["check_name"]: str(c["exception"]) for c in found if c["status"] == "failed"}


# What scikit-learn's own estimator fails, found by running it: nothing else may be expected to fail.
THEIRS = failing_checks(neural_network.BernoulliRBM(n_components=2, n_iter=2))


@pytest.mark.filterwarnings("ignore::gibbsian.errors.GibbsianWarning")
@parametrize_with_checks(
    [BernoulliRBM(n_components=2, n_iter=2), GaussianRBM(n_components=2, n_iter=2)],
    expected_failed_checks=lambda e: THEIRS if isinstance(e, BernoulliRBM) else {},
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_names_and_defaults_are_those_of_scikit_learn():
    theirs = neural_network.BernoulliRBM().get_params()
    ours = BernoulliRBM().get_params()
    assert theirs.items() <= ours.items()
    assert {"method", "n_steps", "n_chains", "center", "average"} <= ours.keys()


# --- the numbers of scikit-learn ---------------------------------------------------------------


@pytest.fixture(scope="module")
def bits():
    rng = np.random.default_rng(1)
    return (rng.random((60, 1)) < 0.5) ^ (rng.random((60, 12)) < 0.2)


def copied(theirs, **params):
    ours = BernoulliRBM(random_state=theirs.random_state, **params)
    for name in ("components_", "intercept_hidden_", "intercept_visible_", "n_features_in_"):
        setattr(ours, name, getattr(theirs, name))
    return ours


def test_on_the_arrays_of_scikit_learn_all_numbers_are_equal(bits):
    X = bits.astype(float)
    theirs = neural_network.BernoulliRBM(5, learning_rate=0.5, random_state=3).fit(X)
    ours = copied(theirs)
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-12)
    np.testing.assert_allclose(ours.free_energy(X), theirs._free_energy(X), rtol=1e-9)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-9)
    X = sparse.csr_matrix(X)
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-12)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-9)


def test_score_samples_estimates_the_pseudo_likelihood(bits):
    X = bits[:5].astype(float)
    theirs = neural_network.BernoulliRBM(5, learning_rate=0.5, random_state=3).fit(bits)
    ours = copied(theirs)

    def conditionals(rbm):
        flips = np.stack([np.where(np.eye(12)[i], 1 - X, X) for i in range(12)])
        gap = np.stack([rbm._free_energy(x) for x in flips]) - rbm._free_energy(X)
        return -np.logaddexp(0, -gap).sum(axis=0)

    ours.set_params(random_state=np.random.RandomState(0))
    draws = np.stack([ours.score_samples(X) for _ in range(400)])
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.abs((draws.mean(axis=0) - conditionals(theirs)) / error).max() < 4
    theirs.components_ = 0.5 * theirs.components_  # the wrong answer
    assert np.abs((draws.mean(axis=0) - conditionals(theirs)) / error).max() > 8


def test_partial_fit_goes_on_from_the_arrays_of_scikit_learn(bits):
    theirs = neural_network.BernoulliRBM(5, learning_rate=0.5, random_state=3).fit(bits)
    ours = copied(theirs, learning_rate=1e-9).partial_fit(bits)
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=1e-5, atol=1e-6)
    assert ours.components_.shape == (5, 12)


# --- against enumeration -----------------------------------------------------------------------

HIDDEN = np.array(list(itertools.product([0.0, 1.0], repeat=2)))
VISIBLE = np.array(list(itertools.product([0.0, 1.0], repeat=3)))


def by_hand(kind):
    rbm = kind(n_components=2, random_state=0)
    rbm.components_ = np.array([[1.5, -2.0, 0.5], [-1.0, 1.0, 2.5]])
    rbm.intercept_hidden_ = np.array([0.3, -1.0])
    rbm.intercept_visible_ = np.array([-0.5, 0.4, -1.2])
    if kind is GaussianRBM:
        rbm.precisions_ = np.array([2.0, 0.5, 4.0])
    return rbm


def hidden_given(rbm, v):
    on = expit(rbm.components_ @ v + rbm.intercept_hidden_)
    return np.prod(np.where(HIDDEN == 1, on, 1 - on), axis=1)


def test_gibbs_draws_hidden_then_visible():
    rbm, v = by_hand(BernoulliRBM), np.array([1.0, 0.0, 1.0])
    drawn = np.concatenate([rbm.gibbs(np.tile(v, (10_000, 1))) for _ in range(2)])
    assert drawn.dtype == bool
    assert not np.array_equal(drawn[:10_000], drawn[10_000:])  # calls go on, not again

    def distance(rbm):
        given_h = expit(HIDDEN @ rbm.components_ + rbm.intercept_visible_)
        p = np.stack([np.prod(np.where(x == 1, given_h, 1 - given_h), axis=1) for x in VISIBLE])
        p = p @ hidden_given(rbm, v)
        found = np.array([(drawn == x).all(axis=1).mean() for x in VISIBLE])
        return np.abs((found - p) / np.sqrt(p * (1 - p) / len(drawn))).max()

    assert distance(rbm) < 4
    rbm.components_ = rbm.components_ * 0.9
    assert distance(rbm) > 5


def test_sample_has_the_distribution_of_the_machine():
    rbm = by_hand(BernoulliRBM)
    drawn = rbm.sample(20_000, n_steps=40)
    assert np.array_equal(drawn, rbm.sample(20_000, n_steps=40))  # random_state is an int

    def distance(rbm):
        p = np.exp(-rbm.free_energy(VISIBLE))
        p /= p.sum()
        found = np.array([(drawn == x).all(axis=1).mean() for x in VISIBLE])
        return np.abs((found - p) / np.sqrt(p * (1 - p) / len(drawn))).max()

    assert distance(rbm) < 4
    rbm.components_ = rbm.components_ * 0.9
    assert distance(rbm) > 5


def test_gaussian_gibbs_has_the_right_mean_and_noise():
    rbm, v = by_hand(GaussianRBM), np.array([0.5, -1.0, 1.0])
    drawn = rbm.gibbs(np.tile(v, (20_000, 1)))
    p = hidden_given(rbm, v)
    means = (HIDDEN @ rbm.components_ + rbm.intercept_visible_) / rbm.precisions_
    mean = p @ means
    variance = p @ (means - mean) ** 2
    spread = np.sqrt((variance + 1 / rbm.precisions_) / len(drawn))
    assert np.abs((drawn.mean(axis=0) - mean) / spread).max() < 4
    found = drawn.var(axis=0)
    np.testing.assert_allclose(found, variance + 1 / rbm.precisions_, rtol=0.04)
    for wrong in (variance, variance + 1 / rbm.precisions_**2):  # no noise; variance taken as std
        assert not np.allclose(found, wrong, rtol=0.04)


def test_gaussian_scores_are_log_densities_up_to_a_constant():
    rbm, X = by_hand(GaussianRBM), np.random.default_rng(0).normal(size=(6, 3))
    alone = X @ rbm.intercept_visible_ - X**2 @ rbm.precisions_ / 2
    pairs = HIDDEN @ (rbm.components_ @ X.T + rbm.intercept_hidden_[:, None])
    expected = alone + np.logaddexp.reduce(pairs, axis=0)
    np.testing.assert_allclose(rbm.score_samples(X), expected, rtol=1e-6)
    with torch.no_grad():
        free = rbm.machine_.free_energy(torch.tensor(X))
    np.testing.assert_allclose(free, -expected, rtol=1e-6)
    np.testing.assert_allclose(
        rbm.inverse_transform(HIDDEN),
        (HIDDEN @ rbm.components_ + rbm.intercept_visible_) / rbm.precisions_,
    )


# --- training ----------------------------------------------------------------------------------


def likelihood(rbm, X):
    return float(-rbm.free_energy(X).mean() - log_z(rbm.machine_))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"center": True},
        {"method": "cd", "n_steps": 3},
        {"n_chains": 25, "average": 0.9, "schedule": "linear"},
        {"optimizer": "adam", "learning_rate": 0.03},
    ],
    ids=str,
)
def test_the_exact_likelihood_rises(bits, params):
    params = {"learning_rate": 0.5, **params}
    start = BernoulliRBM(3, n_iter=0, random_state=0, **params).fit(bits)
    rbm = clone(start).set_params(n_iter=30).fit(bits)
    assert likelihood(rbm, bits) > likelihood(start, bits) + 0.5
    chains = params.get("n_chains", 10)
    assert not hasattr(rbm, "h_samples_") if "method" in params else len(rbm.h_samples_) == chains


@pytest.mark.parametrize("strength", ["l1", "l2"])
def test_penalties_shrink_the_weights(bits, strength):
    plain = BernoulliRBM(3, learning_rate=0.5, n_iter=30, random_state=0).fit(bits)
    rbm = clone(plain).set_params(**{strength: 0.3}).fit(bits)
    assert np.linalg.norm(rbm.components_) < 0.3 * np.linalg.norm(plain.components_)


def test_a_prior_shrinks_weights_and_wants_to_know_all_rows(bits):
    plain = BernoulliRBM(3, learning_rate=0.1, n_iter=60, random_state=0).fit(bits)
    rbm = clone(plain).set_params(prior_scale=0.5).fit(bits)
    assert np.abs(rbm.components_).mean() < 0.8 * np.abs(plain.components_).mean()
    wide = clone(plain).set_params(prior_scale=1e6).fit(bits)
    np.testing.assert_allclose(wide.components_, plain.components_, atol=1e-4)
    with pytest.raises(TrainingError, match="use fit, or an l1 or l2 penalty"):
        clone(rbm).partial_fit(bits)
    with pytest.raises(TrainingError, match="prior_scale"):
        clone(rbm).set_params(prior_scale="wide").fit(bits)
    with pytest.raises(TrainingError, match="prior_scale must be 0 or positive"):
        clone(rbm).set_params(prior_scale=-1).fit(bits)


def correlated(rows=300):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(rows, 3))
    X[:, 1] += 2 * np.sign(X[:, 0])
    return X


def test_gaussian_samples_from_noise_look_like_the_data():
    X = correlated() * [100, 1, 0.01] + [1000, 0, -3]
    rbm = GaussianRBM(8, learning_rate=0.2, n_iter=80, schedule="linear", average=0.99,
                      random_state=0).fit(X)  # fmt: skip
    drawn = rbm.sample(4000, n_steps=200)
    z = (drawn - X.mean(axis=0)) / X.std(axis=0)
    assert np.abs(z.mean(axis=0)).max() < 0.15
    assert np.abs(z.std(axis=0) - 1).max() < 0.1
    real, found = np.corrcoef(X.T)[0, 1], np.corrcoef(drawn.T)[0, 1]
    assert abs(found - real) < 0.15 < abs(real) - 0.15  # independent columns would not pass
    start = clone(rbm).set_params(n_iter=0).fit(X)
    assert likelihood(rbm, X) > likelihood(start, X) + 0.4
    assert np.isfinite(rbm.score_samples(X)).all()


def test_gaussian_fit_does_not_depend_on_units_of_measurement():
    X = correlated(40)
    factor = np.array([1024.0, 1.0, 2.0**-12])  # exact in binary, so draws cannot differ
    one = GaussianRBM(4, random_state=0).fit(X)
    two = clone(one).fit(X * factor)
    np.testing.assert_allclose(two.transform(X * factor), one.transform(X), rtol=1e-9)
    np.testing.assert_allclose(two.precisions_, one.precisions_ / factor**2, rtol=1e-9)
    np.testing.assert_allclose(two.components_, one.components_ / factor, rtol=1e-9)
    moved = clone(one).set_params(n_iter=1).fit(X + 64)
    one.set_params(n_iter=1).fit(X)
    np.testing.assert_allclose(moved.transform(X + 64), one.transform(X), atol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("method", ["pcd", "cd"])
@BOTH
def test_partial_fit_keeps_chains_and_optimiser(bits, kind, method, optimizer):
    X = bits if kind is BernoulliRBM else correlated(20)
    rbm = kind(4, method=method, optimizer=optimizer, average=0.8, batch_size=len(X), n_iter=4,
               random_state=5)  # fmt: skip
    parts = clone(rbm)
    for _ in range(4):
        assert parts.partial_fit(X) is parts
        parts = pickle.loads(pickle.dumps(parts))
    rbm.fit(X)
    for name in rbm._arrays:
        np.testing.assert_array_equal(getattr(parts, name), getattr(rbm, name))
    # With chains or moments lost in between, it would be another machine.
    lost = clone(rbm).partial_fit(X)
    for _ in range(3):
        del lost._training
        lost.partial_fit(X)
    assert not np.allclose(lost.components_, rbm.components_, rtol=1e-3)


def test_partial_fit_takes_a_new_rate_and_edited_arrays(bits):
    rbm = BernoulliRBM(4, random_state=0).partial_fit(bits)
    before = rbm.components_.copy()
    rbm.set_params(learning_rate=1e-12).partial_fit(bits)
    np.testing.assert_allclose(rbm.components_, before, atol=1e-7)
    rbm.components_ = before + 1
    rbm.partial_fit(bits)
    np.testing.assert_allclose(rbm.components_, before + 1, atol=1e-6)
    rbm.set_params(learning_rate=0.1, optimizer="adam").partial_fit(bits)  # another optimiser
    assert not np.allclose(rbm.components_, before + 1, atol=1e-3)


def test_partial_fit_follows_the_power_schedule(bits):
    rbm = BernoulliRBM(4, batch_size=60, n_iter=3, schedule="power", random_state=0)
    parts = clone(rbm)
    for _ in range(3):
        parts.partial_fit(bits)
    np.testing.assert_array_equal(parts.components_, rbm.fit(bits).components_)


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_sparse_rows_train_the_same_machine(bits, container):
    rbm = BernoulliRBM(4, random_state=0).fit(bits.astype(float))
    same = clone(rbm).fit(container(bits.astype(float)))
    np.testing.assert_array_equal(same.components_, rbm.components_)
    one = clone(rbm).partial_fit(container(bits.astype(float)))
    np.testing.assert_array_equal(one.components_, clone(rbm).partial_fit(bits).components_)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_are_kept(bits, kind, dtype):
    rbm = kind(3, n_iter=1, random_state=0)
    out = rbm.fit_transform(bits.astype(dtype))
    kept = [out, rbm.h_samples_, rbm.sample(2, 5), *(getattr(rbm, name) for name in rbm._arrays)]
    assert {a.dtype for a in kept} == {np.dtype(dtype)}
    assert next(rbm.machine_.parameters()).dtype == torch.from_numpy(out).dtype


@BOTH
def test_random_state_decides_and_no_global_state_is_touched(bits, kind):
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    one, same, other = (kind(3, n_iter=2, random_state=s).fit(bits) for s in (1, 1, 2))
    for rbm in (one, same):
        rbm.gibbs(bits)
    np.testing.assert_array_equal(one.components_, same.components_)
    assert not np.allclose(one.components_, other.components_)
    np.testing.assert_array_equal(one.sample(3, 5), same.sample(3, 5))
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])
    assert torch.equal(torch_state, torch.get_rng_state())


# --- life in scikit-learn ----------------------------------------------------------------------


@BOTH
def test_pickles_hold_arrays_only(bits, kind):
    rbm = kind(3, n_iter=1, random_state=0).fit(bits)
    written = pickle.dumps(rbm)
    assert b"torch" not in written
    again = pickle.loads(written)
    np.testing.assert_array_equal(again.transform(bits), rbm.transform(bits))
    assert not hasattr(clone(rbm), "components_")


@BOTH
def test_fitted_things_need_a_fit(kind):
    rbm = kind()
    for call in (rbm.transform, rbm.score_samples, rbm.free_energy, rbm.gibbs):
        with pytest.raises(NotFittedError):
            call(np.zeros((2, 3)))
    with pytest.raises(NotFittedError):
        rbm.sample()
    assert not hasattr(rbm, "machine_")


def test_feature_names_and_grid_search(bits):
    y = bits[:, 0]
    pipe = make_pipeline(BernoulliRBM(n_iter=1, random_state=0), LogisticRegression())
    grid = {"bernoullirbm__n_components": np.arange(2, 4), "bernoullirbm__center": [True, False]}
    search = GridSearchCV(pipe, grid, cv=2).fit(sparse.csr_matrix(bits.astype(float)), y)
    names = search.best_estimator_[0].get_feature_names_out()
    assert names[1] == "bernoullirbm1"
    assert len(names) == search.best_params_["bernoullirbm__n_components"]


def test_frames_go_in_and_come_out(bits):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(bits.astype(float), columns=[f"pixel{i}" for i in range(12)])
    rbm = BernoulliRBM(3, n_iter=1, random_state=0).set_output(transform="pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rbm.set_params(verbose=1).fit(frame)
    assert list(rbm.feature_names_in_) == list(frame.columns)
    assert list(rbm.transform(frame).columns) == [f"bernoullirbm{i}" for i in range(3)]


def test_verbose_prints_as_scikit_learn_does(bits, capsys):
    rbm = BernoulliRBM(3, n_iter=2, verbose=1, random_state=0).fit(bits)
    lines = capsys.readouterr().out.splitlines()
    score = rbm.score_samples(bits).mean()
    assert [line.split(",")[0] for line in lines] == [
        "[BernoulliRBM] Iteration 1",
        "[BernoulliRBM] Iteration 2",
    ]
    assert f" pseudo-likelihood = {score:.2f}, time = " in lines[1]
    quiet = clone(rbm).set_params(verbose=0).fit(bits)
    np.testing.assert_array_equal(quiet.components_, rbm.components_)
    assert capsys.readouterr().out == ""
    GaussianRBM(3, n_iter=1, verbose=1, random_state=0).fit(correlated(30))
    assert "reconstruction error = " in capsys.readouterr().out


def test_values_outside_0_1_warn(bits):
    rbm = BernoulliRBM(3, n_iter=1, random_state=0)
    with pytest.warns(GibbsianWarning, match="from -1 to 2"):
        rbm.fit(3.0 * bits - 1)
    with pytest.warns(GibbsianWarning, match="from 0 to 3"):
        rbm.partial_fit(sparse.csr_matrix(3.0 * bits))
    assert np.isfinite(rbm.components_).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rbm.fit(0.25 * bits)
        rbm.fit(np.ones((5, 4)))  # constant columns are nothing special for bits


def test_constant_columns_warn_under_gaussian_units():
    X = correlated(50)
    X[:, 2] = 7.1
    rbm = GaussianRBM(3, sigma0=0.1, random_state=0)
    with pytest.warns(GibbsianWarning, match="1 of 3 columns .* column 2") as caught:
        rbm.fit(X)
    assert len(caught) == 1
    assert rbm.precisions_[2] <= 100 * (1 + 1e-6)
    assert abs(rbm.sample(200, 20)[:, 2].mean() - 7.1) < 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rbm.fit(correlated(50)).partial_fit(X)  # what is constant shows in the first rows


@pytest.mark.parametrize(
    "params",
    [
        {"n_components": 0}, {"n_components": 2.5}, {"learning_rate": 0}, {"learning_rate": "fast"},
        {"batch_size": 0}, {"n_iter": -1}, {"n_steps": 0}, {"n_chains": 0}, {"method": "gibbs"},
        {"average": 1.0}, {"schedule": "sometimes"}, {"optimizer": "magic"}, {"l1": -1.0},
        {"sigma0": 0.0},
    ],
    ids=str,
)  # fmt: skip
@BOTH
def test_impossible_parameters_are_one_sentence(bits, kind, params):
    if "sigma0" in params and kind is BernoulliRBM:
        with pytest.raises(TypeError):
            kind(**params)
        return
    for method in ("fit", "partial_fit"):
        if method == "partial_fit" and params.keys() & {"batch_size", "n_iter"}:
            continue
        with pytest.raises(ValueError) as caught:
            getattr(kind(**params), method)(bits.astype(float))
        assert str(caught.value).endswith(".")


def test_wrong_widths_are_refused(bits):
    rbm = BernoulliRBM(3, n_iter=1, random_state=0).fit(bits)
    for call in (rbm.transform, rbm.gibbs, rbm.free_energy, rbm.inverse_transform, rbm.partial_fit):
        with pytest.raises(ValueError, match="5"):
            call(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="'noise' or from rows"):
        rbm.sample(2, 5, start="data")
    with pytest.raises(ValueError, match="0 to 1"):
        rbm.sample(2, 5, start=np.full((2, 12), 3.0))
    assert rbm.sample(start=np.zeros((4, 12)), n_steps=0).tolist() == np.zeros((4, 12)).tolist()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.slow
def test_digits_features_are_as_good_as_those_of_scikit_learn():
    # scikit-learn's example: digits and their copies moved by a pixel, RBM, logistic regression.
    X, y = load_digits(return_X_y=True)
    X, y = np.pad(X[:400].reshape(-1, 8, 8) / 16, ((0, 0), (1, 1), (1, 1))), y[:400]
    moves = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    X = np.concatenate([X[:, i : i + 8, j : j + 8].reshape(-1, 64) for i, j in moves])
    X, X_test, y, y_test = train_test_split(X, np.tile(y, 5), test_size=0.2, random_state=0)

    def accuracy(kind, seeds=(0, 1), **params):
        found = []
        for seed in seeds:
            rbm = kind(100, learning_rate=0.06, random_state=seed, **params)
            pipe = make_pipeline(rbm, LogisticRegression(C=100, max_iter=200, tol=1e-3))
            found.append(pipe.fit(X, y).score(X_test, y_test))
        return np.mean(found)

    theirs = accuracy(neural_network.BernoulliRBM)
    assert accuracy(BernoulliRBM) > theirs - 0.01
    assert accuracy(BernoulliRBM, seeds=[0], n_iter=0) < theirs - 0.1  # random features do not do


def test_importing_the_package_leaves_scikit_learn_out():
    code = "import sys, gibbsian; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
