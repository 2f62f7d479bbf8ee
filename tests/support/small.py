"""Small cases for tests that run many of them: the suite's own, but with every view that there is at any shape."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ttt_conformance.cases import Case
from ttt_conformance.shapes import Shape
from tttcore import LayerSpec

SHAPE = Shape(2, 2, 4, 4)


@dataclass(frozen=True)
class RichCase(Case):
    """A case with shared Q/K, convolutions and gate, whatever its shape."""

    @property
    def spec(self) -> LayerSpec:
        return dataclasses.replace(super().spec, share_qk=True, gate=True)


def case_of(subject, inner, shape=SHAPE, length=None, flavour="normal", dtype="float64", rich=True):
    """A case of two mini-batches and a ragged tail, unless the length is given."""
    kind = RichCase if rich and subject == "layer" else Case
    return kind(subject, inner, dtype, Shape(*shape), 2 * shape[3] + 3 if length is None else length, flavour, 11)
