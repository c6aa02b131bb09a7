"""What only a disk can do: fill up, lie, lose the end of the log, rot, and be used by two."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.output import Write
from conveyor_raft.core.types import HardState, LogIndex, NodeId, Term
from conveyor_raft.errors import Corrupt, Failed, Locked
from conveyor_raft.storage import database
from conveyor_raft.storage.sqlite import SQLiteLogStorage

pytestmark = pytest.mark.asyncio
MakeFrame = Callable[..., Frame]


async def filled(directory: Path, frame: MakeFrame, count: int = 5) -> None:
    """Write `count` rows of one entry each, seal and close."""
    storage = SQLiteLogStorage(directory)
    await storage.open(1)
    await storage.write(Write(1, HardState(Term(1), NodeId(1)), None, None, ()))
    for index in range(1, count + 1):
        await storage.write(Write(index, None, None, None, (frame(index),)))
    await storage.close()


async def reopen_error(directory: Path) -> str:
    with pytest.raises(Corrupt) as caught:
        await SQLiteLogStorage(directory).open(1)
    return str(caught.value)


def change(directory: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(directory / "raft.db") as connection:
        connection.execute(statement, values)
    connection.close()


async def test_the_promised_pragmas_are_in_force(tmp_path: Path, frame: MakeFrame) -> None:
    """A commit is flushed, nobody else gets in, and no commit runs a checkpoint."""
    storage = SQLiteLogStorage(tmp_path)
    await storage.open(1)
    rows = await storage._fetch("PRAGMA synchronous", ())
    assert rows[0][0] == 2
    rows = await storage._fetch("PRAGMA wal_autocheckpoint", ())
    assert rows[0][0] == 0
    assert not (tmp_path / "raft.db-shm").exists()
    other = sqlite3.connect(tmp_path / "raft.db", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM log")
    other.close()
    await storage.close()


async def test_a_weaker_database_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If SQLite does not accept the durable setting, the node does not start."""
    weaker = [
        (name, "NORMAL" if name == "synchronous" else value, expected)
        for name, value, expected in database._PRAGMAS
    ]
    monkeypatch.setattr("conveyor_raft.storage.database._PRAGMAS", weaker)
    with pytest.raises(Failed, match="synchronous=1"):
        await SQLiteLogStorage(tmp_path).open(1)


async def test_a_database_open_elsewhere_is_named(tmp_path: Path) -> None:
    """A program without our lock file holds the database: say so instead of calling it corrupt."""
    await filled(tmp_path, lambda index: None, 0)  # type: ignore[arg-type,return-value]
    other = sqlite3.connect(tmp_path / "raft.db", isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Locked, match="another program"):
        await SQLiteLogStorage(tmp_path).open(1)
    other.close()


async def test_a_flipped_bit_in_a_row_is_noticed(tmp_path: Path, frame: MakeFrame) -> None:
    """The frame's own checksum fails, and the error names the entries."""
    await filled(tmp_path, frame)
    data = bytearray(frame(3).data)
    data[-1] ^= 1
    change(tmp_path, "UPDATE log SET frames = ? WHERE first = 3", bytes(data))
    assert "entries 3 to 3" in await reopen_error(tmp_path)


async def test_a_row_from_elsewhere_is_noticed(tmp_path: Path, frame: MakeFrame) -> None:
    """A valid frame that was never written here breaks the chain."""
    await filled(tmp_path, frame)
    change(tmp_path, "UPDATE log SET frames = ? WHERE first = 3", frame(3, text="other").data)
    assert "not the one that was written there" in await reopen_error(tmp_path)


async def test_a_missing_row_is_noticed(tmp_path: Path, frame: MakeFrame) -> None:
    """A hole in the middle."""
    await filled(tmp_path, frame)
    change(tmp_path, "DELETE FROM log WHERE first = 3")
    assert "does not follow" in await reopen_error(tmp_path)


async def test_a_log_without_its_beginning_is_noticed(tmp_path: Path, frame: MakeFrame) -> None:
    """Nothing covers what is missing."""
    await filled(tmp_path, frame)
    change(tmp_path, "DELETE FROM log WHERE first < 3")
    assert "nothing covers the entries from 1 on" in await reopen_error(tmp_path)


async def test_a_lost_end_is_noticed(tmp_path: Path, frame: MakeFrame) -> None:
    """Valid rows that end below the seal: entries that were acknowledged are gone."""
    await filled(tmp_path, frame)
    change(tmp_path, "DELETE FROM log WHERE first > 3")
    message = await reopen_error(tmp_path)
    assert "ends at index 3, but entries up to 5 were acknowledged" in message
    assert "under a new id" in message


async def test_a_damaged_write_ahead_log_is_noticed(tmp_path: Path, frame: MakeFrame) -> None:
    """SQLite drops everything behind a damaged WAL frame without a word; the seal speaks."""
    storage = SQLiteLogStorage(tmp_path / "live")
    await storage.open(1)
    for index in range(1, 21):
        await storage.write(Write(index, None, None, None, (frame(index),)))
    storage._wal_bytes = 0
    await storage.maintain(idle=True)
    image = tmp_path / "image"
    shutil.copytree(tmp_path / "live", image)
    await storage.close()
    wal = image / "raft.db-wal"
    data = bytearray(wal.read_bytes())
    data[len(data) // 2] ^= 1
    wal.write_bytes(data)
    assert "were acknowledged" in await reopen_error(image)


async def test_a_kill_at_any_moment_leaves_what_was_acknowledged(
    tmp_path: Path, frame: MakeFrame
) -> None:
    """A copy of the live directory is what a killed process leaves behind."""
    storage = SQLiteLogStorage(tmp_path / "live")
    await storage.open(1)
    for index in range(1, 6):
        await storage.write(Write(index, HardState(Term(index), None), None, None, (frame(index),)))
        image = tmp_path / f"image{index}"
        shutil.copytree(tmp_path / "live", image)
        crashed = SQLiteLogStorage(image)
        stored = await crashed.open(1)
        assert len(stored.loaded.frames) == index
        assert stored.loaded.hard_state.term == index
        await crashed.close()
    await storage.close()


async def test_missing_vote_files_are_refused(tmp_path: Path, frame: MakeFrame) -> None:
    """A log without its vote could vote twice."""
    await filled(tmp_path, frame)
    (tmp_path / "hard.0").unlink()
    (tmp_path / "hard.1").unlink()
    assert "the vote of this node is lost" in await reopen_error(tmp_path)


async def test_a_missing_log_is_refused(tmp_path: Path, frame: MakeFrame) -> None:
    """A vote without its log has lost the log."""
    await filled(tmp_path, frame)
    (tmp_path / "raft.db").unlink()
    assert "has a vote of node 1 and no log" in await reopen_error(tmp_path)


async def test_a_damaged_snapshot_is_refused(tmp_path: Path, membership: Membership) -> None:
    """Its digest is checked on every load, and the file stays for whoever looks into it."""
    storage = SQLiteLogStorage(tmp_path)
    await storage.open(1)
    meta = SnapshotMeta(LogIndex(3), Term(1), 7, membership)
    await storage.snapshots.put(meta, b"state" * 100)
    path = storage.snapshots.path(meta)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt, match="digest differs"):
        await storage.snapshots.get(meta)
    assert path.exists()
    await storage.close()


async def test_the_first_failure_is_final(tmp_path: Path, frame: MakeFrame) -> None:
    """After a refused write nothing is accepted any more, even if the disk would."""
    storage = SQLiteLogStorage(tmp_path)
    await storage.open(1)
    await storage.write(Write(1, None, None, None, (frame(1),)))
    with pytest.raises(Failed, match="refused a write"):
        await storage.write(Write(2, None, None, None, (frame(1),)))  # the key exists
    with pytest.raises(Failed):
        await storage.write(Write(3, None, None, None, (frame(2),)))
    await storage.close()


async def test_an_unwritable_directory_is_refused(tmp_path: Path) -> None:
    """A file in the place of the directory."""
    (tmp_path / "data").write_text("")
    with pytest.raises(Failed, match="not a directory"):
        await SQLiteLogStorage(tmp_path / "data").open(1)


async def test_new_directories_are_for_the_owner_alone(tmp_path: Path) -> None:
    """Nobody else reads the log."""
    storage = SQLiteLogStorage(tmp_path / "a" / "b")
    await storage.open(1)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
    await storage.close()


async def test_the_names_of_the_specification(tmp_path: Path, frame: MakeFrame) -> None:
    """`get`, `get_range` and `last_index` look into the log."""
    storage = SQLiteLogStorage(tmp_path)
    await storage.open(1)
    assert storage.last_index() == 0
    await storage.write(Write(1, None, None, None, (frame(1, 3), frame(4, 2))))
    assert storage.last_index() == 5
    assert await storage.get(4) == b"entry 4"
    assert await storage.get(6) is None
    assert await storage.get_range(2, 4) == [b"entry 2", b"entry 3", b"entry 4"]
    await storage.close()


async def test_a_vote_that_cannot_be_written_is_final(
    tmp_path: Path, frame: MakeFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may hear of it, and nothing is accepted afterwards."""
    storage = SQLiteLogStorage(tmp_path)
    await storage.open(1)

    def refuse(*_: object) -> None:
        raise OSError("input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", refuse)
        with pytest.raises(Failed, match="cannot write the vote"):
            await storage.write(Write(1, HardState(Term(2), NodeId(1)), None, None, ()))
    with pytest.raises(Failed):
        await storage.write(Write(2, None, None, None, (frame(1),)))
    await storage.close()
    again = SQLiteLogStorage(tmp_path)
    assert (await again.open(1)).loaded.hard_state.term == 0
    await again.close()


async def test_the_write_ahead_log_is_emptied_when_idle(tmp_path: Path, frame: MakeFrame) -> None:
    """No commit pays for it; afterwards new commits reuse the file."""
    storage = SQLiteLogStorage(tmp_path)
    await storage.open(1)
    wal = tmp_path / "raft.db-wal"
    for index in range(1, 60):
        await storage.write(Write(index, None, None, None, (frame(index, text="x" * 40_000),)))
        await storage.maintain(idle=False)
    grown = wal.stat().st_size
    assert grown > 2_000_000
    await storage.maintain(idle=True)
    for index in range(60, 90):
        await storage.write(Write(index, None, None, None, (frame(index, text="x" * 40_000),)))
    assert wal.stat().st_size == grown
    await storage.close()


@pytest.mark.parametrize("after", range(6))
async def test_an_interrupted_write_is_whole_or_absent(
    tmp_path: Path, frame: MakeFrame, after: int
) -> None:
    """The caller gives up at some await; nothing follows, and the next start finds a good log."""
    storage = SQLiteLogStorage(tmp_path)
    await storage.open(1)
    await storage.write(Write(1, HardState(Term(1), None), None, None, (frame(1, 4),)))
    write = Write(2, HardState(Term(2), None), None, LogIndex(3), (frame(3, 2, term=2),))
    task = asyncio.create_task(storage.write(write))
    for _ in range(after):
        await asyncio.sleep(0.0002)
    task.cancel()
    await asyncio.wait([task])
    if task.cancelled() and after:
        with pytest.raises(Failed):
            await storage.write(Write(3, None, None, None, (frame(5, term=2),)))
    await storage.close()
    again = SQLiteLogStorage(tmp_path)
    loaded = (await again.open(1)).loaded
    await again.close()
    assert [entry.term for one in loaded.frames for entry in one.entries()] in (
        [1, 1, 1, 1],
        [1, 1, 2, 2],
    )
    assert loaded.hard_state.term in {1, 2}
    assert loaded.hard_state.term >= loaded.frames[-1].term
