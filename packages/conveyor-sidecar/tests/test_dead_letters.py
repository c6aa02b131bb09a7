"""Dead letters on real files: durable, bounded, readable after every kind of damage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conveyor_sidecar.dead_letters import (
    Damage,
    DeadLetter,
    DeadLetterLimits,
    DeadLetterStore,
    encode_entry,
    folder_name,
    read_dead_letters,
    segments,
)
from conveyor_sidecar.errors import DeadLetterError, DeadLettersFullError

NOW = 2_000_000_000_000_000  # far in the future: nothing is young enough to stay by accident


def letter(number: int, record: bytes = b"\x0a\x03abc") -> DeadLetter:
    return DeadLetter(
        pipeline="flights",
        stage="enrich",
        reason=f"carrier {number} ist unbekannt ✈",
        at_ms=1_700_000_000_000 + number,
        attempts=5,
        source_stage="flights",
        partition="7",
        ordinal=number,
        path=2**64 - 1,
        record=record,
    )


def read(directory: Path) -> list[DeadLetter | Damage]:
    return list(read_dead_letters(directory / "flights"))


@pytest.mark.asyncio
async def test_letters_come_back_as_they_were_stored_in_order(tmp_path: Path) -> None:
    """Everything that was stored is read back unchanged, across several appends."""
    store = DeadLetterStore(tmp_path)
    letters = [letter(number, bytes([number]) * number) for number in range(6)]
    await store.append("flights", letters[:2], now_ms=0)
    await store.append("flights", letters[2:], now_ms=0)
    assert read(tmp_path) == letters
    assert store.statistics()["stored_total"] == 6
    await store.close()


@pytest.mark.asyncio
async def test_a_torn_tail_is_cut_and_later_letters_follow(tmp_path: Path) -> None:
    """A crash in the middle of an append loses only what was never reported as stored."""
    store = DeadLetterStore(tmp_path)
    await store.append("flights", [letter(1), letter(2)], now_ms=0)
    await store.close()
    (segment,) = segments(tmp_path / "flights")
    with segment.open("ab") as handle:
        handle.write(encode_entry(letter(3))[:-4])
    assert isinstance(read(tmp_path)[-1], Damage)

    again = DeadLetterStore(tmp_path)
    await again.append("flights", [letter(4)], now_ms=0)
    await again.close()
    assert read(tmp_path) == [letter(1), letter(2), letter(4)]


@pytest.mark.asyncio
async def test_damage_is_named_and_the_next_segment_is_read(tmp_path: Path) -> None:
    """A flipped byte costs the rest of its segment, says where, and nothing else."""
    for number in (1, 2):
        store = DeadLetterStore(tmp_path)
        await store.append("flights", [letter(number)], now_ms=0)
        await store.close()
    first, _ = segments(tmp_path / "flights")
    blob = bytearray(first.read_bytes())
    blob[30] ^= 1
    first.write_bytes(blob)
    damage, second = read(tmp_path)
    assert damage == Damage(first, 0, "checksum does not match")
    assert second == letter(2)


@pytest.mark.asyncio
async def test_a_full_store_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    """At the bound nothing is thrown away and nothing is written: the caller keeps the records."""
    store = DeadLetterStore(tmp_path)
    limits = DeadLetterLimits(bytes_max=len(encode_entry(letter(1))) + 10, keep_ms=2 * NOW)
    await store.append("flights", [letter(1)], now_ms=NOW, limits=limits)
    with pytest.raises(DeadLettersFullError, match="fill their"):
        await store.append("flights", [letter(2)], now_ms=NOW, limits=limits)
    await store.append("other", [letter(3)], now_ms=NOW, limits=limits)
    assert read(tmp_path) == [letter(1)]
    await store.close()


@pytest.mark.asyncio
async def test_old_segments_go_by_age_and_are_counted(tmp_path: Path) -> None:
    """Age alone removes letters, a whole closed segment at a time."""
    store = DeadLetterStore(tmp_path)
    await store.append("flights", [letter(1)], now_ms=0)
    await store.close()
    (segment,) = segments(tmp_path / "flights")
    os.utime(segment, (1_000, 1_000))
    again = DeadLetterStore(tmp_path)
    limits = DeadLetterLimits(keep_ms=1_000)
    await again.append("flights", [letter(2)], now_ms=1_002_500, limits=limits)
    assert read(tmp_path) == [letter(2)]
    assert again.statistics()["expired_segments_total"] == 1
    await again.close()


@pytest.mark.asyncio
async def test_a_failed_fsync_is_an_error_and_leaves_no_half_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk did not confirm is not stored; the next append stands on clean ground."""
    store = DeadLetterStore(tmp_path)
    await store.append("flights", [letter(1)], now_ms=0)
    real = os.fsync

    def broken(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(DeadLetterError, match="No space left"):
        await store.append("flights", [letter(2)], now_ms=0)
    monkeypatch.setattr(os, "fsync", real)
    await store.append("flights", [letter(3)], now_ms=0)
    assert read(tmp_path) == [letter(1), letter(3)]
    await store.close()


def test_folder_names_are_flat() -> None:
    """A namespaced pipeline has one folder, not a path."""
    assert folder_name("team/flights") == "team~flights"
