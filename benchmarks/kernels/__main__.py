"""The command line: ``python -m benchmarks.kernels``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ttt_conformance.bench.workload import Workload
from tttcore import InvalidInput

SHAPES = "16x2048,4x8192,1x32768"
TOTAL = 65536
SWEEP = ",".join(f"{TOTAL >> power}x{1 << power}" for power in range(10, 17))
"""T from 1k to 64k, 64k tokens in all."""
PACKAGES = ("torch", "triton", "flash-linear-attention", "mamba-ssm")
TIMED, WRONG, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if an answer of this project's is wrong or a backend of its fails, 2 for wrong usage or without a GPU."""
    options = parser().parse_args(arguments)
    try:
        workloads = shapes(SWEEP if options.sweep else options.shapes, options.heads, options.head_dim, options.mini_batch_size, options.dtype)
        inners, passes = words("--inner", options.inner, ("linear", "mlp")), words("--pass", options.passes, ("forward", "both"))
        for path in filter(None, (options.json, options.plot)):
            if not path.absolute().parent.is_dir():
                fix = f"create {path.parent}"
                raise InvalidInput("file", got=f"{path}, in a folder that does not exist", expected="one in an existing folder", fix=fix)
        require_gpu()
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return USAGE
    return measured(workloads, inners, passes, options)


def measured(workloads: list[Workload], inners: list[str], passes: list[str], options: argparse.Namespace, device: str = "cuda") -> int:
    """Measure, write, print."""
    import torch

    from .attention import attention
    from .layers import layers
    from .measure import copy_bandwidth
    from .peers import peers
    from .record import FAILED, Record
    from .record import WRONG as WRONG_ANSWER
    from .run import run
    from .table import table

    torch.manual_seed(0)
    contenders = [*(one for inner in inners for one in layers(inner)), *attention(), *(peers() if options.peers else ())]
    contenders = [one for one in contenders if not options.only or any(word in one.name for word in options.only.split(","))]
    if not contenders:
        print(InvalidInput("--only", got=repr(options.only), expected="a part of a contender's name", fix="leave it out"), file=sys.stderr)
        return USAGE
    given = {name: getattr(workloads[0], name) for name in ("heads", "head_dim", "mini_batch_size", "dtype")}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    name = device if device == "cpu" else torch.cuda.get_device_name()
    record = Record(name, date, versions(), given, copy_bandwidth(device))
    for contender in contenders:
        for result in run(contender, workloads, passes, device):
            what = f"{result.timing.median:.3f} ms" if result.timing else f"{result.status}. {result.message}"
            print(f"{result.name}, {result.batch}×{result.tokens} {result.passes}: {what}", file=sys.stderr, flush=True)
            record.results.append(result)
        if options.json is not None:
            record.write(options.json)  # after each, so that a run that is cut short is not lost
    print(table(record))
    if options.plot is not None:
        from .plot import plot

        plot(record, options.plot)
    return WRONG if any(result.ours and result.status in (WRONG_ANSWER, FAILED) for result in record.results) else TIMED


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser("python -m benchmarks.kernels", description="Time the inner loop's kernels on a GPU, each checked before.")
    found.add_argument("--peers", action="store_true", help="also other projects' kernels, where they are installed")
    found.add_argument("--shapes", default=SHAPES, metavar="BxT,…", help=f"sizes of batches and sequences; default {SHAPES}")
    found.add_argument("--sweep", action="store_true", help=f"instead of --shapes: {SWEEP}")
    found.add_argument("--heads", type=int, default=32, metavar="H")
    found.add_argument("--head-dim", type=int, default=64, metavar="D")
    found.add_argument("--mini-batch-size", type=int, default=16, metavar="K")
    found.add_argument("--dtype", default="bfloat16", help="of the tokens; default bfloat16")
    found.add_argument("--inner", default="linear,mlp", help="linear, mlp; default both")
    found.add_argument("--pass", dest="passes", default="forward,both", help="forward, both (forward and backward); default both of them")
    found.add_argument("--only", default="", metavar="NAME,…", help="only contenders whose name has one of these parts, such as triton,cuDNN")
    found.add_argument("--json", type=Path, metavar="FILE", help="write every number to this file")
    found.add_argument("--plot", type=Path, metavar="FILE", help="draw time against T to this file (needs matplotlib)")
    return found


def shapes(text: str, heads: int, head_dim: int, mini_batch_size: int, dtype: str) -> list[Workload]:
    """The workloads of "16x2048,4x8192"; ``InvalidInput`` for another text or a size below 1."""
    found: list[Workload] = []
    for part in text.split(","):
        batch, _, tokens = part.partition("x")
        if not (batch.isdecimal() and tokens.isdecimal()):
            raise InvalidInput("--shapes", got=repr(part), expected="BxT, such as 16x2048, with commas between", fix="write it so")
        found.append(Workload(int(batch), int(tokens), heads, head_dim, mini_batch_size, dtype=dtype))
    return found


def words(option: str, text: str, known: Sequence[str]) -> list[str]:
    """The words of a list with commas, in the order of ``known``; ``InvalidInput`` for one that is not known."""
    given = text.split(",")
    for word in given:
        if word not in known:
            raise InvalidInput(option, got=repr(word), expected=f"some of {','.join(known)}", fix="name these, with commas between")
    return [word for word in known if word in given]


def require_gpu() -> None:
    """``InvalidInput`` where nothing can be timed."""
    fix = "run it on a machine with an NVIDIA GPU and a CUDA build of PyTorch; on a CPU, `ttt bench` times what runs there"
    expected = "PyTorch, Triton and an NVIDIA GPU"
    for name in ("torch", "triton"):
        if importlib.util.find_spec(name) is None:
            raise InvalidInput("GPU", got=f"no {name} installed", expected=expected, fix=fix)
    import torch

    if not torch.cuda.is_available():
        raise InvalidInput("GPU", got=f"torch {torch.__version__}, which sees none", expected=expected, fix=fix)


def versions() -> dict[str, str]:
    """Of what is measured."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    raise SystemExit(main())
