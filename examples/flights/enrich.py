"""A transform that adds the names of airline and airports, and how much of its delay a flight made
good.

`airlines.csv` and `airports.csv` are looked for in the directory that the manifest's `data` or the
variable FLIGHTS_DATA names.
"""

from __future__ import annotations

import csv
import os
from functools import cache
from pathlib import Path
from typing import Any

from conveyor_sdk import Context, run, transform

Flight = dict[str, Any]


@cache
def names(path: Path, code: str) -> dict[str, str]:
    """Return the names in a file, by the codes in its column `code`."""
    with path.open(newline="") as file:
        return {row[code]: row["name"] for row in csv.DictReader(file)}


@transform(name="enrich", version="1")
def enrich(flights: list[Flight], ctx: Context) -> list[Flight]:
    """Return the flights with four more fields; a code that the files do not know has no name."""
    data = Path(ctx.config.get("data") or os.environ["FLIGHTS_DATA"])
    airlines = names(data / "airlines.csv", "carrier")
    airports = names(data / "airports.csv", "faa")
    for flight in flights:
        departure, arrival = flight["dep_delay"], flight["arr_delay"]
        known = departure is not None and arrival is not None
        flight["airline_name"] = airlines.get(flight["carrier"])
        flight["origin_name"] = airports.get(flight["origin"])
        flight["dest_name"] = airports.get(flight["dest"])
        flight["delay_recovered"] = departure - arrival if known else None
    return flights


if __name__ == "__main__":
    run()
