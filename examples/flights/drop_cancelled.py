"""A transform that drops the flights which never left: those without a departure time."""

from __future__ import annotations

from typing import Any

from conveyor_sdk import run, transform

Flight = dict[str, Any]


@transform(name="drop-cancelled", version="1")
def drop_cancelled(flights: list[Flight]) -> list[Flight | None]:
    """Return the flights that left; None stands for each of the others."""
    return [flight if flight["dep_time"] is not None else None for flight in flights]


if __name__ == "__main__":
    run()
