"""A transform or a sink on a bench: calls, failures, garbage, dead letters, dedup."""

import pytest

from conveyor_sidecar.core.effects import CallService, CancelCall, StoreDeadLetter
from conveyor_sidecar.core.events import (
    CallFailed,
    CallFailureKind,
    CallFinished,
    DeadLetterStored,
    Failure,
    FailureKind,
    ServiceDown,
    Tick,
)
from conveyor_sidecar.core.messages import Done, LaneCredit, LaneMessage
from conveyor_sidecar.testing.harness import Harness, outputs_of

RETRY, REJECT, BUSY = FailureKind.RETRY, FailureKind.REJECT, FailureKind.BUSY


def transform(**options: object) -> tuple[Harness, str]:
    """A transform between two other sidecars, its lanes open on both sides."""
    bench = Harness(linger_ms=0)
    bench.services_up("t", concurrency=2)
    runs = {"src": "up", "t": "me", "k": "down"}
    bench.table("src>t>k", runs, **options)
    link = bench.link_up()
    bench.hello("src>t")
    return bench, link


def sink() -> Harness:
    """A sink whose producer is another sidecar."""
    bench = Harness()
    bench.services_up("k", concurrency=2)
    bench.table("src>k", {"src": "up", "k": "me"})
    bench.hello("src>k")
    return bench


def fail(bench: Harness, *failures: Failure) -> None:
    bench.do(CallFinished(bench.one(CallService).call_id, None, failures))


def test_done_goes_home_only_when_the_outputs_are_done() -> None:
    """R1 over a hop: received and processed is not done."""
    bench, link = transform()
    bench.frame(1, "a", "b")
    bench.do(CallFinished(bench.one(CallService).call_id, outputs_of(("A", 0), ("B", 1))))
    assert bench.said(link).data[0].body == b"AB"
    assert not bench.said("in").done
    bench.hear(link, LaneMessage(done=[Done(1, 1)]))
    assert bench.said("in").done == [Done(1, 1)]


def test_a_frame_that_is_filtered_altogether_is_done_at_once() -> None:
    """Filtered is an end, and it is counted."""
    bench, _ = transform()
    bench.frame(1, "a", "b")
    bench.do(CallFinished(bench.one(CallService).call_id, outputs_of()))
    assert bench.said("in").done == [Done(1, 1)]
    assert bench.engine.statistics().stages["p", "t"].filtered == 2


def test_what_is_open_is_told_with_its_size_and_age() -> None:
    """Whoever asks a stage that is stuck learns what it holds and since when."""
    bench, link = transform()
    bench.frame(1, "ab", "c")
    call = bench.one(CallService)
    began = bench.engine.statistics().now_ms
    bench.do(Tick(), after_ms=700)
    now = bench.engine.statistics(began + 1_000)
    held = now.open["p", "t"]
    assert (held.records, held.bytes, now.now_ms - (held.since_ms or 0)) == (2, 3, 1_000)
    bench.do(CallFinished(call.call_id, outputs_of(("A", 0), ("B", 1))))
    assert bench.engine.statistics().open["p", "t"].records == 2
    bench.hear(link, LaneMessage(done=[Done(1, 1)]))
    held = bench.engine.statistics().open["p", "t"]
    assert (held.records, held.bytes, held.since_ms) == (0, 0, None)


def test_time_without_credit_is_counted() -> None:
    """Outputs that no consumer takes are the sign of a slow consumer, and not of linger."""
    bench = Harness(linger_ms=0)
    bench.services_up("t")
    bench.table("src>t>k", {"src": "up", "t": "me", "k": "down"})
    link = bench.link_up(records=0, size=0)
    bench.hello("src>t")
    bench.frame(1, "a")
    bench.do(CallFinished(bench.one(CallService).call_id, outputs_of(("A", 0))))
    began = bench.engine.statistics().now_ms
    assert bench.engine.statistics(began + 300).stages["p", "t"].credit_wait_ms == 300
    bench.hear(link, LaneMessage(credits=[LaneCredit(1, 10, 1_000)]), after_ms=500)
    assert bench.said(link).data
    later = bench.engine.statistics(began + 10_000)
    assert later.stages["p", "t"].credit_wait_ms == 500


def test_split_outputs_have_paths_of_their_own() -> None:
    """Two outputs of one parent are told apart; the offsets stay the parent's."""
    bench, link = transform()
    bench.frame(1, "a", "b")
    outputs = outputs_of(("A", 1), ("B", 1), ("C", 0))
    bench.do(CallFinished(bench.one(CallService).call_id, outputs))
    frame = bench.said(link).data[0]
    assert list(frame.offsets) == [1, 1, 0]
    first, second, other = frame.paths
    assert first != second
    assert first == other


def test_fan_out_waits_for_all_branches() -> None:
    """DONE of one branch is not DONE."""
    bench = Harness(linger_ms=0)
    bench.services_up("t")
    runs = {"src": "up", "t": "me", "k": "down", "l": "down"}
    bench.table("src>t>k,t>l", runs)
    link = bench.link_up()
    bench.hello("src>t")
    bench.frame(1, "a")
    bench.do(CallFinished(bench.one(CallService).call_id, outputs_of(("A", 0))))
    first, second = bench.said(link).data
    bench.hear(link, LaneMessage(done=[Done(first.lane, 1)]))
    assert not bench.said("in").done
    bench.hear(link, LaneMessage(done=[Done(second.lane, 1)]))
    assert bench.said("in").done == [Done(1, 1)]


def test_a_partly_failed_batch_is_split() -> None:
    """What was written ends; the rest is tried again alone, with the next attempt."""
    bench = sink()
    bench.frame(1, "a", "b", "c")
    fail(bench, Failure(1, RETRY, "deadlock"))
    assert not bench.got(CallService)
    bench.do(Tick(), after_ms=10)
    again = bench.one(CallService)
    assert (again.frame.body, again.attempt) == (b"b", 2)
    bench.do(CallFinished(again.call_id))
    assert bench.said("in").done == [Done(1, 1)]


def test_attempts_exhausted_end_as_a_dead_letter_with_the_reason() -> None:
    """Three attempts, then reason, detail, attempts and the original bytes on disk, then DONE."""
    bench = sink()
    bench.frame(1, "poison")
    for _ in range(2):
        fail(bench, Failure(0, RETRY, "no"))
        bench.do(Tick(), after_ms=100)
    fail(bench, Failure(0, RETRY, "constraint", "trace"))
    letter = bench.one(StoreDeadLetter)
    assert (letter.frame.body, letter.attempts) == (b"poison", 3)
    assert (letter.failures[0].reason, letter.failures[0].detail) == ("constraint", "trace")
    assert not bench.said("in").done
    bench.do(DeadLetterStored(letter.letter_id))
    assert bench.said("in").done == [Done(1, 1)]


def test_a_rejected_record_is_never_tried_again() -> None:
    """REJECT goes to the dead letters at the first attempt, each with its own reason."""
    bench = sink()
    bench.frame(1, "a", "b", "c")
    fail(bench, Failure(2, REJECT, "late"), Failure(0, REJECT, "early"))
    letter = bench.one(StoreDeadLetter)
    assert letter.frame.body == b"ac"
    assert [(f.index, f.reason) for f in letter.failures] == [(0, "early"), (1, "late")]
    assert bench.engine.statistics().stages["p", "k"].written == 1


def test_busy_does_not_count_as_an_attempt() -> None:
    """A busy target may take as long as it wants."""
    bench = sink()
    bench.frame(1, "a")
    for _ in range(20):
        fail(bench, Failure(0, BUSY, "throttled"))
        assert not bench.got(StoreDeadLetter)
        bench.do(Tick(), after_ms=20_000)
        assert bench.one(CallService).attempt == 1


def test_a_service_that_never_returns_is_given_up_and_tried_again() -> None:
    """The deadline is the engine's own; a late answer is ignored."""
    bench = sink()
    bench.frame(1, "a")
    first = bench.one(CallService)
    bench.do(Tick(), after_ms=31_000)
    assert bench.one(CancelCall).call_id == first.call_id
    bench.do(Tick(), after_ms=100)
    again = bench.one(CallService)
    assert again.attempt == 2
    bench.do(CallFinished(first.call_id))
    assert not bench.said("in").done


def test_one_poisonous_record_takes_no_other_with_it() -> None:
    """Whole calls that fail are split until the culprit stands alone."""
    bench = sink()
    bench.frame(1, *"abcdefghij")
    calls, letters, written = [bench.one(CallService)], [], b""
    while calls:
        call = calls.pop(0)
        if b"g" in call.frame.body:
            bench.do(CallFailed(call.call_id, CallFailureKind.LOST, "the process died"))
        else:
            written += call.frame.body
            bench.do(CallFinished(call.call_id))
        calls += bench.got(CallService)
        letters += bench.got(StoreDeadLetter)
        if not calls:
            bench.do(Tick(), after_ms=1_000)
            calls += bench.got(CallService)
    assert sorted(written) == sorted(b"abcdefhij")
    (letter,) = letters
    assert (letter.frame.body, letter.attempts) == (b"g", 3)
    assert letter.failures[0].reason == "the process died"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (outputs_of(("A", 5)), "names record 5 as its parent"),
        (None, "what became of its records"),
    ],
)
def test_garbage_ends_as_a_dead_letter_with_a_clear_reason(answer: object, text: str) -> None:
    """Nothing of a broken answer is used; after the attempts the letter says what was wrong."""
    bench, _ = transform()
    bench.frame(1, "a")
    for _ in range(3):
        bench.do(CallFinished(bench.one(CallService).call_id, answer))
        assert not bench.said("in").done
        letters = bench.got(StoreDeadLetter)
        if not letters:
            bench.do(Tick(), after_ms=100)
    assert text in letters[0].failures[0].reason
    assert "broke the contract" in letters[0].failures[0].reason


def test_nothing_is_called_while_the_service_is_down() -> None:
    """Records wait; the refusal of an unreachable service does not count."""
    bench = sink()
    bench.frame(1, "a")
    call = bench.one(CallService)
    bench.do(ServiceDown("me/k"))
    bench.do(CallFailed(call.call_id, CallFailureKind.UNREACHABLE, "refused"))
    bench.do(Tick(), after_ms=60_000)
    assert not bench.got(CallService)
    bench.services_up("k")
    assert bench.one(CallService).attempt == 1


def test_waiting_frames_are_merged_up_to_the_batch() -> None:
    """A busy service gets what came together in one call; DONE is said for every frame."""
    bench = sink()
    for sequence in range(1, 5):
        bench.frame(sequence, f"r{sequence}", offsets=(sequence,))
        if sequence == 1:
            first = bench.one(CallService)
        if sequence == 2:
            second = bench.one(CallService)
    bench.do(CallFinished(first.call_id))
    merged = bench.one(CallService)
    assert merged.frame.body == b"r3r4"
    bench.do(CallFinished(second.call_id))
    bench.do(CallFinished(merged.call_id))
    assert bench.said("in").done == [Done(1, 4)]


def test_a_repeated_record_at_a_sink_is_written_once_and_waits() -> None:
    """R4 and R5 over two lanes: written once; the repetition ends when the first has."""
    bench = sink()
    bench.frame(1, "a", "b", offsets=(1, 2))
    first = bench.one(CallService)
    bench.hello("src>k", link="in2", producer=1, boot="other-boot")
    bench.frame(1, "b", offsets=(2,), link="in2")
    assert not bench.got(CallService)
    assert not bench.said("in2").done
    bench.do(CallFinished(first.call_id))
    assert bench.said("in2").done == [Done(1, 1)]
    bench.frame(2, "a", offsets=(1,), link="in2")
    assert bench.said("in2").done == [Done(1, 2)]
    assert bench.engine.statistics().stages["p", "k"].duplicates == 2


def test_credit_stops_when_the_service_is_slow() -> None:
    """Bounds hold: without an answer no more is promised than the stage may hold."""
    bench = Harness(stage_records_max=8, frame_records=2)
    bench.services_up("k")
    bench.table("src>k", {"src": "up", "k": "me"})
    answer = bench.hello("src>k")
    assert answer.credit is not None
    limit = answer.credit.records_limit
    sequence = sent = 0
    while sent < limit:
        sequence += 1
        bench.frame(sequence, "x", "y", offsets=(sent, sent + 1))
        sent += 2
        for credit in bench.said("in").credits:
            limit = credit.records_limit
    assert sent <= 8
