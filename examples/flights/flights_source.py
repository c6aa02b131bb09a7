"""A source of flights: one partition per month, resumable at any row, bounded.

`flights.csv` is looked for in the directory that the manifest's `data` or the variable FLIGHTS_DATA
names; FLIGHTS_MONTHS (default 12) says how many months there are. A record's offset is its row
within its month, the same at every replay, so that whoever reads the month again after a crash
gives each flight the same identity.
"""

from __future__ import annotations

import asyncio
import csv
import os
from collections.abc import AsyncIterator
from functools import cache
from itertools import islice
from pathlib import Path

from conveyor_sdk import Context, run, source

TEXT = {"carrier", "tailnum", "origin", "dest", "time_hour"}
MONTH_COLUMN = 1
ROWS_PER_STEP = 1_000

Flight = dict[str, str | int | None]


def months() -> list[str]:
    """Return the names of the partitions."""
    return [f"{month:02}" for month in range(1, int(os.environ.get("FLIGHTS_MONTHS", "12")) + 1)]


@cache
def lines_by_month(path: Path) -> tuple[list[str], dict[str, list[tuple[int, int]]]]:
    """Return the columns, and for each month where its rows stand in the file: (start, end)."""
    places: dict[str, list[tuple[int, int]]] = {}
    with path.open("rb") as file:
        columns = file.readline().decode().strip().split(",")
        current, start, position = "", file.tell(), file.tell()
        for line in file:
            month = line.split(b",", MONTH_COLUMN + 1)[MONTH_COLUMN].decode().zfill(2)
            if month != current:
                if current:
                    places.setdefault(current, []).append((start, position))
                current, start = month, position
            position += len(line)
        if current:
            places.setdefault(current, []).append((start, position))
    return columns, places


def parsed(columns: list[str], kinds: list[type[str] | type[int]], values: list[str]) -> Flight:
    """Return one flight: NA is None, text stays text, everything else is an integer."""
    return {
        column: None if value == "NA" else kind(value)
        for column, kind, value in zip(columns, kinds, values, strict=True)
    }


@source(name="flights", partitions=months, bounded=True, stable_offsets=True, version="1")
async def flights(
    partition: str, resume: int | None, ctx: Context
) -> AsyncIterator[tuple[Flight, int]]:
    """Yield the flights of one month from row `resume` on."""
    path = Path(ctx.config.get("data") or os.environ["FLIGHTS_DATA"]) / "flights.csv"
    columns, places = await asyncio.to_thread(lines_by_month, path)
    kinds = [str if column in TEXT else int for column in columns]
    offset = 0
    with path.open("rb") as file:
        for start, end in places.get(partition, []):
            file.seek(start)
            lines = file.read(end - start).decode().splitlines()
            skipped = min(max((resume or 0) - offset, 0), len(lines))
            offset += skipped
            rows = csv.reader(lines[skipped:])
            while step := list(islice(rows, ROWS_PER_STEP)):
                for values in step:
                    yield parsed(columns, kinds, values), offset
                    offset += 1


if __name__ == "__main__":
    run()
