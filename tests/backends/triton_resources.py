"""Compile the Triton kernel without a GPU and print what it takes, as JSON; ``test_ttt_triton`` runs this without TRITON_INTERPRET."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ttt_triton.backend import options
from ttt_triton.kernel import scan
from tttcore import LayerSpec

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
TOKENS = ("q_ptr", "k_ptr", "v_ptr", "y_ptr")
INTEGERS = ("start_ptr", "length_ptr", "phase_ptr")


def resources(arch: int, dtype: str, spec: LayerSpec) -> dict[str, int]:
    """Registers of a thread, bytes of its stack (all of it spilled registers), and bytes of shared memory."""
    constants = options(spec)
    launch = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    signature = {"H": "i32", "eps": "fp32"} | dict.fromkeys(constants, "constexpr")
    for name in scan.arg_names:
        if name.endswith("_ptr"):
            signature[name] = f"*{dtype}" if name in TOKENS else "*i32" if name in INTEGERS else "*fp32"
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(scan.arg_names) if name.endswith("_ptr")}
    source = ASTSource(fn=scan, signature={name: signature[name] for name in scan.arg_names}, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=launch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    return {"arch": arch, "dtype": dtype, "registers": int(registers), "stack": int(stack), "shared": compiled.metadata.shared} | launch


if __name__ == "__main__":
    spec = LayerSpec(width=2048, heads=32, mini_batch_size=16)
    json.dump([resources(arch, dtype, spec) for arch in (80, 90) for dtype in ("bf16", "fp32")], sys.stdout)
