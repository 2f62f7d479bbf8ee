"""Parity with vectors computed by the authors' own code: ``python tests/parity/upstream.py FOLDER [--backend NAME …]``.

FOLDER holds, anywhere below it, safetensors files with ``input.*``, ``param.*`` (the authors' names), ``out.*``, ``cot.*`` and ``grad.*`` tensors
and a ``config`` in the header: layers and blocks of ttt-lm-pytorch, its inner function, its cache, its language models, and layers of ttt-lm-jax.
Every backend runs all of them in float64 and float32. Exit status 0 when all agree, 1 when one does not.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from block import block
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors import safe_open

from tttcore import Backend, State, Unsupported, backends, directional_derivative, get_backend, layer_around, upstream
from tttcore.inner_loop import inner_loop
from tttcore.language_model import PYTORCH

# The block around a layer is computed here, in the backend's own float64.
os.environ.setdefault("JAX_ENABLE_X64", "1")

FORMS = ("primal", "dual", "decode")
GELU_CONSTANTS = 2e-9
"""The authors' GELU derivative has constants of nine digits; ours is exact."""


class Check(NamedTuple):
    """What was compared, what came out, and what the authors' code gave."""

    what: str
    got: np.ndarray
    expected: np.ndarray


class File(NamedTuple):
    """One file of vectors, its inputs and parameters in the dtype of the run."""

    name: str
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    dtype: np.dtype[Any]

    @property
    def config(self) -> dict[str, Any]:
        return json.loads(self.metadata["config"])

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): self.cast(x) for name, x in self.tensors.items() if name.startswith(prefix)}

    def cast(self, x: np.ndarray) -> np.ndarray:
        return x.astype(self.dtype) if np.issubdtype(x.dtype, np.floating) else x

    def input(self, name: str) -> np.ndarray:
        return self.cast(self.tensors[name])

    def tolerance(self, expected: np.ndarray) -> float:
        if self.dtype == np.float32:
            return 2e-5
        mlp = "mlp" in self.config.get("ttt_layer_type", "") or "param.ttt_dense_1" in self.tensors
        stored = 2.0**-23 if expected.dtype == np.float32 else 0.0
        return max(GELU_CONSTANTS if mlp else 1e-12, stored)


def read(path: Path, dtype: str) -> File:
    with safe_open(path, "numpy") as file:
        return File(path.stem, {name: file.get_tensor(name) for name in file.keys()}, file.metadata(), np.dtype(dtype))  # noqa: SIM118


def layer(backend: Backend, file: File) -> Iterator[Check]:
    """A whole layer, forward and backward."""
    jax = "param.wq/kernel" in file.tensors
    convert, back = (upstream.from_jax, upstream.to_jax) if jax else (upstream.from_pytorch, upstream.to_pytorch)
    spec, params = convert(file.group("param."), file.config)
    theirs = back(spec, params)
    yield from (Check(f"round trip of {name}", theirs[name], x) for name, x in file.group("param.").items())
    x, positions = backend.asarray(file.input("input.hidden_states")), file.tensors["input.position_ids"]
    for form in forms(backend):
        y, _ = backend.layer(spec, params, x, form=form, positions=positions)
        yield Check(f"output ({form})", backend.to_numpy(y), file.tensors["out.output"])
        if backend.vjp_function is None:
            continue
        y_bar = backend.asarray(file.input("cot.output"))
        params_bar, x_bar, _ = backend.layer_vjp(spec, params, x, y_bar, form=form, positions=positions)
        yield Check(f"gradient of x ({form})", backend.to_numpy(x_bar), file.tensors["grad.hidden_states"])
        found = back(spec, {name: backend.to_numpy(bar) for name, bar in params_bar.items()})
        yield from (Check(f"gradient of {name} ({form})", found[name], x) for name, x in raw(file, "grad.param.").items())


def residual_block(backend: Backend, file: File) -> Iterator[Check]:
    """A layer within its residual block."""
    params = file.group("param.")
    prefix = "seq_modeling_block."
    mixer = {name.removeprefix(prefix): x for name, x in params.items() if name.startswith(prefix)}
    around = {name: x for name, x in params.items() if not name.startswith(prefix)}
    spec, mixer = upstream.from_pytorch(mixer, file.config)
    x, positions = file.input("input.hidden_states"), file.tensors["input.position_ids"]
    names = [*mixer, *around]

    def run(x: Any, *values: Any) -> Any:
        given = dict(zip(names, values, strict=True))

        def mix(z: Any) -> Any:
            ours = {name: given[name] for name in mixer}
            if backend.vjp_function is None:
                return layer_around(inner_loop, spec, ours, z, positions=positions)[0]
            return backend.layer(spec, ours, z, positions=positions)[0]

        return block(mix, {name: given[name] for name in around}, x)

    values = [x, *mixer.values(), *around.values()]
    native = [backend.asarray(value) for value in values]
    yield Check("output", backend.to_numpy(run(*native)), file.tensors["out.output"])
    theirs = raw(file, "grad.param.")
    expected = [file.tensors["grad.hidden_states"]]
    expected += upstream.from_pytorch({n.removeprefix(prefix): g for n, g in theirs.items() if n.startswith(prefix)}, file.config)[1].values()
    expected += [theirs[name] for name in around]
    if backend.vjp_function is None:
        if file.dtype == np.float64:
            yield slope_check(run, values, expected, file.tensors["cot.output"])
        return
    found = backend.vjp_function(lambda *arrays: [run(*arrays)], native, [backend.asarray(file.input("cot.output"))])
    yield from (Check(f"gradient of {name}", backend.to_numpy(bar), x) for name, bar, x in zip(["x", *names], found, expected, strict=True))


def slope_check(run: Any, values: list[np.ndarray], gradients: list[np.ndarray], y_bar: np.ndarray) -> Check:
    """The oracle's slope along a random direction against the authors' gradients; their float32 storage bounds the precision."""
    rng = np.random.default_rng(0)
    along = tuple(rng.standard_normal(value.shape) for value in values)
    slope = np.sum(directional_derivative(lambda primals: run(*primals), tuple(values), along) * y_bar)
    expected = sum(np.sum(gradient * direction) for gradient, direction in zip(gradients, along, strict=True))
    scale = sum(np.linalg.norm(gradient) for gradient in gradients)
    return Check("slope in a random direction", np.asarray([scale, slope]), np.asarray([scale, expected], np.float32))


def inner(backend: Backend, file: File) -> Iterator[Check]:
    """The inner function alone, with the cotangent of the final weights."""
    spec, params = upstream.from_pytorch(file.group("param."), file.config)
    q, k, v = (backend.asarray(np.swapaxes(file.input(f"input.{name}"), 1, 2).copy()) for name in ("XQ", "XK", "XV"))
    segments = json.loads(file.metadata["segments"])
    unit = spec.base_lr / spec.head_dim
    etas = [file.input(f"input.ttt_lr_eta_seg{n}") for n in range(len(segments))]
    lr = np.concatenate([per_token(eta) for eta in etas], 1) / unit
    lr = backend.asarray(lr.astype(file.dtype))
    tail = q.shape[1] % spec.mini_batch_size
    last = np.asarray(spec.update_rule.scale(spec, params))[tail - 1]
    bars = {name.removeprefix("cot.").removesuffix("_last"): file.input(name) for name in file.tensors if name.endswith("_last") and "cot." in name}
    state_bar = State(bars, {name: (-last if tail else 0) * bar for name, bar in bars.items()}, None)
    for form in forms(backend):
        y, state = backend.inner(spec, params, q, k, v, lr, form=form)
        yield Check(f"output ({form})", backend.to_numpy(y).reshape(file.tensors["out.output"].shape), file.tensors["out.output"])
        for name in bars:
            weights, grads = (backend.to_numpy(part[name]) for part in (state.weights, state.grads))
            yield Check(f"last {name} ({form})", weights - last * grads if tail else weights, file.tensors[f"out.{name}_last"])
        if backend.vjp_function is None:
            continue
        y_bar = backend.asarray(file.input("cot.output").reshape(q.shape))
        found, *views, lr_bar, _ = backend.inner_vjp(spec, params, q, k, v, lr, y_bar, state_bar=state_bar, form=form)
        for name, bar in zip(("XQ", "XK", "XV"), views, strict=True):
            yield Check(f"gradient of {name} ({form})", np.swapaxes(backend.to_numpy(bar), 1, 2), file.tensors[f"grad.{name}"])
        names = [name for name in upstream.pytorch.NAMES if name in found]
        theirs = upstream.to_pytorch(spec, {name: backend.to_numpy(found[name]) for name in names})
        yield from (Check(f"gradient of {name} ({form})", theirs[name], x) for name, x in raw(file, "grad.param.").items() if name in theirs)
        theirs = [per_token(file.tensors[f"grad.ttt_lr_eta_seg{n}"]) for n in range(len(segments))]
        yield Check(f"gradient of ℓ ({form})", backend.to_numpy(lr_bar) / unit, np.concatenate(theirs, 1))
        yield offset_check(file, backend.to_numpy(found["token_lr_offset"]), len(segments), form)


def forms(backend: Backend) -> list[str]:
    """Those that the backend claims."""
    return [form for form in FORMS if form in backend.supports.forms]


def claimed(checks: Iterator[Check]) -> Iterator[Check]:
    """The checks up to the first call that the backend refuses as beyond its claims."""
    try:
        yield from checks
    except Unsupported:
        return


def per_token(eta: np.ndarray) -> np.ndarray:
    """Their [B, H, mini-batch, token] as [B, T, H]."""
    return np.moveaxis(eta, 1, 3).reshape(eta.shape[0], -1, eta.shape[1])


def offset_check(file: File, found: np.ndarray, segments: int, form: str) -> Check:
    """δ̄ against their gradients of a_i, which are taken behind the clip: equal where a_i is not clipped."""
    expected, learned = np.zeros(found.shape), np.zeros(found.shape, bool)
    for n in range(segments):
        gradient, factor = file.tensors[f"grad.token_eta_seg{n}"], file.tensors[f"input.token_eta_seg{n}"]
        expected[: len(gradient)] += gradient
        learned[: len(factor)] |= factor > 0
    return Check(f"gradient of δ ({form})", np.where(learned, found, 0), np.where(learned, expected, 0))


def cache(backend: Backend, file: File) -> Iterator[Check]:
    """Prefill and decoding: outputs, and the states on the way (which are stored in float32)."""
    spec, params = upstream.from_pytorch(file.group("param."), file.config)
    x, state, read_so_far, ys = file.input("input.hidden_states"), None, 0, []
    for tokens in json.loads(file.metadata["chunks"]):
        chunk = backend.asarray(x[:, read_so_far : read_so_far + tokens].copy())
        y, state = backend.layer(spec, params, chunk, state=state, form="dual" if tokens > 1 else "decode")
        ys.append(backend.to_numpy(y))
        read_so_far += tokens
        for name in spec.inner_model.weight_shapes(spec.heads, spec.head_dim):
            snapshot = f"cache.pos{read_so_far}.{name}"
            if f"{snapshot}_states" in file.tensors:
                yield Check(f"{name} at {read_so_far}", backend.to_numpy(state.weights[name]), file.tensors[f"{snapshot}_states"])
                summed = backend.to_numpy(state.grads[name]) * (spec.base_lr / spec.head_dim)
                yield Check(f"S of {name} at {read_so_far}", summed, file.tensors[f"{snapshot}_grad"])
    yield Check("decoded output", np.concatenate(ys, 1), file.tensors["out.decode"])
    y, _ = backend.layer(spec, params, backend.asarray(x))
    yield Check("whole output", backend.to_numpy(y), file.tensors["out.full"])


class Trained(NamedTuple):
    """What a whole model gives: logits, hidden states, the loss and its gradients by our names, and a greedy continuation."""

    logits: Any
    hidden_states: Any
    loss: Any
    gradients: dict[str, Any]
    greedy: Any


def language_model(backend: Backend, file: File) -> Iterator[Check]:
    """A whole model: logits, hidden states, gradients of the loss, greedy continuation. Backends on PyTorch have one, and JAX."""
    library = backend.array_type.__module__.partition(".")[0]
    if library not in ("torch", "jax"):
        return
    trained = (model_on_torch if library == "torch" else model_on_jax)(backend, file)
    yield Check("logits", backend.to_numpy(trained.logits), file.tensors["out.logits"])
    # Theirs begin behind the first block, and the last of all has the norm behind it.
    *between, last = trained.hidden_states[1:]
    for number, hidden in enumerate(between):
        yield Check(f"hidden state {number}", backend.to_numpy(hidden), file.tensors[f"out.hidden_states.{number}"])
    yield Check("last hidden state", backend.to_numpy(last), file.tensors[f"out.hidden_states.{len(between) + 1}"])
    yield Check("loss", backend.to_numpy(trained.loss[None]), file.tensors["out.loss"])
    expected = raw(file, "grad.param.")
    found = PYTORCH.to_theirs({name: backend.to_numpy(x) for name, x in trained.gradients.items()})
    yield from (Check(f"gradient of {name}", x, expected[name]) for name, x in found.items() if name in expected)
    yield Check("greedy continuation", backend.to_numpy(trained.greedy), file.tensors["out.greedy_ids"])


def prompt_of(file: File) -> tuple[np.ndarray, int]:
    """The prompt, and how many tokens their greedy continuation has."""
    length = int(file.tensors["input.prompt_len"][0])
    return file.tensors["input.input_ids"][:, :length], file.tensors["out.greedy_ids"].shape[1] - length


def model_on_torch(backend: Backend, file: File) -> Trained:
    """``ttt_torch.models``, with the backend's kernels."""
    import torch

    from ttt_torch.models import TTTForCausalLM

    model = TTTForCausalLM.from_ttt_lm_pytorch(file.group("param."), file.config | {"kernel": backend.name})
    tokens = torch.from_numpy(file.tensors["input.input_ids"])
    out = model(tokens, output_hidden_states=True)
    # Not the model's own loss, which is computed in float32.
    loss = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    prompt, count = prompt_of(file)
    prompt = torch.from_numpy(prompt)
    greedy = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, do_sample=False)
    return Trained(out.logits, out.hidden_states, loss, {name: x.grad for name, x in model.named_parameters()}, greedy)


def model_on_jax(backend: Backend, file: File) -> Trained:
    """``ttt_jax.models``, compiled."""
    from flax import nnx

    from ttt_jax.models import TTTForCausalLM

    model = TTTForCausalLM.from_ttt_lm_pytorch(file.group("param."), file.config)
    tokens = backend.asarray(file.tensors["input.input_ids"])

    def loss(model: Any) -> Any:
        out = model(tokens, labels=tokens, output_hidden_states=True)
        return out.loss, out

    (_, out), gradients = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(model)
    named = {".".join(map(str, path)): x[...] for path, x in nnx.to_flat_state(gradients)}
    prompt, count = prompt_of(file)
    return Trained(out.logits, out.hidden_states, out.loss, named, model.generate(prompt, max_new_tokens=count))


def raw(file: File, prefix: str) -> dict[str, np.ndarray]:
    """Tensors in the dtype in which they are stored."""
    return {name.removeprefix(prefix): x for name, x in file.tensors.items() if name.startswith(prefix)}


def kind(file: File) -> Any:
    """What the file is, by what it holds; None for what is none of these (other functions)."""
    if "input.XQ" in file.tensors:
        return inner
    if "input.input_ids" in file.tensors:
        return language_model
    if "chunks" in file.metadata:
        return cache
    if "param.seq_norm.weight" in file.tensors:
        return residual_block
    return layer if "input.hidden_states" in file.tensors else None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--backend", action="append")
    given = arguments.parse_args()
    names = given.backend or [name for name, info in backends().items() if info.available]
    table = Table("file", "backend", "dtype", "checks", "worst error", "allowed", "where")
    failed = 0
    paths = sorted(given.folder.rglob("*.safetensors"))
    for name in names:
        backend = get_backend(name)
        for path in track(paths, name):
            for dtype in ("float64", "float32"):
                file = read(path, dtype)
                run = kind(file)
                if run is None:
                    table.add_row(path.stem, name, dtype, "0", "", "", "not known: left out", style="dim")
                    continue
                checks = list(claimed(run(backend, file)))
                if not checks:
                    table.add_row(path.stem, name, dtype, "0", "", "", "not claimed", style="dim")
                    continue
                shares = [(relative(check) / file.tolerance(check.expected), check) for check in checks]
                share, worst = max(shares, key=lambda pair: pair[0])
                failed += not share <= 1
                limit = file.tolerance(worst.expected)
                row = (path.stem, name, dtype, str(len(checks)), f"{relative(worst):.1e}", f"{limit:.0e}", worst.what)
                table.add_row(*row, style="" if share <= 1 else "bold red")
    Console(width=150).print(table, f"{failed} of {table.row_count} runs disagree")
    raise SystemExit(1 if failed or not table.row_count else 0)


def relative(check: Check) -> float:
    """The largest error over the largest expected value."""
    assert check.got.shape == check.expected.shape, f"{check.what}: shape {check.got.shape}, expected {check.expected.shape}"
    error = np.max(np.abs(check.got.astype(np.float64) - check.expected), initial=0.0)
    return float(error / max(np.max(np.abs(check.expected), initial=0.0), np.finfo(np.float32).tiny))


if __name__ == "__main__":
    main()
