"""Reports as values and as JSON: there and back, held against the schema, refused with words."""

import dataclasses
import json
import math
import os
import re
from pathlib import Path

import jsonschema
import pytest
import synthetic

from ttt_conformance.report import Failure, Point, Report, Result
from ttt_conformance.report.files import write_whole
from ttt_conformance.report.results import SHARE_EDGES, bin_of
from tttcore import SPEC_VERSION, InvalidInput

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "conformance/ttt_conformance/report/schema.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/report.md").read_text(encoding="utf-8")
REPORTS = [synthetic.holding, synthetic.mixed, synthetic.hostile, synthetic.empty]


@pytest.mark.parametrize("make", REPORTS)
def test_there_and_back(make, tmp_path):
    report, path = make(), tmp_path / "report.json"
    report.write(path)
    back = Report.read(path)
    results = [
        dataclasses.replace(result, failure=result.failure and dataclasses.replace(result.failure, error=result.failure.error or math.inf))
        for result in report.results
    ]
    assert back == dataclasses.replace(report, results=results)
    assert back.to_json() == report.to_json()


def test_what_is_not_finite_comes_back_as_infinity(tmp_path):
    path = tmp_path / "report.json"
    failure = dataclasses.replace(synthetic.FAILURE, got=math.nan, error=math.nan)
    synthetic.report(synthetic.broken(worst=math.inf, curve=[Point(1, math.nan, 1.0)], failure=failure)).write(path)
    (result,) = Report.read(path).results
    assert (result.worst, result.curve, result.failure.error, result.failure.got) == (math.inf, [Point(1, math.inf, 1.0)], math.inf, None)


@pytest.mark.parametrize("make", REPORTS)
def test_the_schema_holds(make):
    content = json.loads(make().to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(content, SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("schema", "fields"),
    [(SCHEMA, ["schema_version", *Report.__dataclass_fields__])]
    + [(SCHEMA["$defs"][kind.__name__.lower()], list(kind.__dataclass_fields__)) for kind in (Result, Point, Failure)],
)
def test_every_field_is_in_the_schema_and_on_the_page(schema, fields):
    assert set(schema["properties"]) == set(schema["required"]) == set(fields)
    assert all(schema["properties"][field]["description"] or field == "schema_version" for field in fields)
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    assert set(fields) <= {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_a_field_that_the_schema_does_not_know_is_none():
    content = json.loads(synthetic.mixed().to_json())
    content["results"][0]["status"] = "skipped"
    with pytest.raises(jsonschema.ValidationError, match="'skipped' is not one of"):
        jsonschema.validate(content, SCHEMA)


def test_another_schema_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"schema_version": 1, "results": []}))
    with pytest.raises(InvalidInput) as raised:
        Report.read(path)
    assert str(raised.value) == f"{path}: schema_version: got 1; expected 2. Fix: make the report again with this version."


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (b"", "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        (b"\xff", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"{}", "KeyError: 'schema_version'"),
        (b"3", "AttributeError: 'int' object has no attribute 'pop'"),
        (b'{"schema_version": 2}', "KeyError: 'results'"),
        (b'{"schema_version": 2, "results": [{}]}', "TypeError: "),
        (b'{"schema_version": 2, "results": []}', "TypeError: "),
    ],
)
def test_what_is_no_report_is_refused(text, got, tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(text)
    with pytest.raises(InvalidInput) as raised:
        Report.read(path)
    assert str(raised.value).startswith(f"{path}: got {got}")
    assert str(raised.value).endswith("; expected a report of ttt conform --json. Fix: make one.")


def test_the_spec_version_is_that_of_the_run(tmp_path):
    assert synthetic.empty().spec_version == SPEC_VERSION
    path = tmp_path / "report.json"
    synthetic.report(spec_version="0.9").write(path)
    assert Report.read(path).spec_version == "0.9"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_whole(path, "before")
    assert path.read_text() == "before"
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half \ud800")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))
    with pytest.raises(OSError, match="the disk is gone"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["report.json"]


def test_shares_are_counted_up_to_their_edges():
    assert [bin_of(edge) for edge in SHARE_EDGES] == list(range(len(SHARE_EDGES)))
    assert SHARE_EDGES[bin_of(1.0)] == 1.0
    assert SHARE_EDGES[bin_of(math.nextafter(1.0, 2.0))] == 10.0
    assert bin_of(math.nan) == len(SHARE_EDGES) - 1


def test_a_backend_that_claims_nothing_is_unchecked():
    assert synthetic.mixed().unchecked == ["triton"]
    assert synthetic.holding().unchecked == []
