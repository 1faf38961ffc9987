"""The chart of a run: costs in bare products on the left, speed-ups on the right."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contests import BARE, OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, GREY, INK, MUTED = "#0072b2", "#aeb5bc", "#1f2328", "#555e68"

STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.edgecolor": GREY, "xtick.color": MUTED, "ytick.color": INK, "ytick.major.size": 0,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip

# One bar: its name, its length, and the quartiles around it.
Bar = tuple[str, float, tuple[float, float]]
Groups = list[tuple[str, list[Bar]]]


def draw(found: dict[str, Any], path: Path) -> bool:
    """Draw what was measured; return whether there was anything to draw."""
    sides = [
        ("Cost, in bare matrix products", "lower is better; 1 = the products alone", costs(found)),
        ("Speed, gibbsian against others", "times as fast; higher is better", speeds(found)),
    ]
    sides = [side for side in sides if side[2]]
    if not sides:
        return False
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        heights = [_height(groups) for _, _, groups in sides]
        figure = Figure(figsize=(8.4, 1.1 + 0.26 * max(heights)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr]
        axes = figure.subplots(1, len(sides), squeeze=False)[0]
        for ax, (title, label, groups) in zip(axes, sides, strict=True):
            ax.set_title(title, pad=8)
            ax.set_xlabel(label)
            _bars(ax, groups, max(heights))
        figure.supxlabel(_caption(found), fontsize=7.5, color=MUTED, x=0.02, ha="left")
        figure.savefig(path, format="png", dpi=200, metadata={"Software": None})
    return True


def costs(found: dict[str, Any]) -> Groups:
    """Return the ratios to bare products of the sweep and of the epoch."""
    sizes = found["sizes"]
    titles = {
        "sweep": f"Gibbs sweep of {sizes['chains']:,} chains",
        "epoch": f"Epoch of training, batch {sizes['batch']}",
    }
    groups = []
    for key, title in titles.items():
        rows = found.get(key, {}).get("rows", {})
        bars = [_bar(n, r) for n, r in rows.items() if not n.startswith(BARE)]
        if bars:
            groups.append((title, bars))
    return groups


def speeds(found: dict[str, Any]) -> Groups:
    """Return how many times as fast as a peer gibbsian anneals, and moves one chain."""
    sizes = found["sizes"]
    titles = {
        "ais": f"AIS, {sizes['ais_chains']} chains",
        "single": f"One chain of {sizes['steps']:,} steps",
    }
    groups = []
    for key, title in titles.items():
        rows = found.get(key, {}).get("rows", {})
        bars = [_bar(f"vs {n}", r) for n, r in rows.items() if n not in (OURS, BARE)]
        if bars:
            groups.append((title, bars))
    return groups


def _bar(name: str, row: dict[str, Any]) -> Bar:
    low, high = row["ratio_quartiles"]
    return name, row["ratio"], (low, high)


def _height(groups: Groups) -> float:
    return sum(len(bars) + 1.4 for _, bars in groups)


def _bars(ax: "Axes", groups: Groups, height: float) -> None:
    """Draw groups from the top, each under its title, with the value at the end of each bar."""
    most = max(max(value, high) for _, bars in groups for _, value, (_, high) in bars)
    at, ticks, names = 0.0, [], []
    for title, bars in groups:
        ax.text(0, at, title, va="center", ha="left", color=MUTED)
        at += 1
        for name, value, (low, high) in bars:
            mine = name.startswith((OURS, "vs"))
            ax.barh(at, value, height=0.72, color=BLUE if mine else GREY)
            ax.plot([low, high], [at, at], color=INK, linewidth=1)
            place = max(value, high) + 0.02 * most
            text = ax.text(place, at, f"{value:.2f}", va="center")
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
            text.set_fontweight("bold" if mine else "normal")
            ticks.append(at)
            names.append(name)
            at += 1
        ax.plot([1, 1], [at - len(bars) - 0.5, at - 0.5], ":", color=INK, linewidth=1, zorder=0)
        at += 0.4
    ax.set_yticks(ticks, names)
    ax.set_ylim(height - 0.5, -0.7)
    ax.set_xlim(0, 1.15 * most)


def _caption(found: dict[str, Any]) -> str:
    machine, sizes = found["machine"], found["sizes"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    text = (
        f"RBM {sizes['visible']}-{sizes['hidden']}; medians of ratios in one run, lines: quartiles. "
        f"{machine['processor']} ({machine['instructions']}), {machine['threads']} threads; {versions}."
    )
    return "\n".join(textwrap.wrap(text, 135))
