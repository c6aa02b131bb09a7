"""What commands print: tables for people, JSON and YAML for programs.

Results go to standard output, everything else to standard error, so that output can be piped.
Structured output carries ``schema_version``; its keys are stable within a version. Colour is used
on terminals only, and not with ``NO_COLOR``. Away from a terminal, tables are as wide as they are:
nothing is cut off.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import yaml
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from conveyor_cli.errors import shown
from conveyor_cli.options import OutputFormat

SCHEMA_VERSION = 1
WIDE = 100_000

STYLES = {
    "Running": "green",
    "Completed": "green",
    "Healthy": "green",
    "leader": "green",
    "created": "green",
    "updated": "yellow",
    "Pending": "yellow",
    "Draining": "yellow",
    "Degraded": "yellow",
    "Stopped": "dim",
    "unchanged": "dim",
    "skipped": "dim",
    "Failed": "red",
    "Unhealthy": "red",
    "unreachable": "red",
    "refused": "red",
}


def console_for_output() -> Console:
    """A console on standard output."""
    terminal = sys.stdout.isatty()
    return Console(
        file=sys.stdout,
        width=None if terminal else WIDE,
        highlight=False,
        emoji=False,
        markup=False,
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table without lines; states are coloured by what they mean.

    Columns for what is seldom there (:data:`_OCCASIONAL`) are left out when all rows lack it.
    """
    given = [tuple(row) for row in rows]
    kept = [
        index
        for index, column in enumerate(columns)
        if column not in _OCCASIONAL or any(row[index] not in (None, "") for row in given)
    ]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index in kept:
        numeric = columns[index] in _NUMERIC
        made.add_column(columns[index], justify="right" if numeric else "left", overflow="fold")
    for row in given:
        made.add_row(*(cell(row[index]) for index in kept))
    return made


_OCCASIONAL = frozenset({"REASON", "TROUBLE", "LAST ERROR"})


_NUMERIC = frozenset(
    {
        *("IN", "OUT", "FILTERED", "RETRIED", "DEAD", "DROPPED", "OPEN", "RATE/S", "ORDINAL"),
        *("VERSION", "TERM", "APPLIED", "GENERATION", "INSTANCE", "LOAD"),
        *("INSTANCES", "SERVICES", "PARTITIONS", "MEMBERS"),
    }
)


def cell(value: object) -> Text:
    """One cell: control characters spelled out, states coloured, nothing shown as ``-``."""
    text = shown("-" if value is None or value == "" else str(value)).replace("\n", " ")
    return Text(text, style=STYLES.get(text, ""))


def print_renderable(*parts: RenderableType) -> None:
    """Print tables and lines, without the blanks that fill them up."""
    console = console_for_output()
    if console.is_terminal:
        console.print(*parts, sep="\n")
        return
    with console.capture() as captured:
        console.print(*parts, sep="\n")
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def print_data(data: dict[str, Any], form: OutputFormat, *, compact: bool = False) -> None:
    """Print an object as JSON or YAML, marked with the schema's version."""
    click.echo(dumped({"schema_version": SCHEMA_VERSION, **data}, form, compact=compact))


def dumped(data: Any, form: OutputFormat, *, compact: bool = False) -> str:
    """Data as text; ``compact`` is one line of JSON."""
    if form == "json":
        return json.dumps(data, indent=None if compact else 2, ensure_ascii=False)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{text}".rstrip() if compact else text.rstrip()


def age(seconds: float | None) -> str:
    """How long ago, in the unit that says most: ``3s``, ``12m``, ``5h``, ``2d``."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def count(number: float) -> str:
    """A number with its thousands apart."""
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
