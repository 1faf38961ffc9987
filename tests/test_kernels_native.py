"""The compiled kernels, exactly: repeatable, the same on any threads, right at every shape and extreme.

That their laws are right is tested in test_kernels.py, that they are random in test_kernels_random.py,
and what they are made of in test_kernels_compiled.py.
"""

import itertools
import os
import threading

import pytest
import torch
from kernel_families import FAMILIES
from scipy import special, stats
from torch import Generator

from gibbsian import kernels
from gibbsian.kernels import native, plain

pytestmark = pytest.mark.skipif(
    os.environ.get("GIBBSIAN_KERNELS") == "plain", reason="the compiled kernels are turned off"
)
families = pytest.mark.parametrize("name", FAMILIES)
INFINITY = float("inf")


def _field(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def _draw(name: str, field: torch.Tensor, seed: int = 5) -> torch.Tensor:
    bias = torch.linspace(-1, 1, field.shape[-1])
    return FAMILIES[name](kernels, field, bias, Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("dtype", "parameters", "device", "taken"),
    [
        (torch.float32, torch.float32, "cpu", True),
        (torch.bfloat16, torch.float32, "cpu", True),
        (torch.bfloat16, torch.bfloat16, "cpu", False),
        (torch.float16, torch.float32, "cpu", False),
        (torch.float32, torch.float64, "cpu", False),
        (torch.float64, torch.float64, "cpu", False),
        (torch.float32, torch.float32, "meta", False),
    ],
)
def test_what_the_compiled_kernels_take(dtype, parameters, device, taken, monkeypatch):
    field, called = torch.zeros(2, 3, dtype=dtype, device=device), []
    for module, name in ((native, "draw"), (plain, "gaussian")):
        monkeypatch.setattr(module, name, lambda *a, m=module: called.append(m) or field)
    parameter = torch.ones(3, dtype=parameters, device=device)
    kernels.gaussian(field, parameter, parameter, None)
    assert called == [native if taken else plain]


# Repeatable.


@families
def test_a_seed_repeats_and_a_generator_resumes(name):
    field = _field(7, 129)
    bias = torch.linspace(-1, 1, 129)
    one, two = (Generator().manual_seed(5) for _ in range(2))
    first = [FAMILIES[name](kernels, field, bias, one) for _ in range(3)]
    state = one.get_state()
    rest = [FAMILIES[name](kernels, field, bias, one) for _ in range(3)]
    again = [FAMILIES[name](kernels, field, bias, two) for _ in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(first + rest, again, strict=True))
    resumed = Generator()
    resumed.set_state(state)
    assert all(torch.equal(s, FAMILIES[name](kernels, field, bias, resumed)) for s in rest)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(again, 2))


def test_without_a_generator_the_global_seed_repeats():
    field = _field(7, 33)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        one = kernels.bernoulli(field, field[0], None)
        torch.manual_seed(3)
        two, other = (kernels.bernoulli(field, field[0], None) for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_every_bit_of_the_key_counts(monkeypatch):
    keys = [0, *(1 << bit for bit in range(63))]
    drawn = set()
    for key in keys:
        monkeypatch.setattr(native._Workspace, "key", lambda self, generator, key=key: key)
        drawn.add(tuple(_draw("bernoulli", torch.zeros(1, 129))[0].tolist()))
    assert len(drawn) == len(keys)


@families
def test_the_number_of_threads_does_not_matter(name):
    field = _field(301, 129)
    one = _draw(name, field)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        assert torch.equal(one, _draw(name, field)), threads


def test_several_threads_take_part(monkeypatch):
    if native._team() is None:
        pytest.skip("no OpenMP runtime is found here, so one thread draws")
    asked = []
    run = native.run
    monkeypatch.setattr(native, "run", lambda *a: asked.append(a[-1]) or run(*a))
    torch.set_num_threads(3)
    _draw("bernoulli", _field(301, 129))
    _draw("bernoulli", _field(3, 129))
    assert asked == [3, 1]


@families
@pytest.mark.parametrize("chunk", [1, 130, 1000, 10**6])
def test_neither_do_chunks_nor_which_thread_takes_one(name, chunk, monkeypatch):
    field = _field(301, 129)
    one = _draw(name, field)
    monkeypatch.setattr(native, "_CHUNK", chunk)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        assert torch.equal(one, _draw(name, field))
    monkeypatch.setattr(native, "_team", lambda: None)
    assert torch.equal(one, _draw(name, field))


@families
def test_a_row_does_not_depend_on_the_other_rows(name):
    field = _field(301, 129)
    whole = _draw(name, field)
    other = field.clone()
    other[1::2] = -3
    assert torch.equal(_draw(name, field[:5]), whole[:5])
    assert torch.equal(_draw(name, other)[::2], whole[::2])
    assert not torch.equal(_draw(name, other)[1::2], whole[1::2])


def test_python_threads_draw_at_once():
    field = _field(2000, 33)
    expected = [_draw("bernoulli", field, seed) for seed in range(4)]
    found: dict[int, bool] = {}

    def work(seed):
        found[seed] = all(
            torch.equal(_draw("bernoulli", field, seed), expected[seed]) for _ in range(20)
        )

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == dict.fromkeys(range(4), True)


def test_the_default_device_does_not_matter():
    field = _field(3, 40_000)
    expected = [_draw(name, field) for name in FAMILIES]
    found: list[torch.Tensor] = []

    def work():
        bias = torch.linspace(-1, 1, 40_000)
        with torch.device("meta"):
            for draw in FAMILIES.values():
                found.append(draw(kernels, field, bias, Generator("cpu").manual_seed(5)))

    # A new Python thread has no scratch yet.
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# Shapes.


def _certain(name: str, field: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Draw where the fields leave no choice, given the signs of fields and biases; return 0 or 1."""
    n, g = field.shape[-1], Generator().manual_seed(2)
    f, b, sharp = 100 * field, 200 * bias, torch.full((n,), 1e6)
    return {
        "bits": lambda: kernels.bits((f + b > 0).float(), g),
        "bernoulli": lambda: kernels.bernoulli(f, b, g),
        "spin": lambda: (1 + kernels.spin(f, b, g)) / 2,
        "binomial": lambda: kernels.binomial(f, b, 3, g) / 3,
        "gaussian": lambda: (kernels.gaussian(1e4 * f, 1e4 * b, sharp, g) > 0).float(),
        "truncated_gaussian": lambda: (
            kernels.truncated_gaussian(1e4 * f, 1e4 * b, sharp, g) > 0.5
        ).float(),
    }[name]()


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
@pytest.mark.parametrize("n", [1, 3, 31, 32, 33, 129, 500])
def test_every_state_lies_where_its_field_does(rows, n):
    field, bias = _field(rows, n).sign(), _field(n, seed=3).sign()
    bias[::2] = 0
    expected = (100 * field + 200 * bias > 0).float()
    for name in FAMILIES.keys() - {"softmax"}:
        assert torch.equal(_certain(name, field, bias), expected), name


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("categories", "blocks"), [(1, 3), (2, 16), (2, 17), (7, 5), (200, 3), (31, 33)]
)
def test_every_block_has_its_certain_category(categories, blocks, rows):
    """The fields of a block are 100 apart and its biases 0 or 130, so that one category leads."""
    field = 100.0 * _field(rows, blocks, categories).argsort(dim=-1).flatten(1)
    bias = 130.0 * (_field(blocks * categories, seed=3) > 0)
    logits = (field + bias).unflatten(-1, (blocks, categories))
    expected = torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1).flatten(1)
    s = kernels.softmax(field, bias, categories, Generator().manual_seed(2))
    assert torch.equal(s, expected)


@families
def test_batch_dimensions_and_strides(name):
    field = _field(6, 5, 12)
    flat = _draw(name, field.reshape(30, 12))
    assert torch.equal(_draw(name, field).reshape(30, 12), flat)
    assert torch.equal(_draw(name, field.reshape(30, 12)[0]), flat[0])
    wide = torch.full((6, 5, 30), float("nan"))
    wide[..., 3:27:2] = field
    swapped = field.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    one_row = field[:1, :1].expand(6, 5, 12)
    for strided in (wide[..., 3:27:2], swapped, one_row):
        assert not strided.is_contiguous()
        drawn = _draw(name, strided)
        assert drawn.is_contiguous()
        assert torch.equal(drawn, _draw(name, strided.contiguous()))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("bits", "softmax")])
def test_strides_of_parameters(name):
    field = _field(5, 12)
    bias = torch.linspace(-1, 1, 24)[::2]
    for b in (bias, bias[:1].expand(12)):
        one, two = (
            FAMILIES[name](kernels, field, x, Generator().manual_seed(5)) for x in (b, b.clone())
        )
        assert torch.equal(one, two)


def test_parameters_of_another_size_are_refused():
    for size in (4, 6, 12):
        with pytest.raises(RuntimeError):
            native.draw("bernoulli", torch.zeros(2, 5), None, torch.zeros(size))


@families
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0,), (2, 0, 4)])
def test_nothing_to_draw(name, shape):
    if not (shape[-1] == 0 and name == "softmax"):  # a block has a category
        assert _draw(name, torch.zeros(shape)).shape == shape


# bfloat16.


@families
def test_bfloat16_is_the_draw_from_the_rounded_field_rounded(name):
    field = _field(301, 129).bfloat16()
    if name == "bits":
        p = field.sigmoid()
        one, two = (kernels.bits(x, Generator().manual_seed(5)) for x in (p, p.float()))
    else:
        one, two = _draw(name, field), _draw(name, field.float())
    assert one.dtype == torch.bfloat16
    assert torch.equal(one, two.bfloat16())
    if name in ("gaussian", "truncated_gaussian"):
        assert not torch.equal(one.float(), two)
        return
    values = {"spin": {-1, 1}, "binomial": {0, 1, 2, 3}}.get(name, {0, 1})
    assert torch.equal(one.float(), two) and set(one.unique().tolist()) == values


# Extremes.


def test_infinite_and_huge_fields_are_certain():
    """At ±25 the other value has a probability of 1e−11, which 31 random bits cannot draw."""
    field = torch.tensor([INFINITY, 1e38, 100.0, 25.0, -25.0, -100.0, -1e38, -INFINITY])
    up, zero = (field > 0).float(), torch.zeros(8)
    g, rows = Generator().manual_seed(1), field.repeat(20_000, 1)
    for x in (rows, rows.bfloat16()):
        assert torch.equal(kernels.bernoulli(x, zero, g), up.expand_as(x).to(x))
        assert torch.equal(kernels.spin(x, zero, g), (2 * up - 1).expand_as(x).to(x))
        assert torch.equal(kernels.binomial(x, zero, 5, g), 5 * up.expand_as(x).to(x))
    assert torch.equal(kernels.bits(up.expand_as(rows), g), up.expand_as(rows))
    s = kernels.gaussian(rows[:1], zero, zero + 1, g)[0]
    assert torch.equal(s.isinf(), field.isinf()) and not s.isnan().any()


def test_a_truncated_gaussian_at_minus_infinity_is_zero():
    field = torch.tensor([[-INFINITY, -3e38, -1e20, 1e20, INFINITY]])
    zero, generator, found = torch.zeros(5), Generator().manual_seed(1), []

    def work():
        found.append(kernels.truncated_gaussian(field, zero, zero + 1, generator))

    # In a thread of its own, since what rejects may do so without end.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(timeout=60)
    assert found
    s = found[0][0]
    assert s[0] == 0 and 0 <= s[1] < 1e-30 and 0 < s[2] < 1e-17
    assert s[3] == 1e20 and s[4] == INFINITY


def test_a_field_that_is_no_number_gives_none():
    field = torch.full((2, 3), float("nan"))
    zero, generator = torch.zeros(3), Generator().manual_seed(1)
    assert kernels.gaussian(field, zero, zero + 1, generator).isnan().all()
    assert kernels.truncated_gaussian(field, zero, zero + 1, generator).isnan().all()
    for draw in (kernels.bernoulli, kernels.spin):
        assert set(draw(field, zero, generator).unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert kernels.softmax(field, zero, 3, generator).sum(dim=-1).tolist() == [1, 1]


def _rare(draw) -> float:
    """Judge the number of ones in 4·10⁸ draws with P(1) = σ(−18) = 1.5e−8: 6.1 are expected."""
    ones = sum(int(draw().sum()) for _ in range(400))
    expected = 4e8 * special.expit(-18.0)
    return 2 * min(stats.poisson.cdf(ones, expected), stats.poisson.sf(ones - 1, expected))


def test_rare_ones():
    """24 random bits, which cannot tell 1.5e−8 from 6e−8, are not enough."""
    g, zero, field = Generator().manual_seed(1), torch.zeros(1000), torch.full((1000, 1000), -18.0)
    assert _rare(lambda: kernels.bernoulli(field, zero, g)) > 1e-4
    p = field.sigmoid()
    assert _rare(lambda: kernels.bits(p, g)) < 1e-4


def test_a_bit_of_probability_zero_is_never_one():
    """Of 10⁸ words, 6 have 24 bits that are all 0."""
    g, p = Generator().manual_seed(1), torch.zeros(1000, 1000)
    assert not any(bool(kernels.bits(p, g).any()) for _ in range(100))
    assert int(sum(kernels.bits(p + 2.0**-24, g).sum() for _ in range(100))) > 0
