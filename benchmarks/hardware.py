"""On what a run of the benchmarks was made."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks import peers
from gibbsian.precision import is_fast

PACKAGES = ("gibbsian", "torch", "numpy", "numba")


def describe() -> dict[str, Any]:
    """Return the processor, its cores and its widest vectors, the threads, and versions."""
    half = " bf16" if is_fast(torch.device("cpu")) else ""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability() + half,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {k: v for k in PACKAGES if (v := _version(k))} | peers.versions(),
    }


def sentence(machine: dict[str, Any]) -> str:
    """Say it in one line."""
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    threads = f"{machine['threads']} thread" + "s" * (machine["threads"] != 1)
    return f"{machine['processor']} ({machine['instructions']}), {threads}; {versions}"


def processor() -> str:
    """Return the name that the processor gives itself, with family and model where known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    name = found.get("model name", platform.machine()).replace("(R)", "").replace("(TM)", "")
    model = found.get("model")
    return f"{name}, family {found['cpu family']} model {model}" if model else name


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
