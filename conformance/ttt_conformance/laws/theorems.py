"""The paper's two theorems as laws: a TTT layer with a bare linear inner model is linear attention, and in feature space softmax attention."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tttcore import LayerSpec

from ..cases import INNER_MODELS, Case
from ..problem import Outcome, Problem
from .expected import CACHED, Expected, expect
from .law import Law, Scope, Trial

TOKENS = 8
FEATURES = 16


def check_linear_attention(trial: Trial, case: Case) -> None:
    """y against (QKᵀ ⊙ tril) V."""
    rng = case.rng(10)
    q, k, v = (rng.normal(size=(2, TOKENS, 2, FEATURES)) for _ in range(3))
    problem, truth, allowed = attention(case, q, k, v)
    trial.compare("y", trial.answer(problem).y, truth.y, allowed.y)


def check_softmax_attention(trial: Trial, case: Case) -> None:
    """Numerator and denominator from one call, their ratio against softmax attention."""
    problem, truth, allowed, (q, k, v) = kernel(case)
    sums = trial.answer(problem).y.astype(np.float64)
    trial.compare("numerator and denominator", sums, truth.y, allowed.y)
    scores = np.where(np.tril(np.ones((TOKENS, TOKENS), np.bool))[..., None], np.exp(q[:, :, None] * k[:, None, :]), 0.0)
    expected = np.einsum("bthj,bjhd->bthd", np.moveaxis(scores, -1, 2), v) / np.sum(scores, axis=2)[..., None]
    # N/Z: an error of each counts by 1/Z and by |y|/Z; the series of exp stops after FEATURES terms of |qk| ≤ 1.
    least = float(np.min(np.sum(scores, axis=2)))
    remainder = 2 * TOKENS * math.e * float(np.max(np.abs(v))) / math.factorial(FEATURES)
    share = (float(allowed.y) * (1 + float(np.max(np.abs(expected)))) + remainder) / least
    trial.compare("softmax attention", sums[..., :-1] / sums[..., -1:], expected, np.float64(2 * share))


@functools.lru_cache(CACHED)
def kernel(case: Case) -> tuple[Problem, Outcome, Outcome, tuple[np.ndarray, ...]]:
    """exp(qk) = φ(q)·φ(k), φ(x)_n = xⁿ/√n!, so the Nadaraya–Watson sums over exp(qk) are linear attention over φ with values (v, 1)."""
    rng = case.rng(11)
    q, k = (rng.uniform(-1.0, 1.0, (2, TOKENS, 2)) for _ in range(2))
    v = rng.normal(size=(2, TOKENS, 2, FEATURES - 1))
    powers = np.arange(FEATURES)
    roots = np.sqrt([math.factorial(n) for n in powers])
    labels = np.concatenate([v, np.ones((*v.shape[:3], 1))], axis=-1)
    problem, truth, allowed = attention(case, q[..., None] ** powers / roots, k[..., None] ** powers / roots, labels)
    return problem, truth, allowed, (q, k, v)


def attention(case: Case, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> Expected:
    """f(x) = xW from W = 0, one mini-batch, steps of 1 on ½‖f(k) − v‖²; y_t = Σ_{j ≤ t} (q_t·k_j) v_j."""
    heads, width = q.shape[2:]
    spec = LayerSpec(width=heads * width, heads=heads, inner=INNER_MODELS["bare"], mini_batch_size=TOKENS, base_lr=float(width))
    params: dict[str, Any] = {"W1": np.zeros((heads, width, width)), "token_lr_offset": 1 - 1 / np.arange(1.0, TOKENS + 1)}
    problem = Problem(spec, params, (q, k, v, np.ones(q.shape[:3]))).map(lambda x: x.astype(case.dtype))
    scores = np.tril(np.einsum("bthd,bjhd->bhtj", q, k))
    y = np.einsum("bhtj,bjhd->bthd", scores, v)
    _, truth, allowed = expect(problem)
    return Expected(problem, truth._replace(y=y), allowed)


LINEAR_ATTENTION = Law(
    "linear attention",
    "Theorem 1 of the paper: f(x) = xW, W₀ = 0, one mini-batch, step 1 ⇒ y_t = Σ_{j≤t} (q_t·k_j) v_j",
    check_linear_attention,
    (Scope("inner", ("bare",)),),
    cost=2,
)
SOFTMAX_ATTENTION = Law(
    "softmax attention",
    "Theorem 2 of the paper: the Nadaraya–Watson estimator with kernel exp(q·k), by Theorem 1 on the kernel's features, is softmax attention",
    check_softmax_attention,
    (Scope("inner", ("bare",)),),
    allowed="the rule on N and Z, carried through N/Z, plus the remainder of the series of exp",
    cost=2,
)
