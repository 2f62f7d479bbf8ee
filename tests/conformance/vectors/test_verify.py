"""Answers in files: right ones, wrong ones, and what is neither."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from ttt_conformance.vectors import FOLDER, files
from ttt_conformance.vectors.catalogue import CATALOGUE
from ttt_conformance.vectors.commands import vectors_app
from ttt_conformance.vectors.container import read
from ttt_conformance.vectors.export import export
from ttt_conformance.vectors.verify import MISSING, OK, WRONG, verify
from tttcore import SPEC_VERSION, InvalidInput

NAME = "inner-linear-resumed"


def ttt(*arguments):
    return CliRunner().invoke(vectors_app, list(map(str, arguments)), env={"COLUMNS": "200", "TERM": "dumb"})


def answers(name=NAME, groups=("y", "end", "grad"), dtype=np.float64):
    """The right ones."""
    arrays = {key: x for key, x in read(FOLDER / f"{name}.safetensors").arrays.items() if key.split(".")[0] in groups}
    return {key: x.astype(dtype) if x.dtype.kind == "f" else x for key, x in arrays.items()}


def write(folder, arrays, name=NAME):
    save_file({key: np.ascontiguousarray(x) for key, x in arrays.items()}, folder / f"{name}.safetensors")


def verdict(folder, arrays, name=NAME):
    write(folder, arrays, name)
    return {found.name: found for found in verify(folder)}[name]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_right_answers_are_ok(dtype, tmp_path):
    for entry in CATALOGUE:
        write(tmp_path, answers(entry.name, dtype=dtype), entry.name)
    found = verify(tmp_path)
    assert [one.name for one in found] == [entry.name for entry in CATALOGUE]
    assert {(one.status, one.message, one.not_given) for one in found} == {(OK, "", ())}
    assert all(one.worst <= 1 for one in found)


def test_part_of_an_answer_is_ok(tmp_path):
    found = verdict(tmp_path, answers(groups=("y",)))
    assert (found.status, found.compared) == (OK, ("y",))
    assert "end.phase" in found.not_given
    assert "grad.q" in found.not_given
    assert all((one.status == MISSING) == (one.name != NAME) for one in verify(tmp_path))


@pytest.mark.parametrize("key", [key for key in answers() if answers()[key].any()])
def test_one_wrong_number_is_found(key, tmp_path):
    arrays = answers()
    place = tuple(size - 1 for size in arrays[key].shape)
    arrays[key][place] += 1 if key == "end.phase" else 1e-9
    found = verdict(tmp_path, arrays)
    assert found.status == WRONG
    assert found.message.startswith(f"{key}: got an error of 1")
    assert f"at {list(place)}: " in found.message
    assert "also wrong" not in found.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.full((2, 11, 2, 4), np.nan)}, "y: got an error of nan"),
        ({"y": np.zeros((2, 11, 8))}, "y: got shape (2, 11, 8); expected shape (2, 11, 2, 4)"),
        ({"y": np.zeros((2, 11, 2, 4), np.int32)}, "dtype of y: got int32; expected float64 or float32"),
        ({"y": np.zeros((2, 11, 2, 4), np.float16)}, "dtype of y: got float16; expected float64 or float32"),
        ({"end.w1": np.zeros(3)}, "arrays: got end.w1, no array of the vector; expected answers: y, end.…, grad.…"),
        ({"q": np.zeros(3)}, "arrays: got q, another one than the vector's; expected answers"),
        ({"y": None}, "expected y at least"),
        ({"y": np.zeros((2, 11, 2, 4)), "end.weights.b1": np.zeros((2, 2, 1, 4))}, "also wrong: end.weights.b1"),
    ],
)
def test_a_wrong_answer_says_what_is_wrong(change, message, tmp_path):
    found = verdict(tmp_path, {key: x for key, x in (answers() | change).items() if x is not None})
    assert found.status == WRONG
    assert message in found.message


def test_numbers_of_float32_are_no_answer_in_float64(tmp_path):
    arrays = answers(dtype=np.float32)
    assert verdict(tmp_path, {key: x.astype(np.float64) if x.dtype.kind == "f" else x for key, x in arrays.items()}).status == WRONG


def test_a_file_that_is_none_is_wrong(tmp_path):
    (tmp_path / f"{NAME}.safetensors").write_bytes(b"no arrays")
    assert "expected a safetensors file" in {one.name: one for one in verify(tmp_path)}[NAME].message


def test_the_vectors_may_be_answered_in_place():
    """What was exported holds the right answers, beside what was asked."""
    assert {(one.status, one.not_given, one.worst) for one in verify(FOLDER)} == {(OK, (), 0.0)}


def test_the_command_tells_by_its_status(tmp_path):
    write(tmp_path, answers(groups=("y", "end")))
    right = ttt("verify", tmp_path)
    assert right.exit_code == 0, right.output
    assert f"1 ok, 0 WRONG, {len(CATALOGUE) - 1} missing" in right.output
    assert next(line for line in right.output.splitlines() if NAME in line).split("│")[-2].strip() == "grad"
    write(tmp_path, answers() | {"y": np.zeros((2, 11, 2, 4))})
    wrong = ttt("verify", tmp_path)
    assert wrong.exit_code == 1
    assert f"{NAME}: y: got an error of" in wrong.output


@pytest.mark.parametrize(
    ("name", "message"),
    [(None, "got no answers; expected files such as"), ("inner-linear-0", "got inner-linear-0.safetensors; expected files by the names of vectors")],
)
def test_nothing_to_compare_is_usage(name, message, tmp_path):
    if name is not None:
        write(tmp_path, answers(), name)
    found = ttt("verify", tmp_path)
    assert found.exit_code == 2
    assert message in found.output


@pytest.mark.parametrize("arguments", [("verify", "no/such/folder"), ("export", "no/such/folder"), ("export", __file__), ("verify",), ("check", ".")])
def test_wrong_usage_exits_with_2(arguments):
    assert ttt(*arguments).exit_code == 2


def test_the_export_is_whole(tmp_path):
    found = ttt("export", tmp_path / "new")
    assert found.exit_code == 0, found.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").glob("*.safetensors")} == {path.name: path.read_bytes() for path in files()}
    index = json.loads((tmp_path / "new/index.json").read_text(encoding="utf-8"))
    assert (index["format"], index["spec_version"]) == ("1", SPEC_VERSION)
    assert [one["name"] for one in index["vectors"]] == [entry.name for entry in CATALOGUE]
    one = next(one for one in index["vectors"] if one["name"] == NAME)
    assert set(one) == {"name", "about", "description", "spec", "arrays"}
    assert one["spec"]["mini_batch_size"] == 4
    assert one["arrays"]["q"] == {"dtype": "F64", "shape": [2, 11, 2, 4]}
    assert set(one["arrays"]) == set(read(FOLDER / f"{NAME}.safetensors").arrays)


def test_an_export_replaces_an_older_one_and_nothing_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "index.json").write_text("old")
    assert len(export(tmp_path)) == len(list(tmp_path.iterdir())) - 1
    assert json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    with pytest.raises(InvalidInput, match="expected a folder"):
        export(tmp_path / "notes.txt")
