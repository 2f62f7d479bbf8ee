"""What a backend claims; what it does not is refused by name, never approximated."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..arrays import Array
from ..errors import Unsupported
from ..inner_loop import FORMS
from ..spec import LayerSpec
from ..state import State


@dataclass(frozen=True)
class Supports:
    """The claims of a backend; None claims everything on that axis.

    ``inner`` and ``loss``: registered names; ``dtypes``: names such as "float32"; ``mini_batch_sizes`` K and ``head_dims`` D: a tuple or a
    range; ``read_out``: names, causal alone unless told; ``state``: whether one can be given, and is returned; gradients are claimed by a backend's
    ``vjp_function``.
    """

    forms: tuple[str, ...] = FORMS
    inner: tuple[str, ...] | None = None
    loss: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    mini_batch_sizes: Collection[int] | None = None
    head_dims: Collection[int] | None = None
    state: bool = True
    mask: bool = True
    cu_seqlens: bool = True
    read_out: tuple[str, ...] = ("causal",)

    def check(self, backend: str, spec: LayerSpec, x: Array, *, form: str, state: State | None, mask: Array | None, cu_seqlens: Array | None) -> None:
        """Raise ``Unsupported``, naming the field, for a call beyond the claims."""
        asked: list[tuple[str, object, Collection[object] | None]] = [
            ("form", form, self.forms),
            ("inner", spec.inner, self.inner),
            ("loss", spec.loss, self.loss),
            ("dtype", str(x.dtype).rpartition(".")[2], self.dtypes),
            ("mini_batch_size", spec.mini_batch_size, self.mini_batch_sizes),
            ("head_dim", spec.head_dim, self.head_dims),
            ("read_out", spec.read_out, self.read_out),
        ]
        for field, got, claimed in asked:
            if claimed is not None and got not in claimed:
                expected = f"one of {claimed if isinstance(claimed, range) else list(claimed)}"
                raise Unsupported(backend, field=field, got=repr(got), expected=expected, fix="change it or use another backend")
        for field, given, claimed in (("state", state, self.state), ("mask", mask, self.mask), ("cu_seqlens", cu_seqlens, self.cu_seqlens)):
            if given is not None and not claimed:
                raise Unsupported(backend, field=field, got=f"a {field}", expected="None", fix=f"leave {field} out or use another backend")
