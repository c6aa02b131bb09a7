"""Compare what the pipeline wrote with the file it came from, row by row.

Nothing of the pipeline is used here: the archive is read again, by other code than the source's,
and the expected rows are built with the standard library alone.
"""

from __future__ import annotations

import csv
import io
import sqlite3
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TEXT = {"carrier", "tailnum", "origin", "dest", "time_hour"}
KEY = ("time_hour", "carrier", "flight")
DIFFERENCES_SHOWN = 5

Row = dict[str, str | int | None]
Key = tuple[str | int | None, ...]


@dataclass
class Verdict:
    """What the comparison found.

    Attributes:
        expected: Records that must have been written.
        written: Rows in the table.
        lost: Expected keys without a row.
        duplicated: Rows beyond one for each expected key.
        redelivered: Deliveries to the sink beyond the first of each key.
        different: Rows with another value than the file's; the first few are described.
    """

    expected: int = 0
    written: int = 0
    lost: int = 0
    duplicated: int = 0
    redelivered: int = 0
    different: int = 0
    differences: list[str] = field(default_factory=list)


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the bytes of the file in the archive whose path ends with `name`."""
    for entry in archive:
        if entry.name.endswith(f"/data/{name}"):
            file = archive.extractfile(entry)
            if file:
                return file.read()
    raise FileNotFoundError(f"{archive.name!s} holds no data file {name}")


def rows(text: str) -> Iterator[dict[str, str]]:
    """Yield the lines of a CSV file as dictionaries."""
    return csv.DictReader(io.StringIO(text, newline=""))


def typed(line: dict[str, str]) -> Row:
    """Return a flight with `NA` as None, text as text, and all else as integers."""
    return {
        column: None if value == "NA" else value if column in TEXT else int(value)
        for column, value in line.items()
    }


def expected_rows(archive: Path, months: int) -> dict[Key, Row]:
    """Return the rows that must stand in the table, by key."""
    with tarfile.open(archive) as tar:
        zipped = zipfile.ZipFile(io.BytesIO(member(tar, "flights.csv.zip")))
        flights = zipped.read("flights.csv").decode()
    with tarfile.open(archive) as tar:
        airlines = {
            line["carrier"]: line["name"] for line in rows(member(tar, "airlines.csv").decode())
        }
    with tarfile.open(archive) as tar:
        airports = {
            line["faa"]: line["name"] for line in rows(member(tar, "airports.csv").decode())
        }
    expected: dict[Key, Row] = {}
    for line in rows(flights):
        if line["dep_time"] == "NA" or int(line["month"]) > months:
            continue
        row = typed(line)
        departure, arrival = row["dep_delay"], row["arr_delay"]
        known = isinstance(departure, int) and isinstance(arrival, int)
        row["airline_name"] = airlines.get(line["carrier"])
        row["origin_name"] = airports.get(line["origin"])
        row["dest_name"] = airports.get(line["dest"])
        row["delay_recovered"] = departure - arrival if known else None  # type: ignore[operator]
        expected[tuple(row[column] for column in KEY)] = row
    return expected


def verify(archive: Path, database: Path, months: int) -> Verdict:
    """Read the archive and the database and compare them."""
    expected = expected_rows(archive, months)
    verdict = Verdict(expected=len(expected))
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    seen: set[Key] = set()
    for found in connection.execute("SELECT * FROM flights"):
        verdict.written += 1
        row = dict(found)
        key = tuple(row[column] for column in KEY)
        wanted = expected.get(key)
        if wanted is None or key in seen:
            verdict.duplicated += 1
            continue
        seen.add(key)
        if row != wanted:
            verdict.different += 1
            if len(verdict.differences) < DIFFERENCES_SHOWN:
                columns = sorted(wanted.keys() | row.keys())
                wrong = [
                    f"{column}: {row.get(column)!r} instead of {wanted.get(column)!r}"
                    for column in columns
                    if row.get(column) != wanted.get(column)
                ]
                verdict.differences.append(f"{key}: {', '.join(wrong)}")
    verdict.lost = len(expected) - len(seen)
    deliveries, keys = connection.execute(
        "SELECT count(*), count(DISTINCT key) FROM deliveries"
    ).fetchone()
    verdict.redelivered = deliveries - keys
    connection.close()
    return verdict
