"""The vote and the seal survive any single torn write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conveyor_raft.errors import Corrupt
from conveyor_raft.storage.hard_state import HardRecord, HardStateFiles

FIRST = HardRecord(node_id=3, incarnation=b"i" * 16)


def reopen(directory: Path) -> HardRecord | None:
    files = HardStateFiles(directory)
    try:
        return files.load()
    finally:
        files.close()


def test_nothing_there_is_not_an_error(tmp_path: Path) -> None:
    """A new directory has no record."""
    assert reopen(tmp_path) is None


def test_the_last_stored_record_is_read_back(tmp_path: Path) -> None:
    """Each store replaces the state, vote for nobody included."""
    files = HardStateFiles(tmp_path)
    files.create(FIRST)
    assert reopen(tmp_path) == FIRST
    for term in range(1, 6):
        record = replace(FIRST, term=term, voted_for=None if term % 2 else 2, seal_index=term * 10)
        files.store(record)
        assert reopen(tmp_path) == record
    files.close()


def test_a_torn_write_leaves_the_record_before_it(tmp_path: Path) -> None:
    """Cut or garble the newer slot anywhere: the older one, complete, is what counts."""
    files = HardStateFiles(tmp_path)
    files.create(FIRST)
    before = replace(FIRST, term=1, voted_for=1)
    files.store(before)
    files.store(replace(FIRST, term=2, voted_for=2))
    files.close()
    newer = tmp_path / "hard.1"
    whole = newer.read_bytes()
    for cut in range(0, 96, 7):
        newer.write_bytes(whole[:cut])
        assert reopen(tmp_path) == before
        garbled = bytearray(whole)
        garbled[cut] ^= 0x40
        newer.write_bytes(garbled)
        assert reopen(tmp_path) == before


def test_two_unreadable_slots_are_refused_with_the_remedy(tmp_path: Path) -> None:
    """A node that does not know its vote must not vote."""
    files = HardStateFiles(tmp_path)
    files.create(FIRST)
    files.close()
    for name in ("hard.0", "hard.1"):
        (tmp_path / name).write_bytes(b"\0" * 4096)
    with pytest.raises(Corrupt, match="add it under a new id"):
        reopen(tmp_path)
