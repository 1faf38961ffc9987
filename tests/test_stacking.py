"""Data seen through machines: the rows of the next layer, never all at once."""

import pytest
import torch
from torch import Generator

import gibbsian as gb
from gibbsian import stacking


def _data() -> gb.data.Dataset:
    return gb.data.load("digits", limit=300)


def _machine(n: int, m: int, seed: int = 0) -> gb.BoltzmannMachine:
    machine = gb.rbm(n, m)
    with torch.no_grad():
        for p in machine.parameters():
            p.normal_(0, 0.3, generator=Generator().manual_seed(seed))
    return machine


def test_rows_are_those_that_the_machines_make() -> None:
    data, first, second = _data(), _machine(64, 9), _machine(9, 5, 1)
    seen = stacking.through(data, stacking.Up(first), stacking.Up(second))
    assert (seen.n_features, len(seen.train), seen.image_shape) == (5, len(data.train), None)
    batch = next(seen.batches(20, epoch=1, seed=3, generator=Generator().manual_seed(5)))
    source = Generator().manual_seed(5)
    below = next(data.batches(20, epoch=1, seed=3, generator=source))
    with torch.no_grad():
        h = first.layers[1].sample(first.joints[0].up(below.x), source)
        assert torch.equal(batch.x, second.layers[1].sample(second.joints[0].up(h), source))
    assert torch.equal(batch.index, below.index) and torch.equal(batch.labels, below.labels)
    assert torch.equal(seen.train.tensor(40), seen.train.tensor(40))
    again = stacking.through(stacking.through(data, stacking.Up(first)), stacking.Up(second))
    assert torch.equal(seen.train.tensor(40), again.train.tensor(40))


def test_means_are_conditional_means() -> None:
    data, machine = gb.data.load("digits", transform="threshold", limit=100), _machine(64, 9)
    seen = stacking.through(data, stacking.Up(machine, sampled=False))
    with torch.no_grad():
        truth = torch.sigmoid(
            data.train.tensor() @ machine.joints[0].weight + machine.layers[1].bias
        )
    torch.testing.assert_close(seen.train.tensor(), truth)


def test_doubled_rows_are_two_copies_of_one_state() -> None:
    rates = gb.data.load("digits", transform="scale", limit=200)
    seen = stacking.through(rates, stacking.Doubled(gb.Bernoulli(64)))
    x = seen.train.tensor()
    assert sorted(x.unique().tolist()) == [0, 2]
    wide = torch.cat([seen.train.tensor(generator=s) for s in range(40)]).reshape(40, *x.shape)
    assert float((wide.mean(dim=0) / 2 - rates.train.tensor()).abs().max()) < 0.45
    assert float((wide.mean() / 2 - rates.train.tensor().mean()).abs()) < 0.005


def test_no_layer_is_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    data, most = gb.data.load("digits"), []
    seen = stacking.through(data, stacking.Up(_machine(64, 9)))
    lift = stacking.Up.__call__

    def watched(self, x, generator):
        most.append(len(x))
        return lift(self, x, generator)

    monkeypatch.setattr(stacking.Up, "__call__", watched)
    result = gb.train(gb.rbm(9, 3), seen, updates=20, batch_size=30, progress=False)
    assert result.step == 20 and max(most) <= 1024 < len(data.train)


def test_the_fingerprint_knows_rows_and_machines() -> None:
    data, bars = _data(), gb.data.load("bars-and-stripes")
    cases = [(data, [_machine(64, 9)]), (data, [_machine(64, 9, 1)]), (bars, [_machine(16, 9)])]
    cases += [(data, [_machine(64, 9), _machine(9, 5)]), (data, [])]
    found = {stacking.through(d, *map(stacking.Up, ms)).fingerprint for d, ms in cases}
    assert len(found) == len(cases)
    one, two = (stacking.through(data, stacking.Up(_machine(64, 9))).fingerprint for _ in range(2))
    assert one == two
    assert one != stacking.through(data, stacking.Up(_machine(64, 9), sampled=False)).fingerprint


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(gb.DataError, match="one hidden layer, and this one has 2"):
        stacking.Up(gb.dbm(64, [5, 4]))
    seen = stacking.through(_data(), stacking.Up(_machine(64, 9)))
    with pytest.raises(gb.DataError, match="no raw form"):
        seen.to_images(seen.train.tensor(2))
