"""What sampling and training cost, beside their bare matrix products and beside other packages.

    make bench                         everything, in about five minutes on two cores
    make bench ARGS="--only sweep epoch --rounds 31"
    .venv/bin/python -m benchmarks.run --full --threads 2 --out FILE.json

Writes benchmarks/results.json and docs/benchmarks.png, or FILE.json and FILE.png with --out; with --only
and no --out nothing is written. docs/benchmarks.md says how each number is measured. Other packages take
part if they are installed: pip install -c constraints.txt -r benchmarks/requirements.txt
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import contests, hardware, table
from benchmarks.compiling import compiling
from benchmarks.memory import memory
from benchmarks.probe import ROOT
from benchmarks.scaling import scaling
from benchmarks.sizes import Sizes
from benchmarks.timing import reason

RESULTS, PICTURE = ROOT / "benchmarks" / "results.json", ROOT / "docs" / "benchmarks.png"

PARTS: dict[str, Callable[[Sizes, int], dict[str, Any]]] = {
    "sweep": lambda sizes, _: contests.sweep(sizes),
    "epoch": lambda sizes, _: contests.epoch(sizes),
    "ais": lambda sizes, _: contests.ais(sizes),
    "single": lambda sizes, _: contests.single(sizes),
    "memory": memory,
    "compile": compiling,
    "scaling": lambda sizes, _: scaling(sizes),
}


def measure(sizes: Sizes, only: Sequence[str] = tuple(PARTS)) -> dict[str, Any]:
    """Run parts one after the other, and print each when it is done; one that fails says so."""
    found: dict[str, Any] = {"machine": hardware.describe(), "sizes": dataclasses.asdict(sizes)}
    print(hardware.sentence(found["machine"]), flush=True)
    threads = torch.get_num_threads()
    for name in (n for n in PARTS if n in only):
        begin = time.perf_counter()
        try:
            part = PARTS[name](sizes, threads)
        except Exception as error:
            part = {"title": name, "skipped": {name: reason(error)}}
        part["seconds"] = time.perf_counter() - begin
        found[name] = part
        print("", *table.lines(part), sep="\n", flush=True)
    return found


def broken(found: dict[str, Any]) -> list[str]:
    """Return the parts in which gibbsian itself failed; a peer may fail as it likes."""
    return [
        part
        for part in PARTS
        for name, why in found.get(part, {}).get("skipped", {}).items()
        if why.startswith("failed") and (name == part or name.startswith(contests.OURS))
    ]


def limit_threads(threads: int) -> None:
    """Give torch, and the BLAS of NumPy and SciPy, the same number of threads."""
    torch.set_num_threads(threads)
    try:
        import scipy.linalg  # noqa: F401  its BLAS is limited only once it is loaded
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return
    threadpool_limits(threads, user_api="blas")


def store(found: dict[str, Any], results: Path, picture: Path) -> None:
    """Write the numbers, and a chart of them if there is something to draw."""
    results.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwrote {results}")
    from benchmarks.picture import draw

    if draw(found, picture):
        print(f"wrote {picture}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=Sizes.rounds, help="of sweep and epoch")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), metavar="NAME", default=None)
    parser.add_argument("--full", action="store_true", help="10,000 temperatures and steps")
    parser.add_argument("--out", type=Path, default=None, metavar="FILE.json")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    limit_threads(options.threads)
    sizes = Sizes(rounds=options.rounds)
    if options.full:
        sizes = dataclasses.replace(sizes, temperatures=10_000, steps=10_000)
    begin = time.perf_counter()
    found = measure(sizes, options.only or tuple(PARTS))
    found["seconds"] = time.perf_counter() - begin
    print(f"\n{found['seconds']:.0f} seconds in all")
    if options.out is not None:
        store(found, options.out, options.out.with_suffix(".png"))
    elif options.only is None:
        store(found, RESULTS, PICTURE)
    sys.exit(1 if broken(found) else 0)


if __name__ == "__main__":
    main()
