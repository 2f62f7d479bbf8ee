"""What makes a run: everything that its numbers depend on, and how it is gone about."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from tttcore import InvalidInput
from tttcore.language_model.spec import BACKBONES

MIXERS = ("ttt-linear", "ttt-mlp", "attention", "mamba2")
DTYPES = ("float32", "bfloat16")
VOCABULARY = 256
"""A token is a byte."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A model of L = ``layers`` blocks of ``width`` channels, and how it is trained: AdamW, linear warmup, cosine decay to a tenth.

    ``context`` tokens are predicted in each of ``batch`` windows a step; ``dtype`` is that of matrix products, parameters are float32. ``text`` is
    the corpus's name and digest. Raises ``InvalidInput``.
    """

    mixer: str = "ttt-linear"
    backbone: str = "transformer"
    width: int = 128
    layers: int = 4
    heads: int = 4
    context: int = 256
    batch: int = 8
    steps: int = 600
    lr: float = 3e-3
    weight_decay: float = 0.1
    seed: int = 0
    dtype: str = "float32"
    text: str = ""

    def __post_init__(self) -> None:
        """Refuse what no run can be made of."""
        for name, known in (("mixer", MIXERS), ("backbone", BACKBONES), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise InvalidInput(f"--{name}", got=repr(getattr(self, name)), expected=f"one of {list(known)}", fix="pass one of these")
        for name in ("width", "layers", "heads", "context", "batch", "steps"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"--{name}", got=getattr(self, name), expected="at least 1", fix=f"pass --{name} 1 or more")
        for name, least in (("lr", 1e-12), ("weight_decay", 0.0)):
            if not least <= getattr(self, name) < math.inf:
                option = "--" + name.replace("_", "-")
                raise InvalidInput(option, got=getattr(self, name), expected="a positive number" if least else "0 or more", fix=f"change {option}")
        if self.width % self.heads or self.width // self.heads % 2:
            fix = "change one of them"
            raise InvalidInput("--width and --heads", got=f"{self.width}, {self.heads}", expected="heads of an even width (for RoPE)", fix=fix)
        if self.backbone != "transformer" and not self.mixer.startswith("ttt"):
            fix = "leave --backbone out"
            raise InvalidInput("--backbone", got=f"{self.backbone!r} with --mixer {self.mixer}", expected="a TTT mixer", fix=fix)

    @property
    def intermediate(self) -> int:
        """Channels of SwiGLU: 8/3 of the width, in multiples of 64."""
        return math.ceil(self.width * 8 / 3 / 64) * 64

    @property
    def warmup(self) -> int:
        """Steps over which the learning rate rises."""
        return max(1, self.steps // 10)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """What ``to_json`` wrote; raises ``InvalidInput`` for anything else."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput(str(path), got=f"{error}", expected="a recipe that ttt train wrote", fix="name the folder of a run") from error

    def differences(self, other: Recipe) -> list[str]:
        """Fields with other values, as ``name: ours, theirs``."""
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return [f"{name}: {ours[name]!r}, {theirs[name]!r}" for name in ours if ours[name] != theirs[name]]


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where and how a run is computed, which changes its numbers by roundings only: ``kernel`` is the backend of TTT layers."""

    device: str = "cpu"
    kernel: str = "torch"
    compiled: bool = False

    def __post_init__(self) -> None:
        """Refuse a device that nothing here is written for."""
        if self.device not in ("cpu", "cuda"):
            raise InvalidInput("--device", got=repr(self.device), expected="cpu or cuda", fix="pass one of these")


@dataclasses.dataclass(frozen=True)
class Every:
    """Steps between two lines of metrics, two evaluations, two checkpoints; and the held-out windows of an evaluation."""

    log: int = 10
    evaluate: int = 50
    checkpoint: int = 50
    windows: int = 64
