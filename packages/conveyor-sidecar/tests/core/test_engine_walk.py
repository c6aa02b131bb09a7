"""The engine alone on a bench: the straight walk of a batch, and its way home."""

import pytest

from conveyor_sidecar.core.effects import (
    CallService,
    CommitPositions,
    Drained,
    EndedUpTo,
    GrantSourceCredit,
    OpenLink,
    OpenPartition,
    OpenSource,
    PartitionCompleted,
    RevokePartition,
    StoreDeadLetter,
)
from conveyor_sidecar.core.events import (
    CallFinished,
    DeadLetterFailed,
    DeadLetterStored,
    Drain,
    Oversize,
    PositionRefusal,
    PositionsCommitted,
    PositionsFailed,
    SourceBatchRead,
    SourceFailed,
    SourceFinished,
    SourceRevoked,
    Tick,
)
from conveyor_sidecar.core.messages import Done, LaneMessage
from conveyor_sidecar.core.routes import PartitionKey, SourcePartition
from conveyor_sidecar.testing.harness import Harness, outputs_of, records_of

MINE = SourcePartition("src", 0, "0", term=5)
KEY = PartitionKey("p", "src", "0")


def reading(**options: object) -> tuple[Harness, str]:
    """A source sidecar with an open source and an accepted lane to another sidecar."""
    bench = Harness(linger_ms=0, **options)
    bench.services_up("src")
    bench.table("src>k", {"src": "me", "k": "other"}, partitions=(MINE,))
    bench.open_source()
    return bench, bench.link_up()


def done(bench: Harness, link: str, low: int, lane: int = 1, after_ms: int = 0) -> None:
    bench.hear(link, LaneMessage(done=[Done(lane, low)]), after_ms)


def test_a_source_is_opened_where_the_table_says() -> None:
    """Stream, partition with term and position, credit: in this order."""
    bench = Harness()
    bench.services_up("src")
    mine = SourcePartition("src", 0, "0", term=5, resume=b"pos", from_start=False, next_ordinal=9)
    bench.table("src>k", {"src": "me", "k": "other"}, partitions=(mine,))
    kinds = [type(effect) for effect in bench.effects]
    assert kinds.index(OpenSource) < kinds.index(OpenPartition) < kinds.index(GrantSourceCredit)
    opened = bench.one(OpenPartition)
    assert (opened.resume, opened.from_start, opened.term) == (b"pos", False, 5)


def test_a_batch_goes_out_and_its_done_moves_the_position() -> None:
    """Source to lane; DONE back; the position is committed, then the source may forget."""
    bench, link = reading()
    bench.read("a", "bb", position=b"2")
    frame = bench.said(link).data[0]
    assert (frame.body, frame.sequence) == (b"abb", 1)
    assert list(frame.offsets) == [0, 1]
    assert frame.origins[0].term == 5
    assert not bench.got(CommitPositions)
    done(bench, link, 1)
    commit = bench.one(CommitPositions)
    (position,) = commit.positions
    assert (position.ordinal, position.position, position.term) == (2, b"2", 5)
    bench.do(PositionsCommitted(commit.request_id))
    assert bench.one(EndedUpTo).position == b"2"


def test_a_later_batch_does_not_move_the_position_alone() -> None:
    """R2: the second batch is done, the first is not; nothing is committed."""
    bench, link = reading()
    bench.read("a", position=b"1")
    bench.read("b", position=b"2")
    bench.do(Tick(), after_ms=10)
    bench.hear(link, LaneMessage(done=[Done(1, 0, [(2, 2)])]))
    assert not bench.got(CommitPositions)
    done(bench, link, 2)
    assert bench.one(CommitPositions).positions[0].position == b"2"


def test_commits_are_spaced_and_repeated_until_decided() -> None:
    """One request at a time; one without a decision is asked again with what has ended since."""
    bench, link = reading()
    bench.read("a", position=b"1")
    done(bench, link, 1)
    request = bench.one(CommitPositions).request_id
    bench.read("b", position=b"2")
    done(bench, link, 2, after_ms=1_000)
    assert not bench.got(CommitPositions)
    bench.do(PositionsFailed(request, "no leader"))
    assert not bench.got(CommitPositions)
    bench.do(Tick(), after_ms=300)
    again = bench.one(CommitPositions)
    assert again.positions[0].position == b"2"
    bench.do(PositionsCommitted(request))
    assert not bench.got(EndedUpTo)


def test_a_refused_commit_fences_the_partition() -> None:
    """R6: another owner has it; reading stops and what is still under way moves nothing."""
    bench, link = reading()
    bench.read("a", position=b"1")
    done(bench, link, 1)
    request = bench.one(CommitPositions).request_id
    bench.do(PositionsCommitted(request, (PositionRefusal(KEY, 6),)))
    assert bench.one(RevokePartition).partition == "0"
    bench.read("b", position=b"2")
    assert not bench.said().data
    assert bench.engine.statistics().records == 0
    bench.table("src>k", {"src": "me", "k": "other"}, revision=2, partitions=(MINE,))
    bench.do(SourceRevoked(bench.source, bench.stream, "0"))
    assert not bench.got(OpenPartition)


def test_a_finished_partition_is_committed_as_finished_and_completed() -> None:
    """The end is recorded when everything before it has ended."""
    bench, link = reading()
    bench.read("a", position=b"1")
    bench.do(SourceFinished(bench.source, bench.stream, "0"))
    assert not bench.got(CommitPositions)
    done(bench, link, 1)
    commit = bench.one(CommitPositions)
    assert commit.positions[0].finished
    bench.do(PositionsCommitted(commit.request_id))
    assert bench.one(PartitionCompleted).partition == KEY


def test_a_broken_source_stream_is_read_on_where_it_was() -> None:
    """Nothing that arrived is read again, nothing that did not is lost."""
    bench, _ = reading()
    bench.read("a", position=b"1")
    bench.do(SourceFailed(bench.source, bench.stream, "broken"))
    bench.do(Tick(), after_ms=5_000)
    bench.open_source()
    opened = bench.one(OpenPartition)
    assert (opened.resume, opened.from_start, opened.term) == (b"1", False, 5)
    bench.read("b", position=b"2")
    assert list(bench.said().data[0].offsets) == [1]


def test_a_named_record_is_a_dead_letter_with_its_ordinal() -> None:
    """A record above the limit takes its place in the order and ends when its letter is stored."""
    bench, link = reading()
    body, lengths = records_of("a", "b")
    bench.do(
        SourceBatchRead(
            bench.source,
            bench.stream,
            "0",
            body,
            lengths,
            b"3",
            oversize=(Oversize(1, 5_000_000, b"digest"),),
        )
    )
    assert list(bench.said(link).data[0].offsets) == [0, 2]
    letter = bench.one(StoreDeadLetter)
    assert letter.tombstone is not None
    assert "record 1 of partition '0' has 5000000 bytes" in letter.failures[0].reason
    done(bench, link, 1)
    assert not bench.got(CommitPositions)
    bench.do(DeadLetterFailed(letter.letter_id, "disk full"))
    bench.do(Tick(), after_ms=2_000)
    assert bench.one(StoreDeadLetter) is letter
    bench.do(DeadLetterStored(letter.letter_id))
    assert bench.one(CommitPositions).positions[0].ordinal == 3


def test_a_record_above_the_limit_is_buried_with_its_bytes() -> None:
    """A source that does not know the limit loses nothing but the delivery."""
    bench, _ = reading(record_bytes_max=10)
    bench.read("a", "b" * 11, position=b"2")
    assert bench.said().data[0].body == b"a"
    letter = bench.one(StoreDeadLetter)
    assert letter.frame.body == b"b" * 11
    assert "record of 11 bytes; the limit is 10" in letter.failures[0].reason


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ({"position": b""}, "a position has 0 bytes"),
        ({"position": b"x" * 1_025}, "a position has 1025 bytes"),
        ({"lengths": b"\x01\x00\x00\x00"}, "lengths add up to 1"),
        ({"oversize": (Oversize(7, 1),)}, "a named record stands outside"),
    ],
)
def test_a_batch_that_breaks_the_contract_closes_the_stream(batch: dict, text: str) -> None:
    """Nothing of it is used; the note says what was wrong; the position stays."""
    bench, _ = reading()
    body, lengths = records_of("a", "b")
    fields = {"position": b"1", "lengths": lengths, **batch}
    bench.do(SourceBatchRead(bench.source, bench.stream, "0", body, **fields))
    assert any(text in str(getattr(effect, "fields", "")) for effect in bench.effects)
    bench.do(Tick(), after_ms=5_000)
    assert bench.one(OpenPartition).from_start


def test_a_replay_in_another_order_is_told_where_offsets_are_promised() -> None:
    """Stable offsets only grow; a source that breaks its promise is closed with both numbers."""
    bench = Harness()
    bench.services_up("src")
    bench.table("src>k", {"src": "me", "k": "other"}, partitions=(MINE,), stable_offsets=True)
    bench.open_source()
    body, lengths = records_of("a", "b")
    offsets = (7).to_bytes(8, "little") + (5).to_bytes(8, "little")
    bench.do(SourceBatchRead(bench.source, bench.stream, "0", body, lengths, b"8" * 8, offsets))
    assert any("offset 5 came after 7" in str(getattr(e, "fields", "")) for e in bench.effects)


def test_local_lanes_go_through_the_same_machinery() -> None:
    """Source, transform and sink on one sidecar: no link, the same custody."""
    bench = Harness()
    bench.services_up("src", "t", "k")
    bench.table("src>t>k", {"src": "me", "t": "me", "k": "me"}, partitions=(MINE,))
    assert not bench.got(OpenLink)
    bench.open_source()
    bench.read("a", "b", position=b"2")
    call = bench.one(CallService)
    assert (call.instance.stage, call.frame.body, call.attempt) == ("t", b"ab", 1)
    bench.do(CallFinished(call.call_id, outputs_of(("A", 0), ("B", 1))))
    write = bench.one(CallService)
    assert (write.instance.stage, write.frame.body) == ("k", b"AB")
    assert write.frame.lineage() != call.frame.lineage()
    bench.do(CallFinished(write.call_id))
    assert bench.one(CommitPositions).positions[0].position == b"2"
    now = bench.engine.statistics()
    assert (now.records, now.bytes) == (0, 0)
    counters = now.stages
    assert counters["p", "src"].read == 2
    assert counters["p", "t"].emitted == 2
    assert counters["p", "k"].written == 2


def test_a_drain_ends_what_is_open_then_says_so() -> None:
    """Stop reading, end, commit, and only then `Drained`."""
    bench, link = reading()
    bench.read("a", position=b"1")
    bench.do(Drain())
    assert bench.one(RevokePartition).partition == "0"
    assert not bench.got(Drained)
    bench.do(SourceRevoked(bench.source, bench.stream, "0"))
    done(bench, link, 1)
    commit = bench.one(CommitPositions)
    assert not bench.got(Drained)
    bench.do(PositionsCommitted(commit.request_id))
    assert bench.got(Drained)


def test_an_idle_engine_drains_at_once() -> None:
    """Nothing is open, nothing is waited for."""
    bench = Harness()
    bench.do(Drain())
    assert bench.got(Drained)
