"""Position commits: fenced by term, monotone, each judged by itself."""

from __future__ import annotations

from conveyor_raft.machines.router import RefusalCode, RouterCommand

C = RouterCommand
P = "default/flights"


def commit(partition="1", term=1, ordinal=1, position=b"x", **more):
    return {
        "pipeline_id": P,
        "stage": "src",
        "partition": partition,
        "term": term,
        "ordinal": ordinal,
        "position": position,
        **more,
    }


def send(log, *commits):
    return log(C.CommitPositions(commits=commits))


def at(log, partition="1"):
    return log.state.positions[(P, "src", partition, "")]


def test_one_stale_commit_does_not_harm_the_others(log, make_offer):
    """The old owner of one partition is refused; the rest of the batch is recorded."""
    log.running()
    log.sidecar("a", make_offer("a-src"), boot="b2")
    outcome = send(log, commit("1", term=1, ordinal=9), commit("2", term=2, ordinal=4))
    assert [(one.position, one.code, one.current_term) for one in outcome.refused] == [
        (0, RefusalCode.FENCED, 2)
    ]
    assert (P, "src", "1", "") not in log.state.positions
    assert at(log, "2").ordinal == 4


def test_positions_only_move_on(log):
    """A repeated or older commit is taken and changes nothing."""
    log.running()
    send(log, commit(ordinal=5, position=b"five"))
    assert not send(log, commit(ordinal=5, position=b"other")).changed
    assert not send(log, commit(ordinal=3, position=b"three")).changed
    log.now_ms = 7_000
    assert send(log, commit(ordinal=6, position=None)).changed
    assert (at(log).ordinal, at(log).position, at(log).committed_ms) == (6, b"five", 7_000)


def test_finished_is_for_ever(log):
    """The end may come with the last position or after it; nothing follows it."""
    log.running()
    send(log, commit(ordinal=5))
    send(log, commit(ordinal=5, finished=True))
    assert at(log).finished
    assert not send(log, commit(ordinal=5)).changed
    outcome = send(log, commit(ordinal=6))
    assert outcome.refused[0].code is RefusalCode.INVALID
    assert "finished at ordinal 5" in outcome.refused[0].message


def test_an_empty_partition_finishes_at_the_beginning(log):
    """Nothing was read, and that is recorded."""
    log.running()
    send(log, commit(ordinal=0, position=None, finished=True))
    assert (at(log).position, at(log).finished) == (None, True)


def test_the_last_owner_may_still_commit_until_the_next_one(log):
    """A partition without an owner takes the last commits of its last one."""
    log.running()
    log(C.DeregisterSidecar(sidecar_id="a"))
    assert not send(log, commit(ordinal=8)).refused
    assert at(log).ordinal == 8


def test_what_was_never_given_is_refused(log):
    """An unknown partition and a term from the future are named."""
    log.running()
    outcome = send(log, commit("7"), commit("1", term=5))
    assert [one.code for one in outcome.refused] == [RefusalCode.UNKNOWN, RefusalCode.INVALID]
    assert "never given" in outcome.refused[1].message


def test_replays_have_positions_of_their_own(log):
    """A replay does not move the live position."""
    log.running()
    send(log, commit(ordinal=5), commit(ordinal=2, replay_id="r1"))
    assert at(log).ordinal == 5
    assert log.state.positions[(P, "src", "1", "r1")].ordinal == 2
    assert [row.replay_id for row in log.state.positions_of(P)] == ["", "r1"]
