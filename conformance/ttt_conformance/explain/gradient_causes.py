"""The likely cause of wrong cotangents: a term that is left out of the chain rule, as the complex step of the definition without it says."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tttcore.tree import leaves, paths

from .causes import NAMED
from .evidence import GradientEvidence
from .reproducer import DEFINITION
from .slopes import slope


class Mistake(NamedTuple):
    """The mistake, told to who made it, and where it is explained: ``old`` in the definition as ``new``; the cotangents that it ``ignores``."""

    cause: str
    see: str = "docs/mathematics.md#12-what-differentiates"
    old: str = ""
    new: str = ""
    ignores: str | None = None
    """How the paths of the results begin whose cotangents are not read."""


GRADIENT, SUM = "gradient(spec, norm, W, k, v)", "S[name] += lr * slope"

# What is detached has its real part for its value: no step of the arguments shows in it.
MISTAKES = {
    "state_bar": Mistake("the cotangent of the final state is ignored: it is a result of its own, besides y", ignores="state."),
    "y_bar": Mistake("the cotangent of y is ignored: only that of the final state goes back", ignores="y"),
    "inner_gradient": Mistake(
        "the inner gradient is taken as a constant: the outer gradient goes through it, second derivatives and all", old=SUM, new=f"{SUM}.real"
    ),
    "jacobians": Mistake(
        "in the inner gradient, the Jacobians of LayerNorm and activations are taken as constants: they are differentiated again",
        old="trace.append((h, jacobian))",
        new="trace.append((h, jacobian.real))",
    ),
    "inner_weights": Mistake(
        "in the inner gradient, the weights are taken as constants: it moves with them, back to W₀",
        old=GRADIENT,
        new="gradient(spec, norm, {name: x.real for name, x in W.items()}, k, v)",
    ),
    "inner_norm": Mistake(
        "in the inner gradient, γ and β are taken as constants: LayerNorm's parameters have a cotangent from the loss, too",
        old=GRADIENT,
        new="gradient(spec, {name: x.real for name, x in norm.items()}, W, k, v)",
    ),
    "keys": Mistake("the training view k is detached: it is learned, as q is", old=GRADIENT, new="gradient(spec, norm, W, k.real, v)"),
    "labels": Mistake("the label view v is detached: it is learned, as q is", old=GRADIENT, new="gradient(spec, norm, W, k, v.real)"),
    "learning_rates": Mistake(
        "the learning rates ℓ are detached: they multiply the inner gradient and are learned", old=SUM, new="S[name] += lr.real * slope"
    ),
    "steps": Mistake(
        "the reader's factors a_i are detached: token_lr_offset is learned", old="(a if a.real > 0 else 0)", new="(a.real if a.real > 0 else 0)"
    ),
    "read_out": Mistake(
        "where y is read, the update is detached: y_t depends on the tokens up to t through W − s_t S",
        old="{name: W[name] - step * S[name] for name in W}",
        new="{name: W[name] - (step * S[name]).real for name in W}",
    ),
    "border": Mistake(
        "the weights are detached at the borders of mini-batches: nothing goes back to earlier ones",
        old="W[name] - step * S[name], 0",
        new="(W[name] - step * S[name]).real, 0",
    ),
    "initial_state": Mistake(
        "the weights and sums are detached where the call begins: W₀, or the given state, has a cotangent",
        old="state[name].astype(dtype) for",
        new="state[name].real.astype(dtype) for",
    ),
    "convolution": Mistake(
        "the convolutions' past inputs are detached: later tokens, and the final state, depend on them",
        old="np.concatenate([conv[b], ",
        new="np.concatenate([conv[b].real, ",
    ),
}


def likely(evidence: GradientEvidence) -> str:
    """One or two sentences, or an empty string."""
    off = wrong(evidence)
    if not off or any(evidence.got[path].shape != u.shape for path, u in evidence.along.items()):
        return ""
    order = [*off, *(path for path in evidence.along if path not in off)]  # a wrong one soon tells most mistakes apart
    known = [f"{mistake.cause} (see {mistake.see})" for mistake in MISTAKES.values() if all(_agrees(evidence, path, mistake) for path in order)]
    return "; or: ".join(known[:NAMED]) or next(_patterns(evidence, off), "")


def wrong(evidence: GradientEvidence) -> list[str]:
    """The arguments whose cotangents are of another shape, or are not the definition's along their direction."""
    return [path for path, u in evidence.along.items() if evidence.got[path].shape != u.shape or not _agrees(evidence, path)]


def _agrees(evidence: GradientEvidence, path: str, mistake: Mistake | None = None) -> bool:
    got = float(np.sum(evidence.got[path].astype(np.float64) * evidence.along[path]))
    return abs(got - slope_of(evidence, path, mistake)) <= evidence.allowed[path]


def slope_of(evidence: GradientEvidence, path: str, mistake: Mistake | None = None, u: np.ndarray | None = None) -> float:
    """⟨ȳ, ∂f·u⟩ by complex step of the definition, or of one with a mistake; u is the evidence's direction unless given."""
    problem, options = evidence.problem, evidence.options
    mistake = Mistake("") if mistake is None else mistake
    state = None if problem.state is None else dict(zip(paths(problem.state), leaves(problem.state), strict=True))
    given = {"mask": options.mask} | ({} if options.cu_seqlens is None else {"cu_seqlens": options.cu_seqlens})
    arguments: dict[str, Any] = {"spec": json.loads(problem.spec.to_json()), "params": dict(problem.params), **problem.named_inputs, "state": state}
    bars = {name: bar for name, bar in evidence.bars.items() if mistake.ignores is None or not name.startswith(mistake.ignores)}
    layer = changed(mistake.old, mistake.new)[problem.subject]
    return slope(layer, arguments | given, bars, path, evidence.along[path] if u is None else u)


@functools.cache
def changed(old: str, new: str) -> dict[str, Any]:
    """The definition's functions with ``new`` instead of ``old`` in their source."""
    source = DEFINITION.read_text(encoding="utf-8")
    if old not in source:
        raise LookupError(f"the definition no longer contains {old!r}")
    names: dict[str, Any] = {}
    exec(compile(source.replace(old, new) if old else source, str(DEFINITION), "exec"), names)
    return names


def _patterns(evidence: GradientEvidence, off: list[str]) -> Iterator[str]:
    """What all wrong cotangents have in common, each along two directions: they are zero, or the right ones times a number."""
    names = ", ".join(off)
    if not any(np.any(evidence.got[path]) for path in off):
        yield f"zero cotangents of {names}: detached"
        return
    ratios: list[float] = []
    for path in off:
        for u in (evidence.along[path], np.flip(evidence.along[path])):
            ratios.append(float(np.sum(evidence.got[path].astype(np.float64) * u)) / (slope_of(evidence, path, u=u) or np.nan))
    if np.ptp(ratios) <= 1e-4 * abs(ratios[0]):
        yield f"{ratios[0]:.4g} times what they should be: the cotangents of {names}"
