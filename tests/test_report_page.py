"""The report page: all of it inside, nothing of it active, its verdict in words."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from gibbsian import plots
from gibbsian.errors import GibbsianError
from gibbsian.report_page import Finding, Section, Verdict, render

NASTY = """<script>alert("x")</script> & 'so' "on" </style>"""
VOID = {"meta", "link", "img", "br", "path", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and insists that all tags are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def picture(tmp_path):
    return plots.save_images(np.eye(4), (2, 2), tmp_path / "samples.png", scale=3, pad=0)


@pytest.fixture
def verdict() -> Verdict:
    return Verdict(
        "doubtful",
        "The chains have not forgotten how they started.",
        [
            Finding(True, "R-hat is 1.01."),
            Finding(False, "The gap is 3 nats."),
            Finding(None, "Copies were not looked for."),
        ],
        ["Run more steps."],
    )


def page_of(verdict, sections=(), title="Title", figures=(), config="seed = 1") -> Page:
    return Page(render(title, "Subtitle", verdict, figures, sections, config))


def test_nothing_comes_from_outside(verdict, picture, tmp_path):
    film = plots.save_gif(np.random.default_rng(0).random((2, 4, 4)), (2, 2), tmp_path / "a.gif")
    sections = [
        Section("Samples", "From noise.", [(picture, "Four samples", "Caption")]),
        Section("Film", "From noise.", [(picture, "Samples", ""), (film, "A film", "")]),
    ]
    text = render("T", "S", verdict, [("Gap", "3 nats", "")], sections, "[a]\nb = 1")
    page = Page(text)
    assert page.all("script") == []
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#")), attributes
        assert not any(name.startswith("on") for name in attributes)
    style = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in text
    kinds = [image["src"].split(";")[0] for image in page.all("img")]
    assert kinds == ["data:image/png", "data:image/png", "data:image/gif"]


def test_pictures_are_embedded_with_their_size_and_words(verdict, picture):
    page = page_of(verdict, [Section("S", "Lead.", [(picture, "Four samples", "A caption")])])
    (image,) = page.all("img")
    assert base64.b64decode(image["src"].split(",")[1]) == picture.read_bytes()
    assert (image["width"], image["height"]) == ("12", "12")
    assert image["alt"] == "Four samples"
    assert "A caption" in page.words


def test_all_text_is_escaped(picture):
    verdict = Verdict("bad", NASTY, [Finding(None, NASTY)], [NASTY])
    section = Section(NASTY, NASTY, [(picture, NASTY, NASTY)], [(NASTY, NASTY)])
    figures = [(NASTY, NASTY, NASTY), (NASTY, "7 " + NASTY, NASTY)]
    text = render(NASTY, NASTY, verdict, figures, [section, section], NASTY)
    page = Page(text)
    assert page.all("script") == []
    assert text.count("</style>") == 1
    assert page.all("img")[0]["alt"] == NASTY
    # title twice, subtitle, headline, finding, advice, six in cards, configuration;
    # each section: a link, heading, lead, caption, two cells
    assert page.words.count(NASTY) == 2 + 1 + 3 + 6 + 1 + 2 * 6


@pytest.mark.parametrize(
    ("status", "words"),
    [("good", "Trustworthy"), ("doubtful", "Doubtful"), ("bad", "Not to be trusted")],
)
def test_the_verdict_stands_first_and_in_words(status, words):
    page = page_of(
        Verdict(status, "A headline."), [Section("Part", "Lead.")], figures=[("Gap", "3", "")]
    )
    places = [page.words.index(text) for text in (words, "A headline.", "Gap", "Part")]
    assert places == sorted(places)


def test_findings_are_told_apart_without_colour(verdict):
    page = page_of(verdict)
    for sentence in ("Holds: R-hat", "Fails: The gap", "Unknown: Copies", "Run more steps."):
        assert sentence in page.words
    shapes = [attributes["d"] for attributes in page.all("path")][1:]  # the first is the status
    assert len(set(shapes)) == 3


def test_an_empty_report_is_still_a_page():
    page = page_of(Verdict("bad", "Nothing was trained."), config="")
    assert "Nothing was trained." in page.words
    assert page.all("details") == page.all("nav") == page.all("dl") == page.all("table") == []


def test_sections_can_be_reached_and_tables_have_headings(verdict):
    rows = [("AIS", "-86.9"), ("Gap", "0.3", "0.4")]
    page = page_of(verdict, [Section("One", "Lead."), Section("Two", "Lead.", table=rows)])
    targets = {attributes.get("id") for _, attributes in page.tags}
    links = [link["href"] for link in page.all("a")]
    assert len(links) == 2 and all(link[1:] in targets for link in links)
    assert len(page.all("th")) == 2 and len(page.all("td")) == 3
    assert len(page.all("h1")) == 1


def test_the_same_input_gives_the_same_page(verdict, picture):
    sections = [Section("S", "Lead.", [(picture, "a", "c")])]
    pages = {render("T", "S", verdict, [], sections, "x = 1") for _ in range(2)}
    assert len(pages) == 1


def test_a_missing_or_strange_picture_is_named(verdict, tmp_path):
    with pytest.raises(GibbsianError, match=r"gone\.png cannot be read"):
        page_of(verdict, [Section("S", "L", [(tmp_path / "gone.png", "", "")])])
    strange = tmp_path / "strange.png"
    strange.write_bytes(b"\x89PNG")
    with pytest.raises(GibbsianError, match="neither PNG nor GIF"):
        page_of(verdict, [Section("S", "L", [(strange, "", "")])])


def test_colours_have_contrast():
    from gibbsian import report_page

    def luminance(colour: str) -> float:
        digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    light, dark = (
        dict(re.findall(r"--([\w-]+): #([0-9a-f]{3,6})", part))
        for part in report_page._CSS.split("prefers-color-scheme: dark")[:2]
    )
    pairs = [(ink, paper) for ink in ("ink", "soft", "link") for paper in ("page", "surface")]
    pairs += [(name, f"{name}-tint") for name in ("good", "doubtful", "bad")]
    pairs += [(ink, f"{s}-tint") for ink in ("ink", "soft") for s in ("good", "doubtful", "bad")]
    for theme in (light, dark):
        for front, back in pairs:
            a, b = sorted((luminance(theme[front]), luminance(theme[back])))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (front, back)  # WCAG 2, level AA
