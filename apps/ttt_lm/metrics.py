"""What a run tells while it goes: one JSON object a line, and TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from tttcore.files import whole

FILE = "metrics.jsonl"


class Metrics:
    """``run/metrics.jsonl`` and ``run/tensorboard``; lines after ``step`` are of a part of the run that was lost, and go."""

    def __init__(self, run: Path, step: int) -> None:
        self.path = run / FILE
        kept = [row for row in read(run) if row["step"] <= step]
        with whole(self.path) as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, **values: float) -> None:
        """Of this step."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Everything is in the files."""
        self.board.close()


def read(run: Path) -> list[dict[str, float]]:
    """All whole lines; a kill may have left a part of the last one."""
    path = run / FILE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
