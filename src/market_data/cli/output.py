"""Where output goes: data to stdout as tables or JSON, everything else to stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import typer

from market_data.cli.figures import column, jsonable, shown
from market_data.cli.streams import printable, speaks_unicode

if TYPE_CHECKING:
    from rich.console import Console

# Text that is piped is never cut to the width of a terminal that is not there.
PIPED_WIDTH: Final = 10_000
# Text up to this width is never broken.
NARROW: Final = 12
# Text that is a number already, with its unit; it goes to the right like other numbers.
FIGURE: Final = re.compile(r"-?[\d,]+(\.\d+)?( s)?")


def console(*, stderr: bool = False) -> Console:
    """A Rich console on stdout or stderr; plain and wide when that is not a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # No markup: [ccxt] is a name.
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": False}
    return Console(file=stream, width=None if stream.isatty() else PIPED_WIDTH, **plain)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    ascii_only = not speaks_unicode(sys.stdout)
    typer.echo(json.dumps(jsonable(value), indent=2, ensure_ascii=ascii_only, allow_nan=False))


def say(message: str, level: str = "info") -> None:
    """A remark for the person at the terminal, on stderr; a line of JSON where logs are."""
    with suppress(OSError):  # Whoever would read it is gone, and the work is not.
        if _lines.json:
            typer.echo(_json_line(message, level), err=True)
        elif level == "error":
            typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
            typer.echo(printable(" ".join(message.split())), err=True)
        else:
            typer.secho(printable(message), err=True, dim=sys.stderr.isatty())


def tell(line: str) -> None:
    """A line on stdout of what runs for long, which goes on also when nobody reads any more."""
    with suppress(OSError):
        typer.echo(_json_line(line, "info") if _lines.json else printable(line))


class _Lines:
    """Whether remarks are lines of JSON, like the logs among which they stand."""

    json = False


_lines: Final = _Lines()


def as_json_lines(*, wanted: bool) -> None:
    """From now on, print remarks and errors as JSON, or for people."""
    _lines.json = wanted


def _json_line(message: str, level: str) -> str:
    moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"event": message, "level": level, "logger": "market_data", "timestamp": moment})


def print_rows(title: str | None, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """A table with one line per row; numbers to the right, headings from the keys.

    Args:
        title: Line above the table; None for none.
        rows: All with the same keys.
        columns: The keys to show, in order; None shows all of the first row.
    """
    from rich import box
    from rich.table import Table

    names = list(columns if columns is not None else (rows[0] if rows else ()))
    # Two spaces between columns, so that ten columns fit a terminal of 80.
    look = {"box": box.SIMPLE_HEAD, "show_edge": False, "padding": (0, 1, 0, 0), "pad_edge": False}
    table = Table(**look)  # type: ignore[arg-type]
    terminal = sys.stdout.isatty()
    cells: list[list[str]] = []
    for name in names:
        values = [row.get(name) for row in rows]
        cells.append(column(values))
        text = any(isinstance(value, list | tuple) or not _is_figure(value) for value in values)
        widest = max(map(len, cells[-1]), default=0)
        table.add_column(
            name.replace("_", "\n" if terminal else " "),
            justify="left" if text else "right",
            no_wrap=not text or widest <= NARROW,
            min_width=min(widest, NARROW),
            overflow="fold",
        )
    for line in zip(*cells, strict=True):
        table.add_row(*line)
    if title is not None:
        typer.secho(title, bold=True)
    out = console()
    # Where it cannot fit, its lines wrap at the terminal's edge: no value is ever cut away.
    out.width = max(out.width, out.measure(table, options=out.options.update(width=PIPED_WIDTH)).minimum)
    out.print(table)
    typer.echo()


def _is_figure(value: Any) -> bool:
    return not isinstance(value, str) or FIGURE.fullmatch(value) is not None


def print_fields(title: str, fields: Mapping[str, Any]) -> None:
    """Names and values, one pair per line."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name.replace("_", " "), shown(value))
    typer.secho(title, bold=True)
    console().print(table)


@contextmanager
def waiting(message: str) -> Iterator[None]:
    """A spinner on stderr while the block runs; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with console(stderr=True).status(message):
        yield
