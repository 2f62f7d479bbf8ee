"""The files: read without a library, kept exactly, of one version, one for each law and axis."""

import json
import math
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file

from ttt_conformance.cases import INNER_MODELS
from ttt_conformance.laws import LAWS
from ttt_conformance.vectors import FOLDER, files, load, save
from ttt_conformance.vectors.catalogue import CATALOGUE
from ttt_conformance.vectors.container import Content, encode, read
from tttcore import SPEC_VERSION, InvalidInput
from tttcore.tree import leaves

every_file = pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)


def by_hand(path):
    """Texts and arrays as docs/vectors.md says to read them."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    assert length % 8 == 0
    texts, arrays = header.pop("__metadata__"), {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        numbers = struct.unpack(f"<{math.prod(entry['shape'])}{ {'F64': 'd', 'I32': 'i', 'BOOL': '?'}[entry['dtype']] }", data[begin:end])
        assert begin % max(1, (end - begin) // max(1, len(numbers))) == 0, "aligned"
        arrays[name] = np.reshape(numbers, entry["shape"])
    return texts, arrays


def test_the_files_are_those_of_the_catalogue_and_small():
    assert {path.stem for path in files()} == {entry.name for entry in CATALOGUE}
    assert sum(path.stat().st_size for path in files()) < 1e6


def test_every_inner_model_and_subject_has_gradients():
    found = {tuple(entry.name.split("-")[:2]) for entry in CATALOGUE if entry.gradients}
    assert found == {("inner", name) for name in INNER_MODELS} | {("layer", "linear"), ("layer", "mlp")}
    assert found == {(scope.subject, inner) for scope in LAWS["frozen"].scopes for inner in scope.inner}


@every_file
def test_a_file_is_what_the_page_says(path):
    texts, arrays = by_hand(path)
    assert {name: (x.shape, x.tobytes()) for name, x in load_file(path).items()} == {
        name: (x.shape, x.astype(load_file(path)[name].dtype).tobytes()) for name, x in arrays.items()
    }
    assert set(texts) == {"format", "name", "about", "description", "spec"}
    assert texts["name"] == path.stem
    assert json.loads(texts["spec"])["spec_version"] == SPEC_VERSION


@every_file
def test_every_answer_has_an_allowance_that_is_smaller_than_what_it_bounds(path):
    """One that were not would let anything pass."""
    arrays = read(path).arrays
    answers = {name for name in arrays if name.split(".")[0] in ("y", "end", "grad")}
    assert {name.removeprefix("allowed.") for name in arrays if name.startswith("allowed.")} == answers
    for name in answers:
        double, single = arrays[f"allowed.{name}"]
        size = max(1.0, np.max(np.abs(arrays[name]), initial=0.0))
        assert 0 <= double <= 1e-9 * size, name
        assert double <= single <= 1e-1 * size, name
        assert np.isfinite(arrays[name]).all(), name
        assert double > 0 or not arrays[name].any(), name


@every_file
def test_a_vector_is_whole(path):
    vector = load(path)
    problem, mask, _ = vector.question
    spec = problem.spec
    assert {name: x.shape for name, x in problem.params.items()} == (spec.param_shapes() if problem.subject == "layer" else spec.inner_shapes())
    assert problem.subject == path.stem.partition("-")[0]
    for x in leaves((dict(problem.params), problem.inputs, problem.state if "cut-second" not in path.stem else None)):
        np.testing.assert_array_equal(x, x.astype(np.float32), err_msg="a number of a problem is float32's")
    if mask is not None:
        assert all(np.isnan(x[~mask]).all() for x in problem.inputs[:3])
    if vector.slopes is not None:
        assert all(x.any() for x in leaves(vector.slopes.bars)), "a cotangent of every output"


@every_file
def test_saved_and_loaded_again_it_is_the_same_file(path, tmp_path):
    save(load(path), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("text", "value", "message"), [("format", "0", "format: got 0; expected 1"), ("spec", None, "spec_version: got 0.1")])
def test_another_version_is_refused(text, value, message, tmp_path):
    texts, arrays = read(files()[0])
    value = value or json.dumps(json.loads(texts["spec"]) | {"spec_version": "0.1"})
    (tmp_path / "old.safetensors").write_bytes(encode(Content(texts | {text: value}, arrays)))
    with pytest.raises(InvalidInput, match=message):
        load(tmp_path / "old.safetensors")


def test_what_is_no_file_of_arrays_is_refused(tmp_path):
    for raw in (b"", b"\x00" * 8, b"\xff" * 100, (FOLDER / f"{CATALOGUE[0].name}.safetensors").read_bytes()[:-8]):
        (tmp_path / "bad.safetensors").write_bytes(raw)
        with pytest.raises(InvalidInput, match="expected a safetensors file"):
            read(tmp_path / "bad.safetensors")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "vector.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save(load(files()[0]), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
