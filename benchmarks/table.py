"""Results as text: one table a part."""

from typing import Any


def lines(part: dict[str, Any]) -> list[str]:
    """Return the lines of one part: rows of a contest, or figures under their names."""
    out = [part["title"]]
    if "rows" in part:
        out += [_row(name, row, part["unit"]) for name, row in part["rows"].items()]
    for name, figures in part.get("figures", {}).items():
        values = ", ".join(f"{k} {v:.2f}" for k, v in figures.items())
        out.append(f"  {name:24s} {values}")
    for name, why in part.get("skipped", {}).items():
        out.append(f"  {name:24s} {why}")
    if "log_z" in part:
        out.append(f"  {_log_z(part['log_z'])}")
    return out + [f"  ({note})" for note in part.get("notes", [])]


def _row(name: str, row: dict[str, Any], unit: str) -> str:
    low, high = row["ratio_quartiles"]
    text = f"  {name:24s} {row['ms']:9.3f} ms/{unit:12s} × {row['ratio']:5.2f}"
    if low != high:
        text += f"  [{low:.2f}, {high:.2f}]"
    if "flips_per_ns" in row:
        text = f"{text:76s} {row['flips_per_ns']:.4f} flips/ns"
    return text


def _log_z(found: dict[str, Any]) -> str:
    if "difference" not in found:
        return f"log Z {found['gibbsian']:.3f}"
    verdict = "they agree" if found["agree"] else "THEY DIFFER"
    return (
        f"log Z: gibbsian {found['gibbsian']:.3f}, rbms {found['rbms']:.3f}, difference "
        f"{found['difference']:+.3f} ± {found['standard_error']:.3f}: {verdict}"
    )
