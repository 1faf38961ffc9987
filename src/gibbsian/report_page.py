"""The report as one web page: style and pictures inside, no script, nothing fetched.

The page says first what to believe, in words; then it shows the figures that the words rest on. It
knows nothing of machines or runs: it gets text and picture files, and lays them out for a laptop, a
phone, a dark screen and paper.
"""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

from gibbsian.errors import GibbsianError

Status = Literal["good", "doubtful", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: it holds (True), it does not (False), or nobody can say (None).

    The text is one plain sentence.
    """

    ok: bool | None
    text: str


@dataclass(frozen=True)
class Verdict:
    """What to believe: a status, a headline in plain words, the findings behind it, what to try."""

    status: Status
    headline: str
    findings: Sequence[Finding] = ()
    advice: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Parameters
    ----------
    title
        Its heading.
    lead
        One or two sentences: what is shown and how to read it.
    images
        PNG or GIF files, each with a text that stands in for it and a caption (may be empty).
    table
        Rows of text; the first cell of a row says what the others are.
    """

    title: str
    lead: str
    images: Sequence[tuple[Path, str, str]] = field(default_factory=list)
    table: Sequence[tuple[str, ...]] | None = None


# Shapes, since colour alone tells nothing to some; and the words a screen reader says instead.
_TICK = '<path d="M5 10.5l3.4 3.4L15 6.8"/>'
_CROSS = '<path d="M6.2 6.2l7.6 7.6M13.8 6.2l-7.6 7.6"/>'
_DASH = '<path d="M5.5 10h9"/>'
_BANG = '<path d="M10 5v6M10 14.6v.01"/>'
_STATUS = {
    "good": ("Trustworthy", _TICK),
    "doubtful": ("Doubtful", _BANG),
    "bad": ("Not to be trusted", _CROSS),
}
_FINDING = {
    True: ("yes", "Holds", _TICK),
    False: ("no", "Fails", _CROSS),
    None: ("open", "Unknown", _DASH),
}


def render(
    title: str,
    subtitle: str,
    verdict: Verdict,
    key_figures: Sequence[tuple[str, str, str]],
    sections: Sequence[Section],
    config: str,
) -> str:
    """Lay a report out as one self-contained HTML page.

    Parameters
    ----------
    title, subtitle
        What the report is about.
    verdict
        Comes first, in large words.
    key_figures
        ``(label, value, note)``, each a card.
    sections
        In the order of the page.
    config
        The run's configuration as TOML; it waits folded at the end.

    Returns
    -------
    The page as text. Everything given is escaped; pictures are embedded.

    Raises
    ------
    GibbsianError
        If the verdict's status is unknown, or a picture is missing or neither PNG nor GIF.
    """
    if verdict.status not in _STATUS:
        known = ", ".join(_STATUS)
        raise GibbsianError(f"The verdict {verdict.status!r} is unknown: use one of {known}.")
    links = "".join(
        f'<li><a href="#part-{number}">{escape(section.title)}</a></li>'
        for number, section in enumerate(sections, 1)
    )
    parts = "".join(_section(number, section) for number, section in enumerate(sections, 1))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<header>
<p class="brand">gibbsian report</p>
<h1>{escape(title)}</h1>
<p class="subtitle">{escape(subtitle)}</p>
</header>
<main>
{_verdict(verdict)}
{_key_figures(key_figures)}
{f'<nav aria-label="Parts of the report"><ul>{links}</ul></nav>' if len(sections) > 1 else ""}
{parts}
{_config(config)}
</main>
<footer><p>Written by gibbsian. This file holds all it shows and asks nothing of the network.</p>
</footer>
</body>
</html>
"""


def _mark(kind: str, shape: str) -> str:
    return f'<svg class="mark {kind}" viewBox="0 0 20 20" aria-hidden="true">{shape}</svg>'


def _finding(finding: Finding) -> str:
    kind, word, shape = _FINDING[finding.ok]
    return (
        f'<li>{_mark(kind, shape)}<span><span class="aside">{word}: </span>'
        f"{escape(finding.text)}</span></li>"
    )


def _verdict(verdict: Verdict) -> str:
    word, shape = _STATUS[verdict.status]
    findings = "".join(_finding(finding) for finding in verdict.findings)
    advice = "".join(f"<li>{escape(text)}</li>" for text in verdict.advice)
    columns = ""
    if findings:
        columns += f'<div><h3>What was checked</h3><ul class="findings">{findings}</ul></div>'
    if advice:
        columns += f'<div><h3>What to try</h3><ul class="advice">{advice}</ul></div>'
    return (
        f'<section class="verdict {verdict.status}" aria-labelledby="verdict">'
        f'<p class="status">{_mark("", shape)}{word}</p>'
        f'<h2 id="verdict">{escape(verdict.headline)}</h2>'
        f'<div class="columns">{columns}</div></section>'
    )


def _key_figures(figures: Sequence[tuple[str, str, str]]) -> str:
    cards = "".join(
        f'<div class="card"><dt>{escape(label)}</dt><dd>{_value(value)}'
        f'<span class="note">{escape(note)}</span></dd></div>'
        for label, value, note in figures
    )
    if not cards:
        return ""
    columns = 4 if -len(figures) % 4 < -len(figures) % 3 else 3  # the fuller last line
    return f'<dl class="cards" style="--n: {columns}">{cards}</dl>'


def _value(value: str) -> str:
    number, _, unit = value.partition(" ")
    if unit and any(character.isdigit() for character in number):
        return f'<span class="value">{escape(number)} <small>{escape(unit)}</small></span>'
    return f'<span class="value">{escape(value)}</span>'


def _section(number: int, section: Section) -> str:
    count = {0: "none", 1: "one"}.get(len(section.images), "many")
    figures = "".join(_figure(*image) for image in section.images)
    return (
        f'<section class="part {count}" id="part-{number}"><div class="words">'
        f'<h2>{escape(section.title)}</h2><p class="lead">{escape(section.lead)}</p></div>'
        f'<div class="figures">{figures}</div>{_table(section.table or ())}</section>'
    )


def _figure(path: Path, alt: str, caption: str) -> str:
    kind, width, height, content = _image(Path(path))
    data = base64.b64encode(content).decode("ascii")
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><img src="data:image/{kind};base64,{data}" alt="{escape(alt)}"'
        f' width="{width}" height="{height}">{words}</figure>'
    )


def _image(path: Path) -> tuple[str, int, int, bytes]:
    """Read a picture: its kind, width and height in pixels, and its bytes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GibbsianError(
            f"The picture {path} cannot be read ({error.strerror}): make the report anew."
        ) from error
    if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) >= 24:
        return "png", *struct.unpack(">II", content[16:24]), content
    if content[:6] in (b"GIF87a", b"GIF89a") and len(content) >= 10:
        return "gif", *struct.unpack("<HH", content[6:10]), content
    raise GibbsianError(f"The picture {path} is neither PNG nor GIF: make the report anew.")


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(str(head))}</th>'
        f"{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>"
        for head, *cells in rows
    )
    if not lines:
        return ""
    kind = "pairs" if max(map(len, rows)) <= 2 else "wide"
    return f'<div class="table {kind}" tabindex="0"><table><tbody>{lines}</tbody></table></div>'


def _config(text: str) -> str:
    if not text.strip():
        return ""
    return (
        "<details><summary>Configuration</summary>"
        "<p>Everything needed to repeat this run.</p>"
        f'<pre tabindex="0"><code>{escape(text.strip())}</code></pre></details>'
    )


_CSS = """
:root {
  color-scheme: light dark;
  --page: #fafaf8; --surface: #fff; --ink: #1b1f24; --soft: #57606a; --line: #e3e5e8;
  --link: #0b5c94; --paper: #fff; --dim: 1;
  --good: #12653b; --good-tint: #e8f4ec;
  --doubtful: #7d4f00; --doubtful-tint: #fcf2dd;
  --bad: #a3241b; --bad-tint: #fcebe9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121416; --surface: #1a1d21; --ink: #e7e9ec; --soft: #a5adb6; --line: #2d3238;
    --link: #7fc0ee; --dim: .88;
    --good: #74d3a0; --good-tint: #14271d;
    --doubtful: #efbd63; --doubtful-tint: #2a2313;
    --bad: #ff9a90; --bad-tint: #301a18;
  }
}
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0 auto; max-width: 1120px; padding: clamp(1.5rem, 5vw, 4.5rem) clamp(1.1rem, 4vw, 2.5rem);
  background: var(--page); color: var(--ink); overflow-wrap: break-word;
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    sans-serif;
}
h1, h2, h3, p, ul, dl, dd, figure { margin: 0; padding: 0; }
h1, h2 { line-height: 1.18; letter-spacing: -.018em; text-wrap: balance; font-weight: 650; }
ul { list-style: none; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 3px; border-radius: 4px; }
.aside { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.brand { color: var(--soft); font-size: .875rem; font-weight: 600; }
h1 { font-size: clamp(1.9rem, 4.6vw, 3rem); margin-top: .5rem; }
.subtitle { color: var(--soft); margin-top: .75rem; max-width: 46rem; font-size: 1.125rem; }

.verdict { margin-top: clamp(1.75rem, 4vw, 3rem); padding: clamp(1.4rem, 4vw, 2.75rem);
  border-radius: 20px; }
.good { --tone: var(--good); --tint: var(--good-tint); }
.doubtful { --tone: var(--doubtful); --tint: var(--doubtful-tint); }
.bad { --tone: var(--bad); --tint: var(--bad-tint); }
.verdict { background: var(--tint); }
.status { display: flex; align-items: center; gap: .55rem; color: var(--tone); font-weight: 650; }
.verdict h2 { font-size: clamp(1.45rem, 3.4vw, 2.15rem); margin-top: .8rem; max-width: 26em; }
.columns { display: grid; gap: 1.75rem clamp(2rem, 5vw, 4rem); margin-top: 1.9rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
.columns:empty { display: none; }
.columns h3 { font-size: .9375rem; color: var(--soft); font-weight: 600; margin-bottom: .7rem; }
.findings li { display: flex; gap: .7rem; }
.columns li + li { margin-top: .6rem; }
.advice li { padding-left: 1.15rem; position: relative; }
.advice li::before { content: ""; position: absolute; left: 0; top: .72em; width: .4rem;
  height: .4rem; border-radius: 50%; background: var(--tone); }
.mark { flex: none; width: 1.3rem; height: 1.3rem; margin-top: .2rem; border-radius: 50%;
  fill: none; stroke: var(--surface); stroke-width: 2.4; stroke-linecap: round;
  stroke-linejoin: round; }
.mark.yes { background: var(--good); }
.mark.no { background: var(--bad); }
.mark.open { background: var(--soft); }
.status .mark { margin: 0; width: 1.6rem; height: 1.6rem; background: var(--tone); }

.cards { display: grid; gap: 1rem; margin-top: 1rem;
  --even: calc((100% - (var(--n) - 1) * 1rem) / var(--n));
  grid-template-columns: repeat(auto-fill, minmax(min(100%, max(13rem, var(--even))), 1fr)); }
.card { background: var(--surface); border: 1px solid var(--line); border-radius: 14px;
  padding: 1.15rem 1.3rem 1.2rem; min-width: 0; }
.card dt { color: var(--soft); font-size: .9375rem; line-height: 1.35; }
.value { display: block; font-size: 1.75rem; font-weight: 650; letter-spacing: -.02em;
  line-height: 1.25; margin-top: .35rem; font-variant-numeric: tabular-nums; }
.value small { font-size: .62em; font-weight: 550; letter-spacing: 0; color: var(--soft); }
.note { display: block; color: var(--soft); font-size: .875rem; line-height: 1.4;
  margin-top: .3rem; }
.note:empty { display: none; }

nav { margin-top: 2.25rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .35rem 1.4rem; }
nav a { display: inline-block; padding: .25rem 0; font-size: .9375rem; text-decoration: none; }
nav a:hover { text-decoration: underline; text-underline-offset: .2em; }

.part { margin-top: clamp(3rem, 7vw, 5rem); scroll-margin-top: 1.5rem; }
.part h2 { font-size: clamp(1.35rem, 2.6vw, 1.7rem); }
.lead { margin-top: .6rem; max-width: 42rem; color: var(--soft); }
.figures { display: grid; gap: 1.75rem 1.5rem; margin-top: 1.5rem; align-items: start; }
.figures:empty { display: none; }
.many .figures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { min-width: 0; max-width: 40rem; }
img { display: block; width: auto; max-width: 100%; height: auto; background: var(--paper);
  border: 1px solid var(--line); border-radius: 12px; padding: clamp(.25rem, 1.5vw, .9rem);
  filter: brightness(var(--dim)); }
figcaption { color: var(--soft); font-size: .9375rem; line-height: 1.5; margin-top: .7rem;
  max-width: 38rem; }
.table { margin-top: 1.5rem; overflow-x: auto; }
.pairs { max-width: 46rem; }
.pairs th { hyphens: auto; }
.pairs td { overflow-wrap: anywhere; }
.wide td { white-space: nowrap; }
@media (min-width: 60rem) {
  .one { display: grid; column-gap: 3.5rem; grid-template-columns: 19rem minmax(0, 1fr); }
  .one .words { grid-row: span 2; }
  .one .figures { margin-top: .35rem; }
  .one .table { grid-column: 2; }
}
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .65rem 1.5rem .65rem 0;
  border-top: 1px solid var(--line); }
tr:last-child > * { border-bottom: 1px solid var(--line); }
th { font-weight: 400; color: var(--soft); min-width: 9rem; }
td:last-child { padding-right: 0; }

details { margin-top: clamp(3rem, 7vw, 5rem); border: 1px solid var(--line);
  border-radius: 14px; background: var(--surface); }
summary { cursor: pointer; padding: 1.05rem 1.3rem; font-weight: 600; }
details p { padding: 0 1.3rem; color: var(--soft); font-size: .9375rem; }
pre { margin: 0; padding: 1rem 1.3rem 1.4rem; overflow-x: auto; font-size: .875rem;
  line-height: 1.55; }
code { font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; }
footer { margin-top: 3rem; color: var(--soft); font-size: .875rem; }
@media (max-width: 30rem) {
  .cards { grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .7rem; }
  .card { padding: .9rem 1rem; }
  .value { font-size: 1.4rem; }
  .verdict { margin-inline: -.35rem; }
  th { min-width: 7rem; padding-right: 1rem; }
}
@media print {
  body { max-width: none; padding: 0; }
  nav { display: none; }
  figure, .card, .verdict { break-inside: avoid; }
}
"""
