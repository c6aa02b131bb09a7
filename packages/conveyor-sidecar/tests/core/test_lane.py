"""The two halves of a lane, and R4 on them."""

import pytest

from conveyor_sidecar.core.buffer import Budget
from conveyor_sidecar.core.credit import Credit
from conveyor_sidecar.core.delivery import Piece
from conveyor_sidecar.core.lane import LaneConsumer, LaneName, LaneProducer, Receipt
from conveyor_sidecar.core.messages import Done, LaneCredit
from conveyor_sidecar.core.options import EngineOptions
from conveyor_sidecar.core.routes import Instance, InstanceKey
from conveyor_sidecar.testing.harness import frame_of

NAME = LaneName("p", 1, "a>b", InstanceKey("p", "a", 0), InstanceKey("p", "b", 0))
TARGET = Instance("b", 0, 4, "peer", "peer:1", "peer/b")


class Owner:
    """Hears of ends."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    def frame_ended(self, lane: LaneConsumer, receipt: Receipt) -> None:
        self.ended.append(receipt.sequence)


def consumer() -> tuple[LaneConsumer, Owner]:
    owner = Owner()
    credit = Credit(EngineOptions("me", "boot"), Budget(1_000, 10**6, 0.8), 0)
    return LaneConsumer(owner, NAME, credit, boot_id="up", number=1, producer_term=3), owner


def producer(frames: int) -> LaneProducer:
    lane = LaneProducer(9, NAME, 3, TARGET)
    lane.ready = True
    lane.grant(LaneCredit(9, 100, 10_000))
    for number in range(frames):
        lane.keep(Piece(frame_of(f"r{number}"), ()))
    return lane


def test_sequences_have_no_gaps_and_every_frame_is_kept() -> None:
    """Custody: a frame that was sent is there until DONE."""
    lane = producer(3)
    assert list(lane.retained) == [1, 2, 3]
    assert [piece.frame.sequence for piece in lane.retained.values()] == [1, 2, 3]
    assert {piece.frame.producer_term for piece in lane.retained.values()} == {3}


def test_done_by_mark_and_ranges_releases_exactly_these() -> None:
    """DONE is cumulative and selective, and repeating it changes nothing."""
    lane = producer(9)
    done = Done(9, 2, [(4, 5), (8, 8)])
    assert [piece.frame.sequence for piece in lane.take_done(done)] == [1, 2, 4, 5, 8]
    assert lane.take_done(done) == []
    assert list(lane.retained) == [3, 6, 7, 9]
    assert lane.first_open == 3
    assert lane.outstanding_records == 4


@pytest.mark.parametrize("done", [Done(9, 4), Done(9, 0, [(1, 4)]), Done(9, 0, [(1, 2**63)])])
def test_what_was_never_sent_cannot_be_done(done: Done) -> None:
    """A consumer that lost its mind does not make its producer forget anything."""
    lane = producer(3)
    assert lane.take_done(done) == []
    assert len(lane.retained) == 3


def test_a_resume_sends_what_the_consumer_does_not_hold() -> None:
    """What it holds is not sent again; what it asks for must be kept."""
    lane = producer(4)
    resent = lane.to_resend(3)
    assert resent is not None
    assert [piece.frame.sequence for piece in resent] == [3, 4]
    assert lane.to_resend(5) == []


def test_a_consumer_without_memory_is_recognised() -> None:
    """It wants a frame that was done before, or one that was never sent."""
    lane = producer(4)
    lane.take_done(Done(9, 0, [(2, 2)]))
    assert lane.to_resend(1) is None
    assert lane.to_resend(6) is None


def test_an_older_grant_takes_nothing_back() -> None:
    """Limits are absolute; a late grant is harmless."""
    lane = producer(0)
    lane.grant(LaneCredit(9, 50, 5_000))
    assert lane.records_limit == 100
    assert lane.may_send


def test_a_repeated_open_frame_is_ignored() -> None:
    """R4: the same frame while it is open is neither processed nor counted again."""
    lane, _ = consumer()
    assert lane.accept(1, 5, 50) is not None
    assert lane.accept(1, 5, 50) is None
    assert not lane.repeat
    assert lane.credit.received_records == 5


def test_a_repeated_ended_frame_is_done_again() -> None:
    """R4: its producer did not hear that it has ended."""
    lane, _ = consumer()
    receipt = lane.accept(1, 5, 50)
    assert receipt is not None
    receipt.release()
    assert lane.accept(1, 5, 50) is None
    assert lane.repeat
    assert lane.done() == Done(1, 1, [])


def test_done_says_low_mark_and_ranges() -> None:
    """Frames end in any order; the mark moves when a gap closes."""
    lane, owner = consumer()
    receipts = [lane.accept(sequence, 1, 1) for sequence in range(1, 7)]
    for number in (1, 2, 4):
        receipt = receipts[number]
        assert receipt is not None
        receipt.release()
    assert owner.ended == [2, 3, 5]
    assert lane.done() == Done(1, 0, [(2, 3), (5, 5)])
    first = receipts[0]
    assert first is not None
    first.release()
    assert lane.done() == Done(1, 3, [(5, 5)])


def test_a_resume_skips_what_the_producer_gave_up() -> None:
    """Frames that went elsewhere leave no gap, and are no longer waited for."""
    lane, _ = consumer()
    kept = lane.accept(1, 1, 1)
    assert lane.resume(4) == [kept]
    assert lane.next_sequence == 4
    assert lane.done().low == 3
    assert kept is not None
    kept.release()
    assert lane.done().low == 3
