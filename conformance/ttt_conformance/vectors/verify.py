"""Whether another implementation, in whatever language, answers the vectors rightly: its answers in files, against those that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tttcore import InvalidInput, get_backend

from ..laws.law import LawBroken, Trial
from .catalogue import CATALOGUE
from .container import read
from .store import FOLDER, PRECISIONS

OK, WRONG, MISSING = "ok", "WRONG", "missing"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Verdict:
    """How a vector was answered: which arrays were compared, and which not given.

    ``worst``: the largest share of its allowance that an error used; ``message``: what is wrong.
    """

    name: str
    status: str
    compared: tuple[str, ...] = ()
    not_given: tuple[str, ...] = ()
    worst: float = 0.0
    message: str = ""


def verify(folder: Path) -> list[Verdict]:
    """A verdict for every vector, from the file of its name in the folder; ``InvalidInput`` when there is no such file at all."""
    if not folder.is_dir():
        raise InvalidInput("folder of answers", got=f"{folder}, which is none", expected="a folder", fix="write answers there (docs/vectors.md)")
    given, known = {path.name for path in folder.glob(f"*{SUFFIX}")}, [entry.name for entry in CATALOGUE]
    if strangers := sorted(given - {name + SUFFIX for name in known}):
        raise InvalidInput(f"{folder}", got=strangers[0], expected="files by the names of vectors", fix="ttt vectors export FOLDER shows them")
    if not given:
        raise InvalidInput(f"{folder}", got="no answers", expected=f"files such as {known[0]}{SUFFIX}", fix="write answers there (docs/vectors.md)")
    return [judge(name, folder / (name + SUFFIX)) if name + SUFFIX in given else Verdict(name, MISSING) for name in known]


def judge(name: str, path: Path) -> Verdict:
    """The arrays of one file of answers, in float64 or float32, against the vector of that name; its other arrays may be carried along unchanged."""
    kept = read(FOLDER / (name + SUFFIX)).arrays
    expected = {key: x for key, x in kept.items() if f"allowed.{key}" in kept}
    trial, wrong = Trial(get_backend("numpy"), "answers in files"), dict[str, str]()
    try:
        found = read(path).arrays
        _demand_answers(found, kept, expected)
        compared = [key for key in expected if key in found]
        precisions = {key: _precision(key, found[key], found["y"]) for key in compared}
    except InvalidInput as error:
        return Verdict(name, WRONG, message=str(error))
    for key in compared:
        try:
            trial.compare(key, found[key], expected[key], kept[f"allowed.{key}"][precisions[key]])
        except LawBroken as error:
            where = error.place and f" at {error.place.index}: {error.place.got!r} instead of {error.place.expected!r}"
            wrong[key] = f"{error}{where or ''}"
    others = f"; also wrong: {', '.join(list(wrong)[1:])}" if len(wrong) > 1 else ""
    message = next(iter(wrong.values()), "") + others
    not_given = tuple(key for key in expected if key not in found)
    return Verdict(name, WRONG if wrong else OK, tuple(compared), not_given, trial.worst, message)


def _demand_answers(found: dict[str, np.ndarray], kept: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """No array but answers and what the vector itself has."""
    for key, x in found.items():
        if key not in expected and not (key in kept and np.array_equal(x, kept[key], equal_nan=x.dtype.kind == "f")):
            what = "another one than the vector's" if key in kept else "no array of the vector"
            raise InvalidInput("arrays", got=f"{key}, {what}", expected="answers: y, end.…, grad.…", fix="leave it out, or mend its name")
    if "y" not in found:
        raise InvalidInput("arrays", got=f"no y among {', '.join(found) or 'none'}", expected="y at least", fix="write y")


def _precision(key: str, x: np.ndarray, y: np.ndarray) -> int:
    """The place of the answer's precision in an allowance; integers count as y does."""
    dtype = x.dtype.name if x.dtype.kind == "f" else y.dtype.name
    if dtype not in PRECISIONS or x.dtype.kind not in "fiu":
        raise InvalidInput(f"dtype of {key}", got=x.dtype.name, expected=" or ".join(PRECISIONS), fix="write the array in one of these")
    return PRECISIONS.index(dtype)
