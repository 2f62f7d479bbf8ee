"""JUnit's XML: it parses, and its counts are those of the report."""

from collections import Counter
from xml.etree import ElementTree as ET

import pytest
import synthetic

from ttt_conformance.report.junit import document
from ttt_conformance.report.results import BROKEN, NOT_CLAIMED


@pytest.mark.parametrize("make", [synthetic.holding, synthetic.mixed, synthetic.hostile, synthetic.empty])
def test_a_suite_a_backend_and_a_case_a_cell(make):
    report = make()
    root = ET.fromstring(document(report).encode("utf-8"))
    assert root.tag == "testsuites"
    assert len(root) == len(report.backends)
    assert len(root.findall("testsuite/testcase")) == len(report.results)
    for suite, backend in zip(root, report.backends, strict=True):
        results = [result for result in report.results if result.backend == backend]
        statuses = Counter(result.status for result in results)
        for element, counts in ((suite, statuses), (root, Counter(result.status for result in report.results))):
            found = [element.get(name) for name in ("tests", "failures", "errors", "skipped")]
            assert found == [str(count) for count in (counts.total(), counts[BROKEN], 0, counts[NOT_CLAIMED])]
        assert len(suite.findall("testcase/failure")) == statuses[BROKEN]
        assert len(suite.findall("testcase/skipped")) == statuses[NOT_CLAIMED]


def test_names_and_messages():
    report = synthetic.mixed()
    root = ET.fromstring(document(report).encode("utf-8"))
    assert [case.get("name") for case in root.findall("testsuite/testcase")] == [result.name for result in report.results]
    assert root.find("testsuite[@name='triton']/testcase/skipped").get("message") == "backend 'triton' has no gradients"
    first, _, crash = root.findall("testsuite[@name='jax']/testcase/failure")
    assert first.get("message") == report.broken[0].message
    for words in ("smallest input: 2 rows of 5 tokens", "error: 0.127 where 2.5e-13 is allowed", "likely cause: the mini-batch's"):
        assert words in first.text
    assert crash.get("message") == "ZeroDivisionError: a bug\nshape [b, t] [/red]"
    properties = {item.get("name"): item.get("value") for item in root[0].find("properties")}
    assert properties == {"spec_version": "1.0", "effort": "default", **synthetic.ENVIRONMENT}


def test_control_characters_are_written_as_their_escapes():
    failure = ET.fromstring(document(synthetic.hostile()).encode("utf-8")).find("testsuite/testcase/failure")
    assert failure.get("message") == synthetic.HOSTILE.replace("\x1b", r"\x1b").replace("\x00", r"\x00").replace("\ud800", r"\ud800")
