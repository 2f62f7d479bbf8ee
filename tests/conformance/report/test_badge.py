"""Badges: what they say, and that they are pictures."""

from xml.etree import ElementTree as ET

import pytest
import synthetic

from ttt_conformance.laws import LAWS
from ttt_conformance.report.badge import COLORS, line, svg
from ttt_conformance.report.results import BROKEN, HOLDS
from ttt_conformance.report.summary import UNCHECKED

ALL = len(LAWS)


def test_a_badge_says_what_holds_is_broken_and_is_not_claimed():
    assert line(synthetic.mixed()) == (
        f"**TTT conformance** | numpy: {ALL}/{ALL} laws, spec 1.0 · torch: {ALL - 1}/{ALL} laws, 1 not claimed, spec 1.0"
        " · jax: 2 of 3 laws broken, spec 1.0 · triton: nothing compared, spec 1.0"
    )
    assert line(synthetic.empty()) == "**TTT conformance** | no backend"


def test_the_spec_is_that_of_the_run():
    assert line(synthetic.report(synthetic.result(), spec_version="0.9")) == "**TTT conformance** | numpy: 1/1 laws, spec 0.9"


def test_markdown_is_not_obeyed():
    assert r"\<script\>alert('\[red\]')" in line(synthetic.hostile())
    assert "\n" not in line(synthetic.report(synthetic.result("two\nlines")))


def test_the_picture_has_a_badge_a_backend_in_its_colour():
    picture = ET.fromstring(svg(synthetic.mixed()))
    name = "{http://www.w3.org/2000/svg}"
    assert [path.get("fill") for path in picture.iter(f"{name}path")] == [COLORS[status] for status in (HOLDS, HOLDS, BROKEN, UNCHECKED)]
    assert f"numpy: {ALL}/{ALL} laws, spec 1.0" in [text.text for text in picture.iter(f"{name}text")]
    assert picture.get("aria-label") == picture.find(f"{name}title").text


@pytest.mark.parametrize("make", [synthetic.holding, synthetic.hostile, synthetic.empty])
def test_the_picture_is_xml_and_loads_nothing(make):
    text = svg(make())
    ET.fromstring(text.encode("utf-8"))
    assert "href" not in text
    assert "<script" not in text
