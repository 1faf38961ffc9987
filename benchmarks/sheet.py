"""Pictures and tables of `benchmarks.gaussian`."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gibbsian import plots

_HEAD = (
    "| data | model | sampler | steps | rows | levels | CPU s | AA_TS | Fréchet, pixels | "
    "Fréchet, features | nearest |"
)


def save(
    found: Mapping[tuple[str, int], Tensor], shape: tuple[int, int], path: Path, title: str
) -> None:
    """Write a picture: a row a sampler, a column a number of steps, up to 64 pictures in each place."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for name, _ in found))
    steps = sorted({at for _, at in found})
    figure = Figure(figsize=(2.6 * len(steps) + 0.6, 2.6 * len(names) + 0.5), dpi=110)
    axes = figure.subplots(len(names), len(steps), squeeze=False)
    for i, name in enumerate(names):
        for j, at in enumerate(steps):
            place = axes[i, j]
            place.set_xticks([])
            place.set_yticks([])
            if (name, at) in found:
                grid = plots.tile(np.nan_to_num(found[name, at].numpy()), shape, normalise=(0, 1))
                place.imshow(grid, cmap="gray", vmin=0, vmax=255)
            else:
                place.set_frame_on(False)  # real rows are shown once
            if i == 0:
                place.set_title(f"{at:,} steps", fontsize=9)
            if j == 0:
                place.set_ylabel(name, fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path)


def beside(out: Path, data: str) -> None:
    """Write a picture of all models of one data set, by ordinary steps and by tempering, and of real rows."""
    shown: dict[tuple[str, int], Tensor] = {}
    for path in sorted(out.glob(f"{data}-*/kept.pt")):
        model = path.parent.name.partition("-")[2]
        for (name, at, what), x in torch.load(path).items():
            if what in ("samples", "clean") and name in _SHOWN:
                noise = ", no noise" if what == "clean" else ""
                shown[f"{model}: {name}{noise}", at] = x
            elif name == "real rows":
                shown[name, at] = x
    if shown:
        side = math.isqrt(next(iter(shown.values())).shape[1])
        save(shown, (side, side), out / f"{data}.png", f"{data}: samples from noise")


_SHOWN = ("gibbs", "tempering", "its own steps")


def table(out: Path) -> None:
    """Write ``table.md`` and ``table.json`` of all results in a folder, and a picture of each data set."""
    found = {p.parent.name: json.loads(p.read_text()) for p in sorted(out.glob("*/results.json"))}
    parts = [
        "Pixels lie between 0 and 1. Real rows: test rows against training rows.\n",
        *(_rows(found, what) for what in ("clean", "samples", "means")), _training(found), _words(found),
    ]  # fmt: skip
    for data in dict.fromkeys(run.partition("-")[0] for run in found):
        beside(out, data)
    (out / "table.md").write_text("\n".join(parts))
    (out / "table.json").write_text(json.dumps(found, indent=1))
    print("\n".join(parts))


def _rows(found: Mapping[str, Any], what: str) -> str:
    lines = [f"### {what}\n", _HEAD, "|---" * 11 + "|"]
    for run, results in found.items():
        data, _, model = run.partition("-")
        rows = [r for r in results.get("samples", []) if r["what"] == what]
        rows += [{"sampler": "real rows", "steps": "", **r} for r in results.get("floors", [])]
        lines += [_line(data, model, r) for r in rows]
    return "\n".join(lines) + "\n"


def _line(data: str, model: str, r: Mapping[str, Any]) -> str:
    if "crash" in r:
        return f"| {data} | {model} | {r['sampler']} | {r['steps']} | {r['crash']} |"
    cells = [data, model, r["sampler"], r["steps"], r["rows"], r.get("levels", ""),
             f"{r['seconds']:.1f}" if "seconds" in r else "",
             f"{r['aa_ts']:.3f} ± {r['aa_ts_error']:.3f}", f"{r['frechet_pixels']:.2f}",
             f"{r['frechet_features']:.1f}", f"{r['nearest']:.2f}"]  # fmt: skip
    return "| " + " | ".join(str(c) for c in cells) + " |"


def _training(found: Mapping[str, Any]) -> str:
    lines = ["### training\n", "| run | CPU s | updates or epochs | crash |", "|---|---|---|---|"]
    for run, results in found.items():
        t = results.get("training", {})
        count = t.get("updates", f"{t.get('epochs')} epochs")
        crash = "; ".join(x["crash"] for x in (t, results) if "crash" in x)
        lines.append(f"| {run} | {t.get('seconds', 0):.0f} | {count} | {crash} |")
    return "\n".join(lines) + "\n"


def _words(found: Mapping[str, Any]) -> str:
    lines = ["### certificates\n"]
    for run, results in found.items():
        for name, made in results.get("certificates", {}).items():
            seconds, steps = made["seconds"], made["steps"]
            lines += [f"**{run}, {name}, {steps} steps, {seconds:.0f} CPU s**\n"]
            lines += [f"- {words}" for words in made["words"]] + [""]
    return "\n".join(lines)
