"""`SQLiteLogStorage`: the log of one node in SQLite, flushed before anybody hears of it.

What for: an entry that was acknowledged is on this disk, whatever happens to the process, and a log
that has lost something does not pass for a whole one.

Rules kept:

* WAL with `synchronous=FULL`: a commit has been flushed when it returns. Every pragma is read back,
  and a database that answers something else is refused.
* `locking_mode=EXCLUSIVE`, and a lock file beside it: one process, one connection, one thread.
* One hop and one statement per flush, however many entries it holds; a row is a run of frames of at
  most 256 KiB, because a row for each entry costs five times as much.
* No checkpoint inside a commit: `maintain` checkpoints when the node is idle, or when the WAL has
  grown beyond its limit.
* Each row carries a CRC chained over the checksums of its frames, so that a row that was changed,
  lost or brought in from elsewhere is noticed at the next start. SQLite silently drops what follows
  a damaged frame in its WAL; the seal in the vote files notices that (`hard_state`).
* The vote is written first and the log second: a term is never less durable than an entry of it.
* The first failure is final.

Layout: `identity` (one row: schema, node, incarnation, cluster, snapshot) and `log` (first index,
last index, CRC of the row before, CRC, frames). The directory: `raft.db`, `hard.0`, `hard.1`,
`snap-*`, `LOCK`.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import aiosqlite

from conveyor_raft.core.frames import Frame, decode_frames
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.output import Write
from conveyor_raft.core.types import ClusterId, HardState, Incarnation, LogIndex, NodeId, Term
from conveyor_raft.errors import Corrupt, Failed, Locked, StorageError, WrongIdentity
from conveyor_raft.snapshots import SnapshotFiles, decode_meta, encode_meta
from conveyor_raft.storage.base import Stored
from conveyor_raft.storage.database import connect
from conveyor_raft.storage.directory import DirectoryLock, make_directory
from conveyor_raft.storage.hard_state import HardRecord, HardStateFiles
from conveyor_raft.storage.memory import covers, keep_before
from conveyor_raft.storage.rows import Row, chain_crc, group_rows, insert_statement

_SCHEMA_VERSION = 1
_WAL_BYTES_MAX = 64 * 1024 * 1024
_WAL_BYTES_IDLE = 1024 * 1024
_SEAL_INTERVAL_SECONDS = 1.0


class SQLiteLogStorage:
    """The `LogStorage` of a real node, in one directory."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.snapshots = SnapshotFiles(self.directory)
        self._lock = DirectoryLock(self.directory)
        self._hard = HardStateFiles(self.directory)
        self._record = HardRecord(0, b"")
        self._database: aiosqlite.Connection | None = None
        self._rows: list[tuple[LogIndex, LogIndex, int]] = []
        """First index, last index and CRC of every row."""
        self._snapshot: SnapshotMeta | None = None
        self._failure: Failed | None = None
        self._sealed_at = 0.0
        self._wal_bytes = 0

    async def open(self, node_id: int) -> Stored:
        """Lock the directory, check everything in it, and return what it remembers."""
        await asyncio.to_thread(make_directory, self.directory)
        self._lock.acquire()
        try:
            self._database = await connect(self.directory / "raft.db")
            return await self._load(node_id)
        except (sqlite3.Error, OSError) as error:
            await self.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise Locked(
                    f"another program has {self.directory / 'raft.db'} open; close it"
                ) from error
            raise Corrupt(
                f"{self.directory / 'raft.db'} cannot be used: {error}; restore the data directory,"
                " or remove this node from the cluster and add it under a new id"
            ) from error
        except StorageError:
            await self.close()
            raise

    async def form(self, cluster_id: ClusterId, first: LoadedState) -> None:
        """Write the cluster id and the first state in one transaction."""
        with self._whole():
            await self._form(cluster_id, first)

    async def write(self, write: Write) -> None:
        """Perform one write; durable on return."""
        with self._whole():
            await self._perform(write)

    async def compact(self, through: LogIndex) -> None:
        """Delete the rows that end at or below the index, one short transaction."""
        gone = sum(last <= through for _, last, _ in self._rows)
        if gone:
            with self._whole():
                await self._run("DELETE FROM log WHERE last <= ?", (through,))
            del self._rows[:gone]

    async def maintain(self, *, idle: bool) -> None:
        """Move the seal up to the log, and checkpoint the WAL when it is time."""
        if self._failure is None and self._database is not None:
            with self._whole():
                await self._maintain(idle)

    async def close(self) -> None:
        """Seal, close and unlock. Safe to call twice, and after a failure."""
        try:
            await self.maintain(idle=True)
        except Failed:
            pass  # It is remembered, and whoever writes next is told; closing goes on.
        finally:
            database, self._database = self._database, None
            if database is not None:
                await database.close()
            self._hard.close()
            self._lock.release()

    # The names of the specification, for tools that look into a log.

    async def get(self, index: int) -> bytes | None:
        """Return the payload of one entry, or None if it is not retained."""
        payloads = await self.get_range(index, index)
        return payloads[0] if payloads else None

    async def get_range(self, first: int, last: int) -> list[bytes]:
        """Return the payloads of the retained entries of a range, both ends included."""
        rows = await self._fetch(
            "SELECT frames FROM log WHERE last >= ? AND first <= ? ORDER BY first", (first, last)
        )
        return [
            entry.payload
            for (data,) in rows
            for frame in decode_frames(data)
            for entry in frame.entries()
            if first <= entry.index <= last
        ]

    def last_index(self) -> LogIndex:
        """Return the index of the last durable entry, 0 if there is none."""
        return self._last_index()

    async def _load(self, node_id: int) -> Stored:
        self._rows, self._failure = [], None
        record = await asyncio.to_thread(self._hard.load)
        rows = await self._fetch(
            "SELECT schema_version, node_id, incarnation, cluster_id, snapshot FROM identity", ()
        )
        identity = next(iter(rows), None)
        if identity is None:
            return await self._create(node_id, record)
        schema, owner, incarnation, cluster_id, snapshot = identity
        if schema != _SCHEMA_VERSION:
            raise WrongIdentity(
                f"{self.directory} was written by another release (schema {schema}, this one knows"
                f" {_SCHEMA_VERSION}); run the release that wrote it"
            )
        if owner != node_id:
            raise WrongIdentity(
                f"{self.directory} belongs to node {owner}, and this is node {node_id};"
                f" start it with the node id {owner}, or with a data directory of its own"
            )
        if record is None or record.incarnation != incarnation or record.node_id != owner:
            raise Corrupt(
                f"the vote files hard.0 and hard.1 of {self.directory} are missing or belong to"
                " another directory, so the vote of this node is lost; restore them, or remove"
                " the node from the cluster and add it under a new id"
            )
        self._record = record
        self._snapshot = None if snapshot is None else decode_meta(snapshot)
        frames = await self._load_log()
        self._check_nothing_lost(frames)
        vote = None if record.voted_for is None else NodeId(record.voted_for)
        loaded = LoadedState(HardState(Term(record.term), vote), self._snapshot, tuple(frames))
        cluster = None if cluster_id is None else ClusterId(cluster_id)
        return Stored(Incarnation(incarnation), cluster, loaded)

    async def _create(self, node_id: int, record: HardRecord | None) -> Stored:
        """Make a new directory's identity; the vote files first, so that none is without them."""
        if record is not None and (record.term or record.seal_index):
            raise Corrupt(
                f"{self.directory} has a vote of node {record.node_id} and no log; restore raft.db,"
                " or remove the node from the cluster and add it under a new id"
            )
        incarnation = Incarnation(secrets.token_bytes(16))
        self._hard.close()
        self._record = HardRecord(node_id, incarnation)
        await asyncio.to_thread(self._hard.create, self._record)
        await self._run(
            "INSERT INTO identity VALUES (1, ?, ?, ?, NULL, NULL)",
            (_SCHEMA_VERSION, node_id, incarnation),
        )
        return Stored(incarnation, None, LoadedState())

    async def _load_log(self) -> list[Frame]:
        frames: list[Frame] = []
        rows = await self._fetch(
            "SELECT first, last, before, chain, frames FROM log ORDER BY first", ()
        )
        before: int | None = None
        for first, last, linked, chain, data in rows:
            where = f"the row of the entries {first} to {last} in {self.directory / 'raft.db'}"
            try:
                run = decode_frames(data)
            except Corrupt as error:
                raise Corrupt(f"{where} is damaged: {error}. {_REMEDY}") from error
            follows = not frames or run[0].first_index == frames[-1].last_index + 1
            if (run[0].first_index, run[-1].last_index) != (first, last) or not follows:
                raise Corrupt(f"{where} does not follow the entries before it. {_REMEDY}")
            if before not in (None, linked) or chain_crc(run, linked) != chain:
                raise Corrupt(f"{where} is not the one that was written there. {_REMEDY}")
            frames.extend(run)
            self._rows.append((LogIndex(first), LogIndex(last), chain))
            before = chain
        return frames

    def _check_nothing_lost(self, frames: Sequence[Frame]) -> None:
        last, seal = self._last_index(), self._record.seal_index
        if last < seal:
            raise Corrupt(
                f"the log in {self.directory} ends at index {last}, but entries up to {seal} were"
                f" acknowledged. {_REMEDY}"
            )
        start = self._snapshot.index if self._snapshot is not None else 0
        if frames and frames[0].first_index > start + 1:
            raise Corrupt(
                f"the log in {self.directory} begins at index {frames[0].first_index}, and nothing"
                f" covers the entries from {start + 1} on. {_REMEDY}"
            )

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """If the caller gives up, what it began goes on in its thread: let nothing follow it."""
        try:
            yield
        except asyncio.CancelledError:
            self._failure = Failed("a write was interrupted; open the storage again")
            raise

    async def _form(self, cluster_id: ClusterId, first: LoadedState) -> None:
        await self._store_hard(term=first.hard_state.term, voted_for=first.hard_state.voted_for)
        rows = group_rows(first.frames, 0)
        await self._transaction(
            ("UPDATE identity SET cluster_id = ?", (cluster_id,)), *insert_statement(rows)
        )
        self._remember(rows)

    async def _perform(self, write: Write) -> None:
        if self._failure is not None:
            raise self._failure
        if write.hard_state is not None:
            hard = write.hard_state
            await self._store_hard(term=hard.term, voted_for=hard.voted_for)
        if write.snapshot is not None or write.truncate_from is not None:
            await self._rewrite(write)
        elif write.frames:
            rows = group_rows(write.frames, self._rows[-1][2] if self._rows else 0)
            await self._run(*insert_statement(rows)[0])
            self._remember(rows)

    async def _maintain(self, idle: bool) -> None:
        now = time.monotonic()
        last = self._last_index()
        due = now - self._sealed_at >= _SEAL_INTERVAL_SECONDS
        if last > self._record.seal_index and (idle or due):
            await self._store_hard(seal_index=last)
            self._sealed_at = now
        if self._wal_bytes > (_WAL_BYTES_IDLE if idle else _WAL_BYTES_MAX):
            await self._run("PRAGMA wal_checkpoint(PASSIVE)", ())
            self._wal_bytes = 0

    async def _rewrite(self, write: Write) -> None:
        """Perform the rare writes: those that cut the log, or name a snapshot."""
        statements: list[tuple[str, Sequence[object]]] = []
        cut = write.truncate_from
        snapshot = write.snapshot
        if snapshot is not None and self._snapshot and snapshot.index <= self._snapshot.index:
            snapshot = None
        if snapshot is not None:
            statements.append(("UPDATE identity SET snapshot = ?", (encode_meta(snapshot),)))
            if not covers(await self._frames_at(snapshot.index), snapshot):
                cut = LogIndex(0)
        kept, prefix = self._rows, list[Frame]()
        if cut is not None:
            kept = [row for row in self._rows if row[1] < cut]
            if len(kept) < len(self._rows):
                prefix = keep_before(await self._frames_at(LogIndex(cut - 1)), cut)
                prefix = [frame for frame in prefix if not kept or frame.first_index > kept[-1][1]]
            statements.append(("DELETE FROM log WHERE last >= ?", (cut,)))
            if cut <= self._record.seal_index:
                # Lowered before the cut: a crash in between must not look like a loss.
                await self._store_hard(seal_index=LogIndex(max(0, cut - 1)))
        rows = group_rows([*prefix, *write.frames], kept[-1][2] if kept else 0)
        await self._transaction(*statements, *insert_statement(rows))
        self._rows = list(kept)
        self._remember(rows)
        if snapshot is not None:
            self._snapshot = snapshot

    async def _frames_at(self, index: LogIndex) -> tuple[Frame, ...]:
        """Return the frames of the row that holds the index."""
        rows = await self._fetch(
            "SELECT frames FROM log WHERE first <= ? AND last >= ?", (index, index)
        )
        return tuple(frame for (data,) in rows for frame in decode_frames(data))

    def _last_index(self) -> LogIndex:
        last = self._rows[-1][1] if self._rows else LogIndex(0)
        return last if self._snapshot is None else max(last, self._snapshot.index)

    def _remember(self, rows: Sequence[Row]) -> None:
        self._rows.extend((row.first, row.last, row.chain) for row in rows)
        self._wal_bytes += sum(len(row.data) + 4096 for row in rows)

    async def _store_hard(self, **changes: int | None) -> None:
        record = replace(self._record, **changes)  # type: ignore[arg-type]
        if record != self._record:
            try:
                await asyncio.to_thread(self._hard.store, record)
            except Failed as error:
                self._failure = error
                raise
            self._record = record

    async def _transaction(self, *statements: tuple[str, Sequence[object]]) -> None:
        await self._run("BEGIN IMMEDIATE", ())
        for statement, values in statements:
            await self._run(statement, values)
        await self._run("COMMIT", ())

    async def _run(self, statement: str, values: Sequence[object]) -> None:
        if self._failure is not None:
            raise self._failure
        if self._database is None:
            raise Failed("the storage is closed")
        try:
            await self._database.execute(statement, values)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._failure = Failed(
                f"{self.directory / 'raft.db'} refused a write: {error}; what it holds now is not"
                " known, so this node stops. Repair the disk and start it again"
            )
            raise self._failure from error

    async def _fetch(self, statement: str, values: Sequence[object]) -> list[sqlite3.Row]:
        if self._database is None:
            raise Failed("the storage is closed")
        async with self._database.execute(statement, values) as cursor:
            return list(await cursor.fetchall())


_REMEDY = (
    "Restore the data directory from before the damage if nothing was written since, or remove"
    " this node from the cluster and add it under a new id"
)
