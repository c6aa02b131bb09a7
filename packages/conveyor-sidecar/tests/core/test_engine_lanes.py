"""Lanes on a bench: broken links, other processes, newer owners, tables that change."""

from dataclasses import replace

import pytest

from conveyor_sdk.carrier.frame import Frame, write_u64
from conveyor_sidecar.core.effects import CallService, CloseLink, CommitPositions, OpenLink
from conveyor_sidecar.core.events import (
    CallFinished,
    LinkDown,
    LinkUp,
    SourceBatchRead,
    TableChanged,
    Tick,
)
from conveyor_sidecar.core.messages import (
    Done,
    End,
    Fenced,
    HelloAck,
    LaneAccept,
    LaneCredit,
    LaneMessage,
    LaneStatus,
    StableMark,
)
from conveyor_sidecar.core.routes import SourcePartition, Table
from conveyor_sidecar.testing.harness import Harness, frame_of, outputs_of, records_of

MINE = SourcePartition("src", 0, "0", term=5)


def reading(runs: dict[str, str] | None = None, **options: object) -> Harness:
    """A source sidecar whose records go to other sidecars."""
    bench = Harness(linger_ms=0, **options)
    bench.services_up("src")
    bench.table("src>k", runs or {"src": "me", "k": "other"}, partitions=(MINE,))
    bench.open_source()
    return bench


def sink(**options: object) -> Harness:
    bench = Harness(**options)
    bench.services_up("k")
    bench.table("src>k", {"src": "up", "k": "me"})
    return bench


def test_a_broken_link_is_opened_again_and_resumed() -> None:
    """What the consumer holds is not sent again, what it does not is; sequences go on."""
    bench = reading()
    link = bench.link_up()
    bench.read("a", position=b"1")
    bench.read("b", position=b"2")
    bench.do(LinkDown(link))
    bench.do(Tick(), after_ms=100)
    again = bench.one(OpenLink).link
    assert again != link
    bench.do(LinkUp(again))
    hello = bench.said(again).hello
    assert hello is not None
    assert (hello.lanes[0].first_open_sequence, hello.lanes[0].next_sequence) == (1, 3)
    bench.accept(again, next_sequence=2)
    assert [frame.sequence for frame in bench.said(again).data] == [2]


def test_words_on_a_link_that_was_replaced_are_not_heard() -> None:
    """A late DONE of the old link is repeated on the new one; alone it changes nothing."""
    bench = reading()
    link = bench.link_up()
    bench.read("a", position=b"1")
    bench.do(LinkDown(link))
    bench.hear(link, LaneMessage(done=[Done(1, 1)]))
    assert not bench.got(CommitPositions)


def test_another_process_behind_the_address_gets_a_new_lane() -> None:
    """It remembers nothing: what is kept is framed again with the same lineage."""
    bench = reading()
    link = bench.link_up()
    bench.read("a", position=b"1")
    before = bench.said(link).data[0]
    bench.do(LinkDown(link))
    bench.do(Tick(), after_ms=100)
    again = bench.one(OpenLink).link
    bench.do(LinkUp(again))
    bench.accept(again, boot="another-boot")
    said = bench.said(again)
    assert said.hello is not None
    assert said.hello.lanes[0].lane == 2
    assert [end.lane for end in said.ends] == [1]
    bench.accept(again, boot="another-boot")
    frame = bench.said(again).data[0]
    assert (frame.lane, frame.sequence) == (2, 1)
    assert frame.lineage() == before.lineage()


def test_a_consumer_that_forgot_frames_gets_a_new_lane() -> None:
    """It wants what was done before: it cannot be the one that ended it."""
    bench = reading()
    link = bench.link_up()
    for number in range(3):
        bench.read(f"r{number}", position=b"p")
    bench.hear(link, LaneMessage(done=[Done(1, 0, [(2, 2)])]))
    bench.do(LinkDown(link))
    bench.do(Tick(), after_ms=100)
    again = bench.one(OpenLink).link
    bench.do(LinkUp(again))
    bench.accept(again, next_sequence=1)
    hello = bench.said(again).hello
    assert hello is not None
    bench.accept(again)
    assert b"".join(frame.body for frame in bench.said(again).data) == b"r0r2"


def test_a_gone_consumer_is_replaced_by_another_instance_at_once() -> None:
    """Connection refused: nobody waits for a resume; same lineage on another lane."""
    bench = reading({"src": "me", "k": "one", "k.1": "two"})
    links = {opened.peer: opened.link for opened in bench.got(OpenLink)}
    for link in links.values():
        bench.do(LinkUp(link))
        bench.accept(link)
    bench.read("a", position=b"1")
    sent = next(link for link in links.values() if bench.said(link).data)
    other = next(link for link in links.values() if link != sent)
    lineage = bench.said(sent).data[0].lineage()
    bench.do(LinkDown(sent, gone=True))
    assert [frame.lineage() for frame in bench.said(other).data] == [lineage]


def test_a_silent_consumer_is_replaced_after_the_resume_time() -> None:
    """A broken link may come back for a while; then its frames go elsewhere."""
    bench = reading({"src": "me", "k": "one", "k.1": "two"}, resume_ms=1_000)
    links = {opened.peer: opened.link for opened in bench.got(OpenLink)}
    for link in links.values():
        bench.do(LinkUp(link))
        bench.accept(link)
    bench.read("a", position=b"1")
    sent = next(link for link in links.values() if bench.said(link).data)
    other = next(link for link in links.values() if link != sent)
    bench.do(LinkDown(sent))
    assert not bench.said(other).data
    bench.do(Tick(), after_ms=1_000)
    assert len(bench.said(other).data) == 1


def test_a_reassigned_consumer_gets_what_was_kept() -> None:
    """The table moved it: the old lane ends, the new one begins with what is not done."""
    bench = reading()
    bench.link_up()
    bench.read("a", position=b"1")
    bench.table(
        "src>k",
        {"src": "me", "k": "third"},
        terms={"k": 2},
        revision=2,
        partitions=(MINE,),
    )
    link = bench.link_up()
    assert [frame.body for frame in bench.said(link).data] == [b"a"]


def test_records_wait_while_nobody_consumes() -> None:
    """Custody without a consumer: they go out when one is assigned."""
    bench = reading({"src": "me"})
    bench.read("a", position=b"1")
    assert not bench.said().data
    bench.table("src>k", {"src": "me", "k": "other"}, revision=2, partitions=(MINE,))
    link = bench.link_up()
    assert [frame.body for frame in bench.said(link).data] == [b"a"]


def test_without_credit_nothing_is_sent() -> None:
    """Credit is in records and bytes, absolute; one frame may overshoot."""
    bench = reading()
    link = bench.link_up(records=1, size=100)
    bench.read("aa", "bb", position=b"2")
    bench.read("c", position=b"3")
    assert not bench.said(link).data
    bench.hear(link, LaneMessage(credits=[LaneCredit(1, 3, 100)]))
    assert [frame.body for frame in bench.said(link).data] == [b"c"]


def test_a_busy_lane_lingers_and_merges() -> None:
    """On an idle lane records leave at once; on a busy one they wait for company."""
    bench = Harness(linger_ms=5)
    bench.services_up("src")
    bench.table("src>k", {"src": "me", "k": "other"}, partitions=(MINE,))
    bench.open_source()
    link = bench.link_up()
    bench.read("a", position=b"1")
    assert len(bench.said(link).data) == 1
    bench.read("b", position=b"2")
    bench.read("c", position=b"3")
    assert not bench.said(link).data
    bench.do(Tick(), after_ms=5)
    assert [frame.body for frame in bench.said(link).data] == [b"bc"]


def test_stable_marks_ride_ahead_of_the_next_frame() -> None:
    """What has ended is told downstream with the next data, once per lane."""
    bench = reading()
    link = bench.link_up()
    bench.read("a", "b", position=b"2")
    bench.hear(link, LaneMessage(done=[Done(1, 1)]))
    bench.read("c", position=b"3")
    (mark,) = bench.said(link).stable
    assert (mark.below, mark.origin.term) == (2, 5)
    bench.read("d", position=b"4")
    assert not bench.said(link).stable


def test_a_lane_is_accepted_under_the_very_terms_of_the_table() -> None:
    """Other terms or another version mean that somebody has an older table."""
    bench = sink()
    assert bench.hello("src>k").status is LaneStatus.OPEN
    assert bench.hello("src>k", lane=2, terms=(1, 2)).status is LaneStatus.NOT_MINE
    assert bench.hello("src>k", lane=3, version=2).status is LaneStatus.NOT_MINE
    assert bench.hello("src>nobody", lane=4).status is LaneStatus.NOT_MINE


def test_an_older_producer_is_fenced() -> None:
    """R6: whoever was replaced is told the newer term, at the hello and at every frame."""
    bench = sink()
    bench.hello("src>k", terms=(3, 1))
    answer = bench.hello("src>k", link="zombie", boot="old", terms=(2, 1))
    assert (answer.status, answer.newer_term) == (LaneStatus.FENCED, 3)
    frame = replace(frame_of("a"), lane=1, sequence=1, producer_term=2)
    bench.hear("in", LaneMessage(data=[frame]))
    assert bench.said("in").fenced == [Fenced(1, 3)]
    assert not bench.got(CallService)


def test_a_producer_that_the_table_replaced_is_fenced_at_its_next_frame() -> None:
    """It need not say hello again to learn it; its lane gives its credit back."""
    bench = sink()
    bench.hello("src>k")
    assert bench.engine.statistics().promised_records
    bench.table("src>k", {"src": "third", "k": "me"}, revision=2, terms={"src": 4})
    assert not bench.engine.statistics().promised_records
    bench.frame(1, "a")
    assert bench.said("in").fenced == [Fenced(1, 4)]
    assert not bench.got(CallService)


def test_a_producer_that_the_table_does_not_know_is_heard_while_it_speaks() -> None:
    """It may be newer than the table; when it is silent its credit is given back."""
    bench = sink()
    bench.hello("src>k", producer=7)
    bench.table("src>k", {"src": "up", "k": "me"}, revision=2)
    bench.frame(1, "a")
    assert bench.got(CallService)
    bench.do(LinkDown("in"))
    bench.table("src>k", {"src": "up", "k": "me"}, revision=3)
    assert not bench.engine.statistics().promised_records


def test_a_fenced_instance_is_dropped_until_a_newer_term() -> None:
    """The zombie stops; the same table does not revive it, a newer one does."""
    bench = reading()
    link = bench.link_up()
    bench.hear(link, LaneMessage(fenced=[Fenced(1, 9)]))
    assert not bench.engine.statistics().lanes
    runs = {"src": "me", "k": "other"}
    bench.table("src>k", runs, revision=2, partitions=(MINE,))
    assert not bench.engine.statistics().lanes
    bench.table("src>k", runs, revision=3, terms={"src": 10}, partitions=(MINE,))
    assert bench.engine.statistics().lanes


def test_a_refused_lane_is_asked_for_again() -> None:
    """NOT_MINE is no end: after a while, and at the next table, the producer asks again."""
    bench = reading()
    link = bench.one(OpenLink).link
    bench.do(LinkUp(link))
    refusal = HelloAck("peer", "boot", [LaneAccept(1, LaneStatus.NOT_MINE, table_revision=1)])
    bench.hear(link, LaneMessage(hello_ack=refusal))
    bench.do(Tick(), after_ms=5_000)
    assert bench.said(link).hello is not None
    bench.hear(link, LaneMessage(hello_ack=refusal))
    bench.table("src>k", {"src": "me", "k": "other"}, revision=3, partitions=(MINE,))
    assert bench.said(link).hello is not None


def test_a_missing_frame_closes_the_link_so_that_it_resumes() -> None:
    """A gap means that the link is broken, whatever it says."""
    bench = sink()
    bench.hello("src>k")
    bench.frame(2, "b")
    assert bench.one(CloseLink).link == "in"
    assert not bench.got(CallService)
    answer = bench.hello("src>k", link="in2")
    assert answer.next_sequence == 1


def test_a_repeated_frame_is_answered_by_its_state() -> None:
    """R4: open, nothing is said; ended, DONE is said again."""
    bench = sink()
    bench.hello("src>k")
    bench.frame(1, "a")
    call = bench.one(CallService)
    bench.frame(1, "a")
    assert not bench.effects
    bench.do(CallFinished(call.call_id))
    assert bench.said("in").done == [Done(1, 1)]
    bench.frame(1, "a")
    assert bench.said("in").done == [Done(1, 1)]


def test_a_consumer_resumes_a_lane_on_another_link() -> None:
    """What it holds is not wanted again; what ended meanwhile is in the answer."""
    bench = sink()
    bench.hello("src>k")
    bench.frame(1, "a")
    call = bench.one(CallService)
    bench.do(LinkDown("in"))
    bench.do(CallFinished(call.call_id))
    assert not bench.effects
    answer = bench.hello("src>k", link="in2")
    assert answer.next_sequence == 2
    assert answer.done == Done(1, 1)


def test_a_late_hello_of_a_broken_link_does_not_silence_the_lane() -> None:
    """Links overtake each other; when the old one breaks, the lane is answered on the new one."""
    bench = sink()
    bench.hello("src>k", link="new")
    bench.hello("src>k", link="old")
    bench.frame(1, "a", link="new")
    call = bench.one(CallService)
    bench.do(LinkDown("old"))
    assert bench.said("new").credits
    bench.do(CallFinished(call.call_id))
    assert bench.said("new").done == [Done(1, 1)]


def test_an_ended_lane_is_not_heard_any_more() -> None:
    """The producer gave it up: its frames are somebody else's."""
    bench = sink()
    bench.hello("src>k")
    bench.hear("in", LaneMessage(ends=[End(1, 0, "reassigned")]))
    bench.frame(1, "a")
    assert not bench.got(CallService)


def test_a_transform_does_not_work_on_what_was_given_up() -> None:
    """Its producer frames the records again for somebody else."""
    bench = Harness()
    bench.services_up("t")
    bench.table("src>t>k", {"src": "up", "t": "me"})
    bench.hello("src>t")
    bench.frame(1, "a")
    first = bench.one(CallService)
    bench.frame(2, "b", offsets=(2,))
    bench.hear("in", LaneMessage(ends=[End(1, 2, "reassigned")]))
    bench.do(CallFinished(first.call_id, outputs_of()))
    assert not bench.got(CallService)
    assert bench.engine.statistics().records == 0


def test_a_stable_mark_lets_a_sink_forget() -> None:
    """Below the mark everything counts as ended."""
    bench = sink()
    bench.hello("src>k")
    origin = frame_of("a").origins[0]
    bench.hear("in", LaneMessage(stable=[StableMark(origin, 10)]))
    bench.frame(1, "a", offsets=(9,))
    assert not bench.got(CallService)
    assert bench.said("in").done == [Done(1, 1)]


def test_a_keyed_edge_sends_a_key_always_to_one_instance() -> None:
    """The key decides, not the credit."""
    bench = reading({"src": "me", "k": "one", "k.1": "two"})
    links = [opened.link for opened in bench.got(OpenLink)]
    pipeline = bench.engine.table.pipelines["p"]
    edges = tuple(replace(edge, keyed=True) for edge in pipeline.edges)
    keyed = replace(pipeline, edges=edges, version=2)
    bench.do(TableChanged(Table(2, {"p": keyed})))
    bench.open_source()
    for link in links:
        bench.do(LinkUp(link))
        bench.accept(link)
    seen: dict[int, set[str]] = {}
    for number in range(6):
        names = [f"{key}{number}" for key in range(8)]
        body, lengths = records_of(*names)
        bench.do(
            SourceBatchRead(
                bench.source,
                bench.stream,
                "0",
                body,
                lengths,
                b"p",
                key_hashes=write_u64([key * 37 for key in range(8)]),
            )
        )
        for link in links:
            for frame in bench.said(link).data:
                hashes = frame.key_hashes
                assert hashes is not None
                for key in hashes:
                    seen.setdefault(key, set()).add(link)
    assert len(seen) == 8
    assert all(len(at) == 1 for at in seen.values())
    assert len(set.union(*seen.values())) == 2


def test_a_condition_takes_its_records_and_the_rest_is_counted() -> None:
    """What no edge takes has ended, and nobody needs to guess where it went."""

    def odd(frame: Frame) -> list[int]:
        return [place for place, offset in enumerate(frame.offsets) if offset % 2]

    bench = reading()
    link = bench.one(OpenLink).link
    pipeline = bench.engine.table.pipelines["p"]
    edges = tuple(replace(edge, condition=odd) for edge in pipeline.edges)
    bench.do(TableChanged(Table(2, {"p": replace(pipeline, edges=edges)})))
    bench.do(LinkUp(link))
    bench.accept(link)
    bench.read("a", "b", "c", position=b"3")
    assert [frame.body for frame in bench.said(link).data] == [b"b"]
    assert bench.engine.statistics().stages["p", "src"].unrouted == 2


def test_an_older_table_changes_nothing() -> None:
    """Tables are taken by revision."""
    bench = reading()
    assert bench.table("src>k", {"k": "me"}, revision=1) == []


def test_a_new_version_begins_anew_at_the_low_mark() -> None:
    """Everything of the old version is dropped; no ordinal is given twice under the same term."""
    bench = reading()
    link = bench.link_up()
    bench.read("a", position=b"1")
    bench.hear(link, LaneMessage(done=[Done(1, 1)]))
    bench.read("b", position=b"2")
    runs = {"src": "me", "k": "other"}
    bench.table("src>k", runs, revision=2, version=2, partitions=(MINE,))
    bench.open_source()
    opened = bench.effects
    assert any(getattr(effect, "resume", None) == b"1" for effect in opened)
    assert bench.engine.statistics().records == 0
    bench.accept(link)
    bench.read("b", position=b"2")
    (frame,) = bench.said(link).data
    assert list(frame.offsets) == [2]


@pytest.mark.parametrize("size", [700 * 1024, 300 * 1024])
def test_large_bundles_leave_before_the_end_of_the_turn(size: int) -> None:
    """No message grows without bound, however much becomes sendable at once."""
    bench = reading()
    link = bench.link_up(records=0, size=0)
    for number in range(4):
        bench.read("x" * size, position=bytes([number + 1]))
    bench.hear(link, LaneMessage(credits=[LaneCredit(1, 10**6, 10**9)]))
    bundles = [effect.message for effect in bench.effects if hasattr(effect, "message")]
    assert sum(len(bundle.data) for bundle in bundles) == 4
    assert max(sum(len(f.body) for f in bundle.data) for bundle in bundles) < 2 * 1024 * 1024
    assert len(bundles) >= 2 or size < 400_000


def test_a_table_that_names_a_peer_again_ends_its_back_off() -> None:
    """A sidecar that came back is connected at once, not when an old back-off is over."""
    bench = reading()
    for _ in range(8):
        link = bench.one(OpenLink).link
        bench.do(LinkDown(link, gone=True))
        if not bench.got(OpenLink):
            bench.do(Tick(), after_ms=2_000)
    link = bench.one(OpenLink).link
    bench.do(LinkDown(link, gone=True))
    runs = {"src": "me", "k": "other"}
    bench.table("src>k", runs, revision=2, terms={"k": 2}, partitions=(MINE,))
    assert bench.one(OpenLink).peer == "other"
    bench.do(Tick(), after_ms=10_000)
    assert not bench.got(OpenLink)
