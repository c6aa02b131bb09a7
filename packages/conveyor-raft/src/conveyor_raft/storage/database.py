"""A SQLite database that means what it says: every promise is asked for, and read back.

Rules kept: WAL with `synchronous=FULL`, so that a commit has been flushed when it returns; an
exclusive lock, so that nobody else is in; no checkpoint inside a commit. Defaults are fixed when
SQLite is compiled, so a library elsewhere may answer something else: such a database is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import aiosqlite

from conveyor_raft.errors import Failed

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  schema_version INTEGER NOT NULL, node_id INTEGER NOT NULL, incarnation BLOB NOT NULL,
  cluster_id BLOB, snapshot BLOB);
CREATE TABLE IF NOT EXISTS log (
  first INTEGER PRIMARY KEY, last INTEGER NOT NULL,
  before INTEGER NOT NULL, chain INTEGER NOT NULL, frames BLOB NOT NULL);
"""
# The order matters: exclusive before WAL means no shared-memory file, and no second opener.
_PRAGMAS: Sequence[tuple[str, str | int, str | int]] = (
    ("locking_mode", "EXCLUSIVE", "exclusive"),
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("wal_autocheckpoint", 0, 0),
    ("mmap_size", 0, 0),
    ("trusted_schema", 0, 0),
    ("cell_size_check", 1, 1),
    ("fullfsync", 1, 1),
)


async def connect(path: Path) -> aiosqlite.Connection:
    """Open or make the database of one log.

    Raises:
        Failed: SQLite does not accept a setting that acknowledged entries depend on.
        sqlite3.Error: the file is no database, or somebody else has it.
    """
    database = await aiosqlite.connect(path, isolation_level=None, timeout=1.0)
    try:
        for name, value, _ in _PRAGMAS:
            await database.execute(f"PRAGMA {name} = {value}")
        for name, _, expected in _PRAGMAS:
            cursor = await database.execute(f"PRAGMA {name}")
            row = await cursor.fetchone()
            if row is not None and row[0] != expected:
                raise Failed(
                    f"SQLite answers {name}={row[0]} for {path}, {expected} is needed for"
                    " acknowledged entries to survive a power cut; use a local file system"
                    " that supports it"
                )
        await database.executescript(_SCHEMA)
    except BaseException:
        await database.close()
        raise
    return database
