"""The CUDA kernels: on a GPU where there is one, and in Triton's interpreter where Triton is.

The tests of laws run the very same kernels on either. The interpreter is chosen when Triton is
imported, so those tests run there in a process of their own.
"""

import math
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Generator

from gibbsian.errors import GibbsianWarning
from gibbsian.kernels import cuda, plain

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_GPU = torch.cuda.is_available() and not _INTERPRETED
_DEVICE = "cuda" if _GPU else "cpu"

_NO_TRITON = "Triton is not installed (it is in PyTorch's CUDA wheels)"
_TRITON = find_spec("triton") is not None

in_large_blocks = pytest.mark.usefixtures("large")
runs = pytest.mark.skipif(
    not (_TRITON and (_GPU or _INTERPRETED)),
    reason="no GPU; runs in the interpreter, in another process" if _TRITON else _NO_TRITON,
)
on_gpu = pytest.mark.skipif(
    not (_TRITON and _GPU), reason="no CUDA device" if _TRITON else _NO_TRITON
)
without_gpu = pytest.mark.skipif(
    not _TRITON or _GPU or _INTERPRETED,
    reason="the tests of laws run in this process" if _TRITON else _NO_TRITON,
)

_DRAWS = 20_000


@pytest.fixture
def large(monkeypatch):
    """The interpreter costs nearly as much for a block of any size."""
    if _INTERPRETED:
        monkeypatch.setattr(cuda, "_BLOCK", 1 << 16)


def _seeded(seed: int = 20260) -> Generator:
    return Generator(device=_DEVICE).manual_seed(seed)


def _row(*values: float, dtype=torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=_DEVICE)


def _z(ones, p, draws=_DRAWS):
    """Standard errors between a count of ones and its expectation."""
    return (np.asarray(ones) - draws * p) / np.sqrt(draws * p * (1 - p))


def _p_value(counts, probabilities) -> float:
    expected = np.asarray(probabilities) * np.sum(counts)
    return float(stats.chisquare(counts, expected / expected.sum() * np.sum(counts)).pvalue)


def _host(x: torch.Tensor) -> np.ndarray:
    return x.double().cpu().numpy()


DRAWS = {
    "bits": lambda k, f, b, g: k.bits(torch.sigmoid(f + b), g),
    "bernoulli": lambda k, f, b, g: k.bernoulli(f, b, g),
    "spin": lambda k, f, b, g: k.spin(f, b, g),
    "binomial": lambda k, f, b, g: k.binomial(f, b, 3, g),
    "gaussian": lambda k, f, b, g: k.gaussian(f, b, b.exp(), g),
    "truncated_gaussian": lambda k, f, b, g: k.truncated_gaussian(f, b, b.exp(), g),
    "softmax": lambda k, f, b, g: k.softmax(f, b, 2, g),
}
every = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


# Laws.


@runs
@in_large_blocks
def test_two_valued_frequencies_and_tails():
    """Each column has its own field and bias, and either tail is as precise as the middle."""
    x = np.array([-8.0, -2.0, 0.0, 0.3, 4.0, 8.0])
    draws = 5 * _DRAWS
    bias = _row(1.0, -0.5, 0.0, 0.25, 2.0, -1.0)
    field = (_row(*x) - bias).repeat(draws, 1)
    ones = _host(cuda.bernoulli(field, bias, _seeded())).sum(axis=0)
    s = _host(cuda.spin(field / 2, bias / 2, _seeded(5)))
    assert set(np.unique(s)) == {-1.0, 1.0}
    for count in (ones, (s > 0).sum(axis=0)):
        assert (np.abs(_z(count, special.expit(x), draws)) < 4.5).all()
        assert (np.abs(_z(count, special.expit(1.3 * x), draws))[[0, 1, 4, 5]] > 4.5).all()
        assert (np.abs(_z(count, special.expit(x + 0.1), draws))[1:4] > 4.5).all()


@runs
@in_large_blocks
def test_bits_frequencies():
    p = _row(0.0, 1e-4, 0.3, 0.7, 1 - 1e-4, 1.0, math.nan).repeat(_DRAWS, 1)
    ones = _host(cuda.bits(p, _seeded())).sum(axis=0)
    assert ones[0] == 0 and ones[5] == _DRAWS and ones[6] == 0
    assert (np.abs(_z(ones[1:5], np.array([1e-4, 0.3, 0.7, 1 - 1e-4]))) < 4.5).all()
    assert (np.abs(_z(ones[2:4], np.array([0.32, 0.68]))) > 4.5).all()


@runs
@in_large_blocks
@pytest.mark.parametrize("trials", [1, 3, 16])
def test_binomial_frequencies(trials):
    s = _host(cuda.binomial(_row(0.4).repeat(_DRAWS, 1), _row(-1.0), trials, _seeded()))
    counts = np.bincount(s[:, 0].astype(int), minlength=trials + 1)
    for x, holds in ((-0.6, True), (-0.5, False)):
        p = stats.binom.pmf(range(trials + 1), trials, special.expit(x))
        kept = p * _DRAWS >= 5
        observed = np.append(counts[kept], counts[~kept].sum() + 1e-9)
        found = _p_value(observed, np.append(p[kept], p[~kept].sum() + 1e-9))
        assert (found > 1e-4) == holds


@runs
@in_large_blocks
def test_gaussian_law():
    """Mean x/γ and standard deviation γ^−½, and pairs that share a radius are independent."""
    gamma, bias = _row(4.0, 0.25, 1.0, 1.0), _row(-1.0, 0.5, 0.0, 3.0)
    s = _host(cuda.gaussian(_row(3.0, 0.0, 0.0, -3.0).repeat(_DRAWS, 1), bias, gamma, _seeded()))
    for column, (mean, scale) in enumerate([(0.5, 0.5), (2.0, 2.0), (0.0, 1.0), (0.0, 1.0)]):
        assert stats.kstest(s[:, column], stats.norm(mean, scale).cdf).pvalue > 1e-4
        assert stats.kstest(s[:, column], stats.norm(mean, scale * 1.1).cdf).pvalue < 1e-4
    x = (s - [0.5, 2.0, 0.0, 0.0]) / [0.5, 2.0, 1.0, 1.0]
    for a, b in ((0, 1), (2, 3), (0, 2), (1, 3)):
        for power in (1, 2):
            r = np.corrcoef(x[:, a] ** power, x[:, b] ** power)[0, 1]
            assert abs(r) * _DRAWS**0.5 < 4.5
    angle = np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi) + 0.5
    assert stats.kstest(angle, "uniform").pvalue > 1e-4


def _truncated_cdf(z: float):
    """Return the distribution function of x ~ N(z, 1) given x ≥ 0, without underflow."""
    if z > -5:
        return stats.truncnorm(-z, np.inf, loc=z).cdf

    def cdf(x):
        ratio = special.erfcx((x - z) / 2**0.5) / special.erfcx(-z / 2**0.5)
        return -np.expm1(np.log(ratio) + z * x - x * x / 2)

    return cdf


@runs
@in_large_blocks
def test_truncated_gaussian_law():
    z = [-1e9, -1e5, -1e3, -40.0, -5.5, -1.0, -1e-3, 0.0, 0.5, 3.0, 40.0]
    gamma = _row(*([1.0, 0.3] * 6)[: len(z)])
    field = (_row(*z) * gamma.sqrt() - 0.5).repeat(_DRAWS, 1)
    s = _host(cuda.truncated_gaussian(field, 0 * gamma + 0.5, gamma, _seeded()))
    s *= _host(gamma) ** 0.5
    assert np.isfinite(s).all() and (s >= 0).all()
    for column, value in enumerate(z):
        assert stats.kstest(s[:, column], _truncated_cdf(value)).pvalue > 1e-4
        assert stats.kstest(1.1 * s[:, column], _truncated_cdf(value)).pvalue < 1e-4


@runs
@in_large_blocks
@pytest.mark.parametrize("z", [-2.0, -0.5])
def test_truncated_gaussian_law_where_many_proposals_are_refused(z):
    s = cuda.truncated_gaussian(_row(z).repeat(10 * _DRAWS, 1), _row(0.0), _row(1.0), _seeded())
    s = _host(s)[:, 0]
    assert stats.kstest(s, _truncated_cdf(z)).pvalue > 1e-4
    assert stats.kstest(1.02 * s, _truncated_cdf(z)).pvalue < 1e-4


@runs
@in_large_blocks
@pytest.mark.parametrize("categories", [1, 2, 3, 300])
def test_softmax_frequencies(categories):
    """Two blocks, each by its own law, independent of each other."""
    logits = torch.randn(2, categories, generator=Generator().manual_seed(3)).to(_DEVICE)
    bias = torch.linspace(-1, 1, 2 * categories, device=_DEVICE)
    draws = _DRAWS // 4 if categories == 300 else _DRAWS
    s = cuda.softmax(logits.flatten().repeat(draws, 1), bias, categories, _seeded())
    assert bool((s.unflatten(-1, (2, -1)).sum(dim=-1) == 1).all())
    p = _host((logits + bias.reshape(2, -1)).softmax(-1))
    counts = _host(s.sum(dim=0)).reshape(2, categories)
    for block in range(2 if categories > 1 else 0):
        assert _p_value(counts[block], p[block]) > 1e-4
        assert _p_value(counts[block], np.roll(p[block], 1)) < 1e-4
    joint = p[0, 0] * p[1, 0]
    together = float((s[:, 0] * s[:, categories]).sum())
    assert categories == 1 or abs(_z(together, joint, draws)) < 4.5


@runs
@in_large_blocks
def test_softmax_never_draws_a_category_without_probability():
    field = _row(-1e4, 0.0, 0.0, -1e4, -math.inf, -1e4, 5.0).repeat(_DRAWS, 1)
    s = cuda.softmax(field, _row(*[0.0] * 7), 7, _seeded())
    assert not bool(s[:, [0, 3, 4, 5]].any()) and bool(s[:, 6].any())


@pytest.mark.skipif(not _INTERPRETED, reason="chooses the words, in the interpreter alone")
@pytest.mark.parametrize("word", [0.0, 0.5, 2.0**32])
def test_softmax_at_the_ends_of_the_uniform(word, monkeypatch):
    """Neither a uniform of 0 nor one rounded up to 1 draws a category without probability."""
    import triton.language as tl

    from gibbsian.kernels import triton_source

    monkeypatch.setattr(triton_source, "half_up", lambda w: w.to(tl.float32) * 0.0 + word)
    s = cuda.softmax(_row(-1e4, 0.0, 0.0, -1e4, -1e4), _row(*[0.0] * 5), 5, _seeded())
    assert s.tolist() == ([0, 0, 1, 0, 0] if word == 2.0**32 else [0, 1, 0, 0, 0])


@runs
@in_large_blocks
@every
def test_moments_agree_with_the_plain_path(draw):
    bias = torch.linspace(-1, 1, 6, device=_DEVICE)
    field = torch.linspace(0.5, -2, 6, device=_DEVICE).repeat(_DRAWS, 1)
    ours, theirs = (_host(draw(k, field, bias, _seeded())) for k in (cuda, plain))
    for power in (1, 2):
        a, b = ours**power, theirs**power
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / _DRAWS) + 1e-12
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) / error < 4.5).all()
    wrong = _host(draw(cuda, field, bias + 0.3 * torch.arange(6, device=_DEVICE), _seeded()))
    error = np.sqrt((wrong.var(axis=0) + theirs.var(axis=0)) / _DRAWS) + 1e-12
    assert (np.abs(wrong.mean(axis=0) - theirs.mean(axis=0)) / error).max() > 4.5


# Randomness.


def _philox(counter: np.ndarray, draw: int, key: int) -> np.ndarray:
    """Philox 4x32-10 by its paper, in another hand: four words a counter."""
    mask = np.uint64(0xFFFFFFFF)
    c = [counter.astype(np.uint64) & mask, counter.astype(np.uint64) >> np.uint64(32)]
    c += [np.full_like(c[0], draw), np.zeros_like(c[0])]
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        high, low = b >> np.uint64(32), b & mask
        c = [
            high ^ c[1] ^ np.uint64(k[0]),
            low,
            (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]),
            a & mask,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, axis=-1)


def test_the_reference_of_philox_gives_its_authors_words():
    """Salmon et al. (2011), the distribution's file of known answers."""
    words = _philox(np.zeros(1, dtype=np.int64), 0, 0)[0]
    assert [hex(w) for w in words] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


@runs
def test_element_i_takes_word_i_mod_4_of_counter_i_div_4():
    s = cuda.bits(torch.full((301, 7), 0.5, device=_DEVICE), _seeded(3))
    key = int(cuda.key(s, _seeded(3)))
    words = _philox(np.arange(-(-s.numel() // 4)), 0, key).ravel()[: s.numel()]
    assert ((words < 2**31) == (_host(s).ravel() == 1)).all()


def _worst_correlation(s: np.ndarray, t: np.ndarray) -> float:
    """The largest correlation between a column of s and another of t, in standard errors."""
    s, t = ((x - x.mean(axis=0)) / x.std(axis=0) for x in (s, t))
    r = np.abs(s.T @ t) / len(s) ** 0.5
    return float((r * (1 - np.eye(len(r))) if np.array_equal(s, t) else r).max())


@runs
@in_large_blocks
@every
def test_draws_are_independent_across_columns_rows_and_calls(draw):
    """Chains are rows; the draws of a step are a call."""
    field, bias = torch.zeros(4096, 16, device=_DEVICE), torch.zeros(16, device=_DEVICE)
    generator = _seeded()
    one, two = (_host(draw(cuda, field, bias, generator)) for _ in range(2))
    if draw is DRAWS["softmax"]:
        one, two = one[:, ::2], two[:, ::2]
    limit = 5.0  # the largest of 256 correlations passes it once in 7000 runs
    assert _worst_correlation(one, one) < limit
    assert _worst_correlation(one, two) < limit
    for rows in (1, 64):
        assert _worst_correlation(one[rows:], one[:-rows]) < limit
    # Twins that must fail: a column that takes a tenth of its words from another, and a repeated key.
    shared = one.copy()
    shared[::10, 1] = shared[::10, 0]
    assert _worst_correlation(shared, shared) > limit
    shared = two.copy()
    shared[::10, 1] = one[::10, 1]
    assert _worst_correlation(shared, one) > limit


@runs
@every
def test_a_seed_repeats_and_neither_blocks_nor_strides_change_the_draws(draw, monkeypatch):
    field = torch.randn(3, 8, 12, generator=Generator().manual_seed(1)).to(_DEVICE)
    bias = torch.linspace(-1, 1, 12, device=_DEVICE)
    kept = field.clone()
    generator = _seeded(7)
    first = draw(cuda, field, bias, generator)
    assert torch.equal(first, draw(cuda, field, bias, _seeded(7)))
    assert not torch.equal(first, draw(cuda, field, bias, generator))
    strided = field.transpose(0, 1).contiguous().transpose(0, 1)
    wide = torch.stack([bias, bias], dim=1)[:, 0]
    assert torch.equal(first, draw(cuda, strided, wide, _seeded(7)))
    monkeypatch.setattr(cuda, "_BLOCK", 128)
    monkeypatch.setattr(cuda, "_NARROW", 0)  # 64-bit counting
    assert torch.equal(first, draw(cuda, field, bias, _seeded(7)))
    assert torch.equal(field, kept)


# Interfaces.


@runs
@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_states_have_the_fields_dtype_and_no_graph(draw, dtype):
    bias = torch.linspace(-1, 1, 6, device=_DEVICE, dtype=dtype)
    for shape in ((6,), (2, 3, 6), (0, 6)):
        field = torch.zeros(shape, device=_DEVICE, dtype=dtype, requires_grad=True)
        s = draw(cuda, field, bias, _seeded())
        assert s.dtype == dtype and s.shape == field.shape and not s.requires_grad
        assert bool(s.isfinite().all())


@runs
def test_a_half_precision_field_takes_parameters_of_single_precision():
    """Arithmetic is in float32: a half-precision field gives the states of the same float32 one."""
    field = torch.randn(50, 8, generator=Generator().manual_seed(1)).to(_DEVICE, torch.bfloat16)
    bias = torch.linspace(-1, 1, 8, device=_DEVICE) + 1e-3
    s = cuda.bernoulli(field, bias, _seeded())
    assert s.dtype == torch.bfloat16
    assert torch.equal(s.float(), cuda.bernoulli(field.float(), bias, _seeded()))


def test_what_the_kernels_do_not_take_is_plains():
    field, bias = torch.zeros(9, 4, device=_DEVICE), torch.zeros(4, device=_DEVICE)
    for draw in DRAWS.values():
        f, b = field.double(), bias.double()
        assert torch.equal(draw(cuda, f, b, _seeded()), draw(plain, f, b, _seeded()))
    many = (k.binomial(field, bias, 17, _seeded()) for k in (cuda, plain))
    assert torch.equal(*many)


@runs
@every
def test_extreme_fields_and_nan_are_plains(draw):
    """Certain states are certain, and NaN gives the value that it gives in the plain path."""
    field = _row(1e4, -1e4, math.inf, -math.inf, math.nan, math.nan, math.inf, 1.0).repeat(64, 1)
    bias = torch.zeros(8, device=_DEVICE)
    ours, theirs = (draw(k, field, bias, _seeded()) for k in (cuda, plain))
    if draw in (DRAWS["gaussian"], DRAWS["truncated_gaussian"]):
        assert torch.equal(ours.isnan(), theirs.isnan())
        assert torch.equal(ours[:, [2, 3]], theirs[:, [2, 3]])
    else:
        certain = slice(0, 6) if draw is not DRAWS["softmax"] else slice(0, 8)
        assert torch.equal(ours[:, certain], theirs[:, certain])


@pytest.fixture
def afresh():
    """Let `available` look again, now and after the test."""
    cuda.available.cache_clear()
    yield
    cuda.available.cache_clear()


@pytest.mark.usefixtures("afresh")
def test_not_available_where_turned_off_or_without_triton(monkeypatch):
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    assert not cuda.available()
    monkeypatch.undo()
    cuda.available.cache_clear()
    monkeypatch.setenv("GIBBSIAN_KERNELS", "plain")
    assert not cuda.available()


@pytest.mark.usefixtures("afresh")
def test_kernels_that_do_not_compile_give_a_warning_and_the_plain_path(monkeypatch):
    def fails():
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(cuda, "find_spec", lambda name: name)
    monkeypatch.setattr(cuda, "_source", fails)
    monkeypatch.delenv("GIBBSIAN_KERNELS", raising=False)
    with pytest.warns(GibbsianWarning, match="plain PyTorch draws in their place"):
        assert not cuda.available()


# On a GPU alone.


def _sweeps(field, bias, generator, steps: int) -> torch.Tensor:
    """Chains as they run: products and draws, with every family in turn."""
    weight = torch.eye(field.shape[-1], device=field.device)
    for _ in range(steps):
        for draw in DRAWS.values():
            field = draw(cuda, field @ weight, bias, generator)
    return field


@on_gpu
def test_available_and_no_host_synchronisation_inside_a_chain():
    assert cuda.available()
    field, bias = torch.zeros(64, 32, device=_DEVICE), torch.zeros(32, device=_DEVICE)
    generator = _seeded()
    _sweeps(field, bias, generator, 1)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        s = _sweeps(field, bias, generator, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(s.isfinite().all())


@on_gpu
@every
def test_a_graph_draws_anew_at_each_replay_and_as_outside_it(draw):
    field, bias = torch.zeros(64, 32, device=_DEVICE), torch.zeros(32, device=_DEVICE)
    generator = _seeded()
    draw(cuda, field, bias, generator)  # compiles
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        out = draw(cuda, field, bias, generator)
    generator.manual_seed(11)
    replays = []
    for _ in range(3):
        graph.replay()
        replays.append(out.clone())
    assert not torch.equal(replays[0], replays[1]) and not torch.equal(replays[1], replays[2])
    eager = _seeded(11)
    for replay in replays:
        assert torch.equal(replay, draw(cuda, field, bias, eager))


@on_gpu
def test_more_elements_than_32_bits_count():
    n, rows = 2**16, 2**15 + 1
    if torch.cuda.mem_get_info()[0] < 5 * n * rows:
        pytest.skip("needs 11 GB of free GPU memory")
    field = torch.zeros(rows, n, device=_DEVICE, dtype=torch.bfloat16)
    s = cuda.bernoulli(field, torch.zeros(n, device=_DEVICE), _seeded(3))
    assert abs(float(s[-1].float().mean()) - 0.5) < 4.5 * 0.5 / n**0.5
    key, first = int(cuda.key(field, _seeded(3))), (rows - 1) * n
    words = _philox(np.arange(first // 4, (first + n) // 4), 0, key).ravel()
    assert ((words < 2**31) == (_host(s[-1]) == 1)).mean() > 1 - 1e-4


# Without a GPU.


@without_gpu
@pytest.mark.slow
def test_the_interpreter_passes_the_tests_of_laws():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


_COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gibbsian.kernels import triton_source as source

pointers = {"field": "*bf16", "p": "*bf16", "out": "*bf16", "bias": "*fp32", "precision": "*fp32"}
types = pointers | {"key": "*i64", "total": "i64", "blocks": "i64"}
sizes = {"BLOCK": 1024, "RUN": 4, "WIDE": True, "ROWS": 256, "WIDTH": 8}
for name in NAMES:
    kernel = getattr(source, name)
    arguments = {a: "constexpr" if a in sizes else types.get(a, "i32") for a in kernel.arg_names}
    fixed = {(i,): sizes[a] for i, a in enumerate(kernel.arg_names) if a in sizes}
    try:
        made = ASTSource(kernel, arguments, constexprs=fixed)
    except TypeError:  # Triton before 3.3
        plain = {a: t for a, t in arguments.items() if a not in sizes}
        made = ASTSource(kernel, plain, {a: v for a, v in sizes.items() if a in arguments})
    code = triton.compile(made, target=GPUTarget("cuda", 90, 32))
    assert ".local" not in code.asm["ptx"], name + " spills"
    print(name, len(code.asm["cubin"]))
"""


@without_gpu
@pytest.mark.slow
def test_every_kernel_compiles_to_machine_code_of_a_gpu_that_is_not_here(tmp_path):
    names = list(DRAWS)
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE.replace("NAMES", repr(names))],
        env=os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    sizes = dict(line.split() for line in done.stdout.splitlines())
    assert list(sizes) == names and all(int(size) > 1000 for size in sizes.values())
