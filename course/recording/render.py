"""A recording as text, as an HTML table, and as plain data."""

from __future__ import annotations

import html
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from course.recording.columns import KINDS

if TYPE_CHECKING:
    from course.recording.access import Line
    from course.recording.model import Recording
    from course.recording.summary import Row

NOTHING_RAN = "no Triton kernel ran"
HEADINGS = (
    "tensor",
    "loads",
    "bytes loaded",
    "distinct",
    "least",
    "times",
    "most reads",
    "stores",
    "bytes stored",
)


def headline(recording: Recording) -> str:
    """One sentence: which kernels ran, with how many accesses."""
    if not recording.ran:
        return f"Recording: {NOTHING_RAN}."
    launches = ", ".join(
        f"{launch.kernel}{list(launch.grid) if launch.grid else ' (failed before its first program)'}"
        for launch in recording.launches[:6]
    )
    if len(recording.launches) > 6:
        launches += f" and {len(recording.launches) - 6} more"
    return f"Recording of {launches}: {len(recording):,} accesses."


def notes(recording: Recording, rows: list[Row]) -> list[str]:
    """What a reader must not miss, one sentence each."""
    said = []
    if recording.out_of_bounds is not None:
        said.append(f"Ended out of bounds: {recording.out_of_bounds}")
    for row in rows:
        if row.outside_view:
            said.append(
                f"{row.outside_view:,} bytes of {row.tensor}'s storage that are not part of {row.tensor} were touched."
            )
    return said


def cells(row: Row) -> tuple[str, ...]:
    """A row's texts, in the order of HEADINGS."""
    ratio = row.times_least
    return (
        row.tensor,
        f"{row.loads:,}",
        f"{row.bytes_loaded:,}",
        f"{row.distinct_loaded:,}",
        "" if row.least is None else f"{row.least:,}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{row.most_reads:,}",
        f"{row.stores:,}",
        f"{row.bytes_stored:,}",
    )


def text(recording: Recording) -> str:
    if recording._columns is None:
        return "Recording: still running"
    rows = recording.table()
    lines = [headline(recording)]
    if rows:
        grid = [HEADINGS, *(cells(row) for row in rows)]
        widths = [max(len(line[column]) for line in grid) for column in range(len(HEADINGS))]
        for line in grid:
            first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            lines.append("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    return "\n".join([*lines, *notes(recording, rows)])


def page(recording: Recording) -> str:
    if recording._columns is None:
        return "<p>Recording: still running</p>"
    rows = recording.table()
    parts = [f"<p>{html.escape(headline(recording))}</p>"]
    if rows:
        heads = "".join(f'<th scope="col">{heading}</th>' for heading in HEADINGS)
        parts.append(
            f"<table><caption>Bytes by tensor; “times” is bytes loaded over the least, or over distinct bytes where no least was given</caption>"
            f"<thead><tr>{heads}</tr></thead><tbody>"
        )
        for row in rows:
            first, *others = map(html.escape, cells(row))
            parts.append(
                f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
            )
        parts.append("</tbody></table>")
    parts += [f"<p>{html.escape(note)}</p>" for note in notes(recording, rows)]
    return "".join(parts)


def to_dict(recording: Recording) -> dict[str, Any]:
    """All that a widget needs to step through the accesses, as plain data.

    "accesses" holds one list a column, entry i for access i: launch, program [x, y, z], stack, kind, tensor (a number
    in "tensors", -1 for none), lanes, masked, itemsize, transposed, shape, first_run. The elements that access i
    touches are runs first_run[i] to first_run[i + 1] of "runs": start in bytes from the tensor's first element, length
    in elements; they go through the tile's active lanes row by row, or column by column if transposed. "masks" has,
    where some lane is masked, the active lanes as hexadecimal bits. A stack is a list of numbers in "lines", the
    kernel's own line first.
    """
    columns = recording.columns
    lines: dict[Line, int] = {}
    stacks = [[lines.setdefault(line, len(lines)) for line in stack] for stack in recording.stacks]
    error = recording.out_of_bounds
    return {
        "version": 1,
        "launches": [asdict(launch) for launch in recording.launches],
        "tensors": [asdict(tensor) for tensor in recording.tensors.values()],
        "lines": [asdict(line) | {"place": line.place} for line in lines],
        "stacks": stacks,
        "sources": [asdict(source) for source in recording.sources],
        "accesses": {
            **{
                name: getattr(columns, name).tolist()
                for name in (
                    "launch",
                    "program",
                    "stack",
                    "kind",
                    "tensor",
                    "lanes",
                    "masked",
                    "itemsize",
                    "transposed",
                    "first_run",
                )
            },
            "shape": [list(shape) for shape in columns.shape],
        },
        "kinds": list(KINDS),
        "runs": {"start": columns.run_start.tolist(), "length": columns.run_length.tolist()},
        "masks": {str(access): packed.tobytes().hex() for access, packed in columns.masks.items()},
        "torch_ops": [asdict(op) for op in recording.torch_ops],
        "summary": [asdict(row) for row in recording.table()],
        "out_of_bounds": None
        if error is None
        else {
            "message": str(error),
            "kernel": error.kernel,
            "program": error.program,
            "kind": error.kind,
            "tensor": error.tensor,
            "offset": error.offset,
            "line": lines.get(error.line),  # type: ignore[call-overload]
        },
    }
