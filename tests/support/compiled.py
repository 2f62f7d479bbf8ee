"""Compile a Triton kernel without a GPU, and tell what it takes. Only for processes without TRITON_INTERPRET."""

import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def resources(kernel, arch, pointers, constants):
    """Registers of a thread, bytes of its stack (all of it spilled registers), of shared memory, ``overreaching`` products, ``unwritten`` reads.

    pointers: the element types of the arguments that end in ``_ptr``, float32 for those not named, a constant None for None, and the types of others,
    which are integers if not named, but ``eps``; constants: compile-time arguments and launch options.
    """
    launch = {name: value for name, value in constants.items() if name.startswith(("num_", "maxnreg"))}
    fixed = {name: value for name, value in constants.items() if name in kernel.arg_names}
    fixed |= {name: None for name, element in pointers.items() if element is None and name in kernel.arg_names}
    signature = {}
    for name in kernel.arg_names:
        pointer = f"*{pointers.get(name, 'fp32')}"
        other = "fp32" if name == "eps" else pointers.get(name, "i32")
        signature[name] = "constexpr" if name in fixed else pointer if name.endswith("_ptr") else other
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = (GluonASTSource if kernel.is_gluon() else ASTSource)(fn=kernel, signature=signature, constexprs=fixed, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=launch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (output(*words, file.name) for words in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c")))
    # Functions that were not inlined are listed, too.
    registers, stack = (max(int(count) for count in re.findall(rf"{name}:(\d+)", usage)) for name in ("REG", "STACK"))
    found = {"kernel": kernel.__name__, "arch": arch, "registers": registers, "stack": stack, "shared": compiled.metadata.shared}
    return found | {"overreaching": overreaching(compiled.asm["ttgir"]), "unwritten": unwritten(code) if arch == 90 else []} | launch


def output(tool, *arguments):
    """What one of the tools that come with Triton prints."""
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def overreaching(ttgir):
    """Products for Hopper's units that Triton divides among more warps, 16 rows each, than they have rows for.

    Triton 3.6 and 3.7 do that to products of 64 rows in programs of eight warps, half of which then read past the end of the operands.
    """
    layouts = dict(re.findall(r"^(#\w+) = #ttg\.nvidia_mma<\{versionMajor = 3.*?warpsPerCTA = \[(\d+),", ttgir, re.MULTILINE))
    products = re.findall(r"warp_group_dot .*-> tensor<(\d+)x(\d+)xf32, (#\w+)>", ttgir)
    return [f"{rows} x {columns}" for rows, columns, layout in products if int(rows) < 16 * int(layouts[layout])]


def unwritten(code):
    """Instructions for Hopper that read a uniform register which none before them writes: ptxas 12.8 makes some, and products read from anywhere."""
    written, found = set(), []
    for instruction in re.findall(r"/\*[0-9a-f]{4,}\*/\s+(.*?) ?;", code):
        name, _, operands = re.sub(r"^@!?U?P\w+\s+", "", instruction).partition(" ")
        uniform = re.match(r"U(?!ISETP|PLOP)|S2UR|R2UR|LDCU", name)
        read, target, parts = set(), set(), operands.split(",")
        # A predicate may be written, too, and then comes first.
        goal = 1 if parts[0].startswith("UP") else 0
        for place, part in enumerate(parts):
            for register in map(int, re.findall(r"\bUR(\d+)", part)):
                if uniform and place == goal:
                    target = {register, register + 1} if ".64" in name or "WIDE" in name else {register}
                    continue
                # A product's descriptors are two registers each, the left one's first, where that is not in registers itself.
                first = 2 if any(re.match(r"\s*R\d", other) for other in parts[1:place]) else 0
                last = 4 if "gdesc[" in part else 2 if "desc[" in part else 1
                read |= {register + offset for offset in range(first if last == 4 else 0, last)}
        found += [instruction] * bool(read - written)
        written |= target
    return found
