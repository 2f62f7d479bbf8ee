"""Compile the decoder's kernels without a GPU and print what they take, as JSON; ``test_ttt_triton_decode`` runs this without TRITON_INTERPRET."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ttt_triton.decode import linear, mlp
from tttcore import LayerSpec

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
KERNELS = {"linear": linear, "mlp": mlp}
TOKENS = ("q_ptr", "k_ptr", "v_ptr", "lr_ptr", "y_ptr")
INTEGERS = ("phase_ptr", "base_ptr")


def resources(arch: int, dtype: str, inner: str, width: int) -> dict[str, object]:
    """Registers of a thread, bytes of its stack (all of it spilled registers), and bytes of shared memory."""
    kernel = KERNELS[inner]
    constants = kernel.options(LayerSpec(width=width, heads=1, inner=inner, mini_batch_size=16))
    launch = {name: constants.pop(name) for name in ("num_warps", "num_stages", "maxnreg")}
    constants["valid_ptr"] = None
    signature = {}
    for name in kernel.step.arg_names:
        pointer = f"*{dtype}" if name in TOKENS else "*i32" if name in INTEGERS else "*fp32"
        signature[name] = "constexpr" if name in constants else pointer if name.endswith("_ptr") else "fp32" if name == "eps" else "i32"
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = ASTSource(fn=kernel.step, signature=signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=launch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    found = {"arch": arch, "dtype": dtype, "inner": inner, "width": width, "registers": int(registers), "stack": int(stack)}
    return found | {"shared": compiled.metadata.shared} | launch


if __name__ == "__main__":
    compiled = ((80, "bf16"), (90, "bf16"), (90, "fp32"))
    asked = (("linear", 64), ("linear", 128), ("mlp", 64))
    json.dump([resources(arch, dtype, *one) for arch, dtype in compiled for one in asked], sys.stdout)
