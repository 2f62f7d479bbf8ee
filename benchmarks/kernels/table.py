"""What was measured, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .record import NO_BACKWARD, NOT_CLAIMED, PASSES, TIMED, Record, Result

SHORT = {"forward": "fwd", "both": "f+b"}
Cell = Callable[[str, tuple[int, int], str], str]


def table(record: Record) -> str:
    """Times, ratios, shares of the floor and memory, each with a row a contender or a pair; then why something is missing."""
    given = record.workload
    sizes = f"H = {given['heads']}, D = {given['head_dim']}, K = {given['mini_batch_size']}, {given['dtype']}"
    versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())
    lines = [f"{record.device} · {versions} · copy {record.copy_bandwidth / 1e12:.2f} TB/s · {record.date}", f"B × T, {sizes}", ""]
    names = list(dict.fromkeys(result.name for result in record.results))
    found = {(result.name, result.shape, result.passes): result for result in record.results}
    lines += _grid(record, "median ms", names, lambda *key: _time(found.get(key)), [_errors(record, name) for name in names])
    pairs = [(layer, other) for layer in _groups(record, ours=True) for other in _groups(record, ours=False)]
    rows = {f"{layer} / {other}": (layer, other) for layer, other in pairs}
    if rows:
        lines += _grid(record, "ours / theirs", list(rows), lambda name, *key: _ratio(record, *rows[name], *key))
    shares = "floor / time"
    lines += _grid(record, shares, names, lambda *key: _floor(found.get(key), record.copy_bandwidth))
    if any(result.peak_bytes for result in record.results):
        lines += _grid(record, "peak memory / bytes", names, lambda *key: _memory(found.get(key)))
    return "\n".join([*lines, *_notes(record)])


def floor_milliseconds(result: Result, bandwidth: float) -> float:
    """The least time in which the bytes can be moved."""
    return 1e3 * (result.floor_bytes or 0) / bandwidth


def fastest(record: Record, computes: str, ours: bool, shape: tuple[int, int], passes: str) -> float | None:
    """Milliseconds of the fastest that computes this."""
    found = [
        result.timing.median
        for result in record.results
        if (result.computes, result.ours, result.shape, result.passes) == (computes, ours, shape, passes) and result.timing is not None
    ]
    return min(found, default=None)


def _groups(record: Record, *, ours: bool) -> list[str]:
    return list(dict.fromkeys(result.computes for result in record.results if result.ours == ours and result.status == TIMED))


def _grid(record: Record, title: str, names: list[str], cell: Cell, last: list[str] | None = None) -> list[str]:
    """A row a name, two columns a shape."""
    shapes = list(dict.fromkeys(result.shape for result in record.results))
    passes = [name for name in PASSES if any(result.passes == name for result in record.results)]
    heads = [*(f"{batch}×{tokens} {SHORT[name]}" for batch, tokens in shapes for name in passes), *(["error y / gradients"] if last else [])]
    rows = [[name, *(cell(name, shape, one) for shape in shapes for one in passes)] for name in names]
    rows = [[*row, *(last[index : index + 1] if last else ())] for index, row in enumerate(rows)]
    widths = [max(map(len, column)) for column in zip([title, *heads], *rows, strict=True)]
    return [_line([title, *heads], widths), "  ".join("─" * width for width in widths), *(_line(row, widths) for row in rows), ""]


def _line(cells: list[str], widths: list[int]) -> str:
    """The first column to the left, the others to the right."""
    first, *others = [f"{text:>{width}}" for text, width in zip(cells, widths, strict=True)]
    return "  ".join([cells[0].ljust(len(first)), *others]).rstrip()


def _time(result: Result | None) -> str:
    if result is None:
        return ""
    return three(result.timing.median) if result.timing else {NO_BACKWARD: "none", NOT_CLAIMED: "–"}.get(result.status, result.status)


def _ratio(record: Record, layer: str, other: str, shape: tuple[int, int], passes: str) -> str:
    mine, theirs = fastest(record, layer, True, shape, passes), fastest(record, other, False, shape, passes)
    return "" if mine is None or theirs is None else three(mine / theirs)


def _floor(result: Result | None, bandwidth: float) -> str:
    return "" if result is None or result.timing is None else f"{floor_milliseconds(result, bandwidth) / result.timing.median:.1%}"


def _memory(result: Result | None) -> str:
    return "" if result is None or not result.peak_bytes or not result.floor_bytes else three(result.peak_bytes / result.floor_bytes)


def _errors(record: Record, name: str) -> str:
    """The errors of a contender's checks, those of y and of gradients."""
    found: list[str] = []
    for passes in PASSES:
        error = next((result.error for result in record.results if (result.name, result.passes) == (name, passes)), None)
        found += [] if error is None else [f"{error:.1e}"]
    return " / ".join(found)


def _notes(record: Record) -> Iterator[str]:
    """What the numbers are, what each was checked by, and what was not timed."""
    yield "Errors are relative, in the Frobenius norm, on other random numbers, before the clock started. A floor is the time in which a copy"
    yield "moves the bytes: arguments and y, with a backward pass also their cotangents, each once; memory is measured in the same bytes."
    checked: dict[str, list[str]] = {}
    for result in record.results:
        checked.setdefault(result.by, []).append(result.name)
    for by, names in checked.items():
        yield f"checked by {by}: {'; '.join(dict.fromkeys(names))}"
    missing: dict[tuple[str, str, str], list[str]] = {}
    for result in record.results:
        if result.status != TIMED:
            missing.setdefault((result.name, result.status, result.message), []).append(SHORT[result.passes])
    for (name, status, message), passes in missing.items():
        yield f"{name}, {', '.join(dict.fromkeys(passes))}: {status}. {message}".rstrip()


def three(number: float) -> str:
    """Three digits, or all that are before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}" if number >= 1 else f"{number:.3f}"
