"""The report for continuous integration: JUnit's XML."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from .results import BROKEN, NOT_CLAIMED, Report, Result
from .summary import facts, headline, printable


def document(report: Report) -> str:
    """JUnit XML: a suite a backend, a case a cell; what is not claimed is skipped, what is broken a failure with all that is known of it.

    A backend of which nothing was compared has skipped cases only; that this proves nothing is for the exit status to say.
    """
    root = ET.Element("testsuites", {"name": f"TTT conformance: {headline(report)}", **_counts(report.results, report.seconds)})
    for backend in report.backends:
        results = [result for result in report.results if result.backend == backend]
        suite = ET.SubElement(root, "testsuite", {"name": backend, **_counts(results, sum(result.seconds for result in results))})
        properties = ET.SubElement(suite, "properties")
        for name, value in {"spec_version": report.spec_version, "effort": report.effort, **report.environment}.items():
            ET.SubElement(properties, "property", name=name, value=value)
        suite.extend(map(_case, results))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + printable(ET.tostring(root, encoding="unicode")) + "\n"


def _counts(results: list[Result], seconds: float) -> dict[str, str]:
    broken, skipped = (sum(result.status == status for result in results) for status in (BROKEN, NOT_CLAIMED))
    return {"tests": str(len(results)), "failures": str(broken), "errors": "0", "skipped": str(skipped), "time": f"{seconds:.3f}"}


def _case(result: Result) -> ET.Element:
    case = ET.Element("testcase", classname=f"{result.backend}.{result.law}", name=result.name, time=f"{result.seconds:.3f}")
    if result.status == NOT_CLAIMED:
        ET.SubElement(case, "skipped", message=result.message)
    if result.status == BROKEN:
        failure = ET.SubElement(case, "failure", message=result.message, type=result.law)
        failure.text = "\n".join(f"{name}: {value}" for name, value in facts(result))
    return case
