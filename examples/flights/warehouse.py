"""A sink that keeps flights in SQLite, each of them once however often it is delivered.

The manifest's `database` or the variable WAREHOUSE_DATABASE names the file. A batch is one
transaction: each flight is put into `flights` under its primary key, and a line with its lineage,
the attempt and the sidecar goes into `deliveries`, which so tells what really arrived. The commit
is on disk before the function returns; only then does Conveyor forget the records.
"""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from operator import itemgetter
from typing import Any

from conveyor_sdk import Context, run, sink

KEY = ("time_hour", "carrier", "flight")
COLUMNS = {
    "year": "INTEGER",
    "month": "INTEGER",
    "day": "INTEGER",
    "dep_time": "INTEGER",
    "sched_dep_time": "INTEGER",
    "dep_delay": "INTEGER",
    "arr_time": "INTEGER",
    "sched_arr_time": "INTEGER",
    "arr_delay": "INTEGER",
    "carrier": "TEXT",
    "flight": "INTEGER",
    "tailnum": "TEXT",
    "origin": "TEXT",
    "dest": "TEXT",
    "air_time": "INTEGER",
    "distance": "INTEGER",
    "hour": "INTEGER",
    "minute": "INTEGER",
    "time_hour": "TEXT",
    "airline_name": "TEXT",
    "origin_name": "TEXT",
    "dest_name": "TEXT",
    "delay_recovered": "INTEGER",
}
BUSY_TIMEOUT_SECONDS = 10.0

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS flights (
    {", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())},
    PRIMARY KEY ({", ".join(KEY)})
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (key TEXT, lineage BLOB, attempt INTEGER, sidecar TEXT);
"""
UPSERT = (
    f"INSERT INTO flights ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
    f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in KEY)
)
DELIVERY = "INSERT INTO deliveries VALUES (?, ?, ?, ?)"

values_of = itemgetter(*COLUMNS)
key_of = itemgetter(*KEY)


@cache
def opened(path: str) -> sqlite3.Connection:
    """Return the connection to the database, with its tables."""
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(SCHEMA)
    return connection


@sink(name="warehouse", idempotent=True, version="1")
def warehouse(flights: list[dict[str, Any]], ctx: Context) -> None:
    """Write a batch in one transaction."""
    connection = opened(ctx.config.get("database") or os.environ["WAREHOUSE_DATABASE"])
    deliveries = [
        ("{} {} {}".format(*key_of(flight)), lineage, ctx.attempt, ctx.sidecar)
        for flight, lineage in zip(flights, ctx.lineages, strict=True)
    ]
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(UPSERT, map(values_of, flights))
        connection.executemany(DELIVERY, deliveries)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


if __name__ == "__main__":
    run()
