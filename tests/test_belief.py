"""Which estimate of log Z is believed, and when none is."""

import json
import math

import pytest
import torch
from evaluator_machines import MACHINES, rows, truth

import gibbsian as gb
from gibbsian import evaluators, models
from gibbsian.estimators.online import OnlineLogZ
from gibbsian.evaluators import Ladder, Partition, estimate, log_likelihood, partition
from gibbsian.path import reference
from gibbsian.units import Spin

G = torch.Generator().manual_seed(0)
NARROW = 0.1 * torch.randn(100, generator=G).double()
LOWER = estimate(NARROW, "forward", 9)
UPPER = {"data": estimate(NARROW, "reverse", 9)}


def ladder(log_z=0.0, error=0.05, trips=500, acceptance=0.4) -> Ladder:
    half = 1.96 * error
    return Ladder(
        log_z, error, log_z - half, log_z + half, 0.0, (0.0, 1.0), torch.tensor([log_z]).double(),
        torch.tensor([acceptance]), trips, 100, 50, (torch.zeros(100, 3), torch.zeros(100, 2)),
    )  # fmt: skip


def test_exact_comes_first_then_the_ladder_then_the_pair():
    whole = Partition(0.01, LOWER, UPPER, 5, ladder())
    assert whole.believed.name == "exact" and whole.log_z == 0.01 and whole.standard_error == 0
    found = Partition(None, LOWER, UPPER, 5, ladder(0.02))
    assert found.believed.name == "ladder" and found.log_z == 0.02
    assert found.believed.low == pytest.approx(0.02 - 1.96 * 0.05)
    assert "believe the ladder" in found.words()[0] and "agree" in found.words()[1]
    pair = Partition(None, LOWER, UPPER, 5)
    assert pair.believed.name == "ais" and pair.log_z == LOWER.log_z
    assert pair.believed.low <= LOWER.low <= UPPER["data"].high <= pair.believed.high
    assert Partition(None, None, {}).believed is None
    table = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert table["believed"]["name"] == "ladder" and table["ladder"]["doubt"] is None


DOUBTED = {
    "round trips": ladder(trips=3),
    "swaps between levels": ladder(acceptance=0.01),
    "nats wide": ladder(error=2.0),
    "AIS lies 3": ladder(-3.0),
}


@pytest.mark.parametrize("reason", DOUBTED)
def test_a_ladder_with_a_doubt_is_not_believed(reason):
    found = Partition(None, LOWER, UPPER, 5, DOUBTED[reason])
    assert found.believed.name == "ais" and reason in found.ladder_doubt
    assert "not the ladder" in found.words()[1] and found.as_dict()["ladder"]["doubt"]
    apart = Partition(
        None, LOWER, {"noise": estimate(NARROW - 9, "reverse", 9)}, 5, DOUBTED[reason]
    )
    assert apart.believed is None and not apart.converged
    assert all(w.startswith("Not converged") for w in apart.words())


def test_a_small_contradiction_counts_where_both_are_sure_of_themselves():
    """AIS is a lower bound: firm estimates of it 0.3 nats above the ladder say that the ladder is wrong."""
    firm = estimate(NARROW, "forward", 9)
    beside = Partition(None, firm, {}, 5, ladder(firm.log_z - 0.3, error=0.01))
    assert beside.ladder_doubt is not None and "AIS lies 0.3" in beside.ladder_doubt
    assert Partition(None, firm, {}, 5, ladder(firm.log_z - 0.05, error=0.01)).ladder_doubt is None
    # A single chain that carries all the weight is no evidence of that.
    w = torch.cat([torch.full((99,), -50.0), torch.tensor([math.log(100.0) + 0.3])]).double()
    loose = estimate(w, "forward", 9)
    assert loose.ess < 2
    assert Partition(None, loose, {}, 5, ladder(loose.log_z - 0.3, error=0.01)).ladder_doubt is None


def test_a_believed_interval_reaches_to_ais_where_that_lies_above():
    """AIS bounds log Z from below, so an interval that ends below it is too sure of itself."""
    firm = estimate(torch.linspace(-1, 1, 100, dtype=torch.float64), "forward", 9)
    above = Partition(None, firm, {}, 5, ladder(firm.log_z - 0.15, error=0.02))
    assert above.believed is not None and above.believed.name == "ladder"
    assert above.believed.high == pytest.approx(firm.log_z)
    assert "stretched to AIS" in above.words()[0]
    # One that lies above AIS stays what it was.
    below = Partition(None, firm, {}, 5, ladder(firm.log_z + 0.15, error=0.02))
    assert below.believed is not None and below.ladder is not None
    assert below.believed.high == below.ladder.high
    assert "stretched" not in below.words()[0]


def test_reverse_ais_from_the_top_far_below_speaks_against_the_ladder():
    low = {
        "ladder": estimate(NARROW + 3, "reverse", 9)
    }  # log Z is minus the log of the mean weight
    found = Partition(None, estimate(NARROW - 3, "forward", 9), low, 5, ladder())
    assert (
        "Reverse AIS from its top lies 3" in found.ladder_doubt and "misses" in found.ladder_doubt
    )


def test_reverse_ais_that_is_higher_from_data_speaks_against_the_ladder():
    """The top of the ladder lacks a mode, and so agrees with itself and with AIS."""
    both = {"data": estimate(NARROW - 2, "reverse", 9), "ladder": estimate(NARROW, "reverse", 9)}
    found = Partition(None, LOWER, both, 5, ladder())
    assert "from data-started chains lies 2.00 nats above" in found.ladder_doubt
    assert found.believed is None
    # Chains from data that lack a mode themselves say nothing.
    both["data"] = estimate(NARROW + 2, "reverse", 9)
    assert Partition(None, LOWER, both, 5, ladder()).believed.name == "ladder"


def test_a_likelihood_is_told_with_the_estimate_to_believe():
    name = "bernoulli-bernoulli"
    machine, x = MACHINES[name], rows(MACHINES[name], 30)
    found = log_likelihood(machine, x, Partition(None, LOWER, UPPER, 5, ladder(0.02)))
    told = found.as_dict()
    assert told["believed"]["name"] == "ladder" and told["ladder"] == told["believed"]["value"]
    assert told["ladder"] == pytest.approx(found.mean, abs=1e-5)
    assert told["believed"]["low"] == pytest.approx(-found.mean_free_energy - 0.02 - 1.96 * 0.05)
    assert told["standard_error_log_z"] == 0.05


def two_valleys():
    machine = models.rbm(Spin(8), Spin(6))
    with torch.no_grad():
        machine.joints[0].weight.fill_(0.9)
        machine.layers[0].bias.fill_(0.1)
    return machine


def test_the_ladder_is_right_where_chains_from_one_valley_are_wrong():
    """Reverse AIS from stuck chains agrees with nothing; the ladder's top starts it rightly."""
    machine = two_valleys()
    x = rows(machine, 200)
    base = reference(machine, torch.cat([x, -x]))  # of mean 0: no valley is favoured
    stuck = {"data": (-torch.ones(40, 8), -torch.ones(40, 6))}
    found = partition(
        machine, rows(machine, 20), reference=base, chains=40, temperatures=400, starts=stuck,
        limit_bits=1, ladder_steps=250, generator=0,
    )  # fmt: skip
    exact = evaluators.log_z(machine)
    assert found.exact is None and found.believed.name == "ladder", found.words()
    assert abs(found.log_z - exact) < 4.5 * found.standard_error
    assert (
        abs(found.reverse["ladder"].log_z - exact) < 0.2 < abs(found.reverse["data"].log_z - exact)
    )


@pytest.mark.parametrize("name", ["relu-bernoulli", "softmax-bernoulli"])
def test_zero_steps_leave_the_ladder_out_and_others_keep_it_right(name):
    machine, x = MACHINES[name], rows(MACHINES[name], 50)
    options = {"chains": 50, "temperatures": 40, "equilibrate": 20, "generator": 0}
    assert partition(machine, x, ladder_steps=0, **options).ladder is None
    found = partition(machine, x, ladder_steps=60, **options)
    assert found.ladder.steps == 60 and found.ladder_doubt is None
    assert abs(found.ladder.log_z - truth(name).log_z) < 4.5 * found.ladder.standard_error + 1e-3
    assert math.isfinite(found.reverse["ladder"].log_z)


# Along a trajectory, and on-line.


def test_of_two_ladders_the_surer_is_believed_and_the_lower_doubted():
    both = Partition(None, LOWER, UPPER, 5, ladder(0.0, 0.05), ladder(0.01, 0.02))
    assert both.believed.name == "trajectory" and both.log_z == 0.01
    assert both.standard_error == 0.02
    assert "believe the trajectory" in both.words()[0]
    assert any(w.startswith("The ladder gives log Z 0.00") for w in both.words())
    # A mode that one of them has not found is missing from its log Z.
    missed = Partition(None, None, {}, 5, ladder(-0.7, 0.02), ladder(0.0, 0.05))
    assert missed.believed.name == "trajectory"
    assert "trajectory lies 0.70 nats above the ladder" in missed.ladder_doubt
    assert any("The ladder is doubted" in w for w in missed.words())
    # And a ladder that nobody climbed speaks against nothing.
    alone = Partition(None, None, {}, 5, ladder(-0.7, 0.02), ladder(0.0, 0.05, trips=3))
    assert alone.believed.name == "ladder" and "round trips" in alone.trajectory_doubt
    table = json.loads(json.dumps(both.as_dict(), allow_nan=False))
    assert table["trajectory"]["doubt"] is None and table["online"] is None


def test_training_that_knows_of_more_casts_doubt_but_is_never_believed():
    known = OnlineLogZ(0.02, 0.05, 40.0, "the witnesses")
    fine = Partition(None, LOWER, UPPER, 5, ladder(), online=known)
    assert fine.ladder_doubt is None and fine.believed.name == "ladder"
    assert any("the witnesses put log Z at 0.02 ± 0.10" in w for w in fine.words())
    above = Partition(None, None, {}, 5, ladder(-1.0), online=known)
    assert "log Z of its training lies 1.02 nats above" in above.ladder_doubt
    assert above.believed is None
    below = Partition(None, LOWER, UPPER, 5, ladder(), online=OnlineLogZ(-3.0, 0.05, 40.0, "they"))
    assert below.ladder_doubt is None


@pytest.mark.parametrize("method", [gb.Jarzynski(chains=50, witnesses=400), gb.PTT(chains=100)],
                         ids=["jarzynski", "ptt"])  # fmt: skip
def test_a_run_is_evaluated_along_its_trajectory_and_by_what_training_knew(method, tmp_path):
    """All estimates of the averaged machine's log Z agree with the exact one, within their errors."""
    data = gb.data.load("bars-and-stripes:n=3,rows=300", validation=0, test=100)
    run = gb.train(
        gb.rbm(9, 6), data, method, updates=600, lr=0.5, seed=0, out=tmp_path / "run",
        save_trajectory=True, progress=False,
    )  # fmt: skip
    found = gb.evaluate(
        gb.load(tmp_path / "run"),
        temperatures=100,
        mixing_steps=100,
        ladder_steps=60,
        limit_bits=0,
        chains=50,
    )
    z, exact = found.partition, evaluators.log_z(run.machine)
    assert z.exact is None and z.trajectory is not None and z.online is not None
    for e in (z.ladder, z.trajectory, z.online):
        assert 0 < e.standard_error < 0.3
        assert abs(e.log_z - exact) < 4 * e.standard_error + 0.02
    assert len(z.trajectory.updates) == len(z.trajectory.log_zs) >= 2
    assert z.trajectory.updates[0] == 0 and z.trajectory.updates[-1] == 600
    part = found.as_dict()["test"]["log_likelihood"]
    assert part["trajectory"] == pytest.approx(part["ladder"], abs=0.2)
    assert part["online"] is not None
    assert {"ladder", "trajectory", "online", "ais", "reverse_ais"} == set(
        part["standard_errors_log_z"]
    )
