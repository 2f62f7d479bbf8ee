"""The page: complete, well-formed, and nothing in it comes from or does anything outside."""

import base64
import functools
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import synthetic

from ttt_conformance.laws import LAWS
from ttt_conformance.report.html import anchor, page

REPORTS = [synthetic.holding, synthetic.mixed, synthetic.hostile, synthetic.empty]
VOID = {"meta", "link", "br", "img", "input", "hr"}
PAPER = "https://arxiv.org/abs/2407.04620"


class Page(HTMLParser):
    """The tags, attributes and text of a page; every tag must be closed where it should."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.words = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [(tag, value) for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data", "srcset")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data if self.open[-1:] != ["style"] else ""


@functools.cache
def text_of(make):
    return page(make())


def words_of(make):
    return Page(text_of(make)).words


@pytest.fixture(params=REPORTS, ids=lambda make: make.__name__)
def made(request):
    return request.param(), text_of(request.param), Page(text_of(request.param))


def test_nothing_comes_from_outside(made):
    _, text, parsed = made
    assert {link for tag, link in parsed.links if not link.startswith(("#", "data:text/x-python;base64,"))} == {PAPER}
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & {tag for tag, _ in parsed.tags}
    assert not re.search(r"@import|url\((?!#)", text)
    assert """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""" in text


def test_nothing_is_handled_by_a_script(made):
    _, _, parsed = made
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]


def test_links_lead_to_one_place_each(made):
    _, _, parsed = made
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for _, link in parsed.links if link.startswith("#")} <= set(parsed.ids)


def test_every_law_and_every_failure_is_there(made):
    report, _, parsed = made
    for law in LAWS.values():
        assert law.statement in parsed.words
    for result in report.broken:
        assert anchor("failure", result.name) in parsed.ids
    assert ("What is broken" in parsed.words) == bool(report.broken)


def test_the_same_report_gives_the_same_page():
    assert page(synthetic.mixed()) == text_of(synthetic.mixed)


def test_drawings_and_tables_can_be_read_without_seeing_them(made):
    _, _, parsed = made
    drawings = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)
    assert all("scope" in attributes for tag, attributes in parsed.tags if tag == "th")


def test_a_failure_is_told_in_full():
    words = words_of(synthetic.mixed)
    failure = synthetic.FAILURE
    for part in (
        failure.case,
        failure.cause,
        failure.what,
        "0.1234567890123",
        "0.25",
        "0.127 where 2.5e-13 is allowed",
        'width=8, heads=2, inner="mlp"',
    ):
        assert part in words
    assert failure.reproducer in words
    assert "ZeroDivisionError: a bug\nshape [b, t] [/red]" in words
    assert "no finite number" in words


def test_the_reproducer_can_be_saved():
    links = [attributes for tag, attributes in Page(text_of(synthetic.mixed)).tags if "download" in attributes]
    assert [attributes["download"] for attributes in links] == [f"{synthetic.mixed().broken[0].name}.py"]
    assert base64.b64decode(links[0]["href"].partition(",")[2]).decode() == synthetic.SCRIPT


def test_the_matrix_says_in_words_what_it_says_in_colour():
    words = words_of(synthetic.mixed)
    for part in ("Broken: jax", "BROKEN 2/2", "exact", "not claimed", "partly claimed", "0.02", "nothing compared", f"{len(LAWS)}/{len(LAWS)} laws"):
        assert part in words
    assert "All laws hold" in words_of(synthetic.holding)
    assert "Nothing was compared" in words_of(synthetic.empty)


def test_there_is_a_drawing_for_whatever_was_measured():
    def captions(report):
        return re.findall(r"<figcaption>(.*?)</figcaption>", page(report))

    assert captions(synthetic.report(synthetic.result())) == ["numpy: 3 comparisons, none beyond the allowance", "numpy: 0.5 seconds in all"]
    assert captions(synthetic.report(synthetic.result(curve=synthetic.curve())))[1] == "numpy, float64: errors up to token 16,384"
    assert captions(synthetic.report(synthetic.unclaimed())) == []


def test_hostile_words_are_shown_as_they_are():
    text = text_of(synthetic.hostile)
    assert "<script" not in text
    assert r"\x1b[31m \x00 \ud800" in Page(text).words
    text.encode("utf-8")


def test_matplotlib_is_imported_for_a_page_only():
    code = "import sys, ttt_conformance.report.html; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
