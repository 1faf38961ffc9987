"""What a Gibbs sweep costs on an NVIDIA GPU, as a fraction of its fastest matrix product.

    .venv/bin/python -m benchmarks.gpu [--rounds N] [--out FILE.json]

Binary machines of 784-500 and 4096-4096 units, at 4,096 and 65,536 chains, with products in float32 and
in bfloat16. The peak is the rate of a bfloat16 product of two random 8192 × 8192 matrices in the same
run. "fraction" is the rate at which a sweep gets through the operations of its two products, over the
peak. Each row is timed four ways: the bare products; sweeps as `gibbsian.samplers.run` makes them;
the same sweeps replayed as a CUDA graph, free of what Python costs; and those of rbms, if installed
(in float32, as it works). Times are medians, by CUDA events, over rounds in which they take turns.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor

import gibbsian as gb
from gibbsian.kernels import cuda
from gibbsian.precision import lowered
from gibbsian.samplers import Gibbs, run, start
from gibbsian.samplers.base import ChainState

SIZES = ((784, 500), (4096, 4096))
CHAINS = (4096, 65_536)
SWEEPS = 10
PEAK_SIZE = 8192

Work = Callable[[], object]


def milliseconds(work: Work) -> float:
    """Time one call by the GPU's own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def medians(works: dict[str, Work], rounds: int) -> dict[str, float]:
    """Time contestants in turns, after two calls that warm up; milliseconds a call."""
    for work in works.values():
        work()
        work()
    turns = [{name: milliseconds(work) for name, work in works.items()} for _ in range(rounds)]
    return {name: statistics.median(turn[name] for turn in turns) for name in works}


def peak(rounds: int) -> float:
    """Measure the operations a second of a large bfloat16 product, of random numbers."""
    a, b = (torch.randn(PEAK_SIZE, PEAK_SIZE, device="cuda").bfloat16() for _ in range(2))
    out = torch.empty_like(a)
    took = medians({"product": lambda: torch.mm(a, b, out=out)}, rounds)["product"]
    return 2 * PEAK_SIZE**3 / (took * 1e-3)


def machine(visible: int, hidden: int, precision: str) -> gb.BoltzmannMachine:
    """Build an RBM on the GPU whose conditional means take all values."""
    made = gb.rbm(visible, hidden).to("cuda")
    generator = Generator("cuda").manual_seed(0)
    with torch.no_grad():
        made.joints[0].get_parameter("weight").normal_(0, 1.4 / visible**0.5, generator=generator)
    return lowered(made, precision)


def bare(visible: int, hidden: int, chains: int, dtype: torch.dtype) -> Work:
    """The products of the sweeps alone, into tensors that are there."""
    v, h = ((torch.rand(chains, n, device="cuda") < 0.5).to(dtype) for n in (visible, hidden))
    weight = torch.randn(visible, hidden, device="cuda").to(dtype)
    down, up = torch.empty_like(v), torch.empty_like(h)

    def work() -> None:
        for _ in range(SWEEPS):
            torch.mm(h, weight.T, out=down)
            torch.mm(v, weight, out=up)

    return work


def sweeps(made: gb.BoltzmannMachine, chains: int) -> tuple[Work, Work]:
    """Return sweeps as the library runs them, and the same as a CUDA graph."""
    generator, sampler = Generator("cuda").manual_seed(0), Gibbs()
    state = sampler.init(made, start(made, chains, "noise", generator), generator)
    state, _ = run(sampler, made, state, 2, generator)  # states are now in the dtype of products
    held = tuple(s.clone() for s in state.layers)

    def eager() -> None:
        nonlocal state
        state, _ = run(sampler, made, state, SWEEPS, generator)

    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        moved, _ = run(sampler, made, ChainState(held), SWEEPS, generator)
        for old, new in zip(held, moved.layers, strict=True):
            old.copy_(new)
    return eager, graph.replay


def rbms(weight: Tensor, chains: int) -> Work:
    """Sweeps of rbms on the same couplings; each call draws the hidden layer once more at its end."""
    from rbms.bernoulli_bernoulli.classes import BBRBM

    visible, hidden = (weight.new_zeros(n) for n in weight.shape)
    peer = BBRBM(weight_matrix=weight.clone(), vbias=visible, hbias=hidden)
    state = peer.init_chains(chains)

    @torch.no_grad()
    def work() -> None:
        nonlocal state
        state = peer.sample_state(chains=state, n_steps=SWEEPS, beta=1.0)

    return work


def contest(
    visible: int, hidden: int, chains: int, precision: str, top: float, rounds: int
) -> dict[str, object]:
    """Time one row; all rates are of a sweep."""
    made = machine(visible, hidden, precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    eager, graph = sweeps(made, chains)
    works = {"bare": bare(visible, hidden, chains, dtype), "eager": eager, "graph": graph}
    row: dict[str, object] = {
        "visible": visible, "hidden": hidden, "chains": chains, "precision": precision,
    }  # fmt: skip
    try:
        peer = rbms(made.joints[0].weight.detach(), chains)
        peer()
        works["rbms"] = peer
    except Exception as error:
        row["rbms"] = f"skipped: {type(error).__name__}: {error}"
    found = medians(works, rounds)
    for name, took in found.items():
        seconds = took * 1e-3 / SWEEPS
        row[name] = {
            "ms": seconds * 1e3,
            "fraction": 4 * chains * visible * hidden / seconds / top,
            "flips_per_ns": chains * (visible + hidden) / (seconds * 1e9),
        }
    return row


def line(row: dict[str, object]) -> str:
    """Lay one row out for reading."""
    cells = [f"{row['visible']}-{row['hidden']:<5} {row['chains']:>6} {row['precision']}"]
    for name in ("bare", "eager", "graph", "rbms"):
        one = row.get(name)
        if isinstance(one, dict):
            cells.append(
                f"{name} {one['ms']:8.3f} ms {one['fraction']:5.2f} {one['flips_per_ns']:7.2f}/ns"
            )
        elif one:
            cells.append(str(one))
    return " | ".join(cells)


def main() -> None:
    """Measure, print, and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here")
    top = peak(options.rounds)
    found = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "kernels": "triton" if cuda.available() else "plain",
        "float32_products": torch.get_float32_matmul_precision(),
        "peak_bf16_tflops": top / 1e12, "sweeps_a_call": SWEEPS, "rounds": options.rounds,
    }  # fmt: skip
    print(*(f"{key}: {value}" for key, value in found.items()), sep="\n")
    rows = []
    for visible, hidden in SIZES:
        for chains in CHAINS:
            for precision in ("fp32", "bf16"):
                row = contest(visible, hidden, chains, precision, top, options.rounds)
                rows.append(row)
                print(line(row), flush=True)
                torch.cuda.empty_cache()
    options.out.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
