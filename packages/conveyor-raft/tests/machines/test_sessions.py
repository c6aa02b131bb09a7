"""Once, however often: the session layer over a machine that counts what is done to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor_raft.errors import CommandRejected, SessionExpired
from conveyor_raft.machines.base import Entry
from conveyor_raft.machines.key_value import (
    KeyValueCommand,
    KeyValueResult,
    KeyValueStateMachine,
)
from conveyor_raft.machines.sessions import (
    TTL_MAX_MS,
    CloseSession,
    InSession,
    KeepSession,
    OpenSession,
    SessionLayer,
)


class Tally:
    """Adds numbers; refuses zero; answers an object for 999, which is no plain value."""

    def __init__(self):
        self.done = []

    @property
    def state(self):
        return self.done

    def apply(self, entry):
        if entry.command == 0:
            raise CommandRejected("zero", "nothing to add")
        self.done.append(entry.command)
        return object() if entry.command == 999 else sum(self.done)

    def snapshot(self):
        return b",".join(str(one).encode() for one in self.done)

    def restore(self, data):
        self.done = [int(one) for one in data.split(b",") if one]

    def encode_command(self, command):
        return str(command).encode()

    def decode_command(self, data):
        return int(data)


class Log:
    """Applies to a layer, one entry after the other, at a time that is told."""

    def __init__(self, **limits):
        self.limits = limits
        self.layer = SessionLayer(Tally(), **limits)
        self.index = 0
        self.now_ms = 1_000

    def apply(self, command):
        self.index += 1
        decoded = self.layer.decode_command(self.layer.encode_command(command))
        assert decoded == command
        return self.layer.apply(Entry(self.index, 1, self.now_ms, decoded))

    def restart(self):
        """Go on with a new layer that was restored from a snapshot."""
        data = self.layer.snapshot()
        self.layer = SessionLayer(Tally(), **self.limits)
        self.layer.restore(data)
        assert self.layer.snapshot() == data

    @property
    def done(self):
        return self.layer.state


@pytest.fixture
def log():
    return Log()


def test_a_command_without_a_session_passes_through(log):
    """As often as it is proposed."""
    assert [log.apply(5), log.apply(5)] == [5, 10]
    assert len(log.layer) == 0


@pytest.mark.parametrize("restart", [False, True])
def test_a_command_takes_effect_once_and_answers_the_same(log, restart):
    """Also after a restart from a snapshot, when other commands came between."""
    session = log.apply(OpenSession(10_000))
    assert session == 1
    assert log.apply(InSession(session, 1, 0, 5)) == 5
    log.apply(7)
    if restart:
        log.restart()
    assert log.apply(InSession(session, 1, 0, 5)) == 5
    assert log.done == [5, 7]


def test_a_refusal_is_a_result_like_any_other(log):
    """It is given again, in the same words, and nothing is tried a second time."""
    session = log.apply(OpenSession(10_000))
    for _ in range(2):
        with pytest.raises(CommandRejected, match="nothing to add") as refusal:
            log.apply(InSession(session, 1, 0, 0))
        assert refusal.value.code == "zero"
        log.restart()
    assert log.done == []


def test_what_was_refused_stays_refused(log, monkeypatch):
    """Also when the state machine would accept it by now: an answer does not change."""
    session = log.apply(OpenSession(10_000))
    with pytest.raises(CommandRejected, match="nothing to add"):
        log.apply(InSession(session, 1, 0, 0))
    monkeypatch.setattr(Tally, "apply", lambda self, entry: self.done.append(entry.command))
    with pytest.raises(CommandRejected, match="nothing to add"):
        log.apply(InSession(session, 1, 0, 0))
    assert log.done == []


def test_numbers_may_come_in_any_order(log):
    """Each is a command of its own."""
    session = log.apply(OpenSession(10_000))
    for number in (3, 1, 2, 1, 3):
        log.apply(InSession(session, number, 0, number))
    assert log.done == [3, 1, 2]


def test_what_was_answered_is_forgotten_and_never_applied_again(log):
    """A late duplicate is refused, not executed."""
    session = log.apply(OpenSession(10_000))
    log.apply(InSession(session, 1, 0, 5))
    log.apply(InSession(session, 2, 1, 6))
    for answered_through in (0, 1):
        with pytest.raises(CommandRejected, match="was answered before") as refusal:
            log.apply(InSession(session, 1, answered_through, 5))
        assert refusal.value.code == "session_answered"
    assert log.done == [5, 6]


def test_an_expired_session_is_an_error_and_executes_nothing(log):
    """Time is the log's; every command begins it anew."""
    session = log.apply(OpenSession(1_000))
    log.now_ms += 999
    log.apply(InSession(session, 1, 0, 5))
    log.now_ms += 999
    log.apply(KeepSession(session))
    log.now_ms += 1_000
    for command in (InSession(session, 1, 0, 5), InSession(session, 2, 0, 6), KeepSession(session)):
        with pytest.raises(SessionExpired, match="session 1 has expired or was closed"):
            log.apply(command)
    assert log.done == [5]
    assert len(log.layer) == 0


def test_a_closed_session_and_one_that_never_was_are_expired(log):
    """Closing twice is no mistake."""
    session = log.apply(OpenSession(1_000))
    log.apply(CloseSession(session))
    log.apply(CloseSession(session))
    for unknown in (session, 77):
        with pytest.raises(SessionExpired) as expired:
            log.apply(InSession(unknown, 1, 0, 5))
        assert expired.value.session_id == unknown
    assert log.done == []


def test_the_number_of_sessions_is_bounded():
    """What has expired makes room."""
    log = Log(sessions_max=3)
    for _ in range(3):
        log.apply(OpenSession(1_000))
    with pytest.raises(CommandRejected, match="3 sessions are open") as refusal:
        log.apply(OpenSession(1_000))
    assert refusal.value.code == "too_many_sessions"
    log.now_ms += 1_000
    assert log.apply(OpenSession(1_000)) == log.index


def test_the_results_of_a_session_are_bounded():
    """Beyond that nothing is applied; acknowledging makes room."""
    log = Log(unanswered_max=2)
    session = log.apply(OpenSession(1_000))
    for number in (1, 2):
        log.apply(InSession(session, number, 0, number))
    with pytest.raises(CommandRejected, match="has 2 results") as refusal:
        log.apply(InSession(session, 3, 0, 3))
    assert refusal.value.code == "session_full"
    assert log.apply(InSession(session, 3, 1, 3)) == 6


@pytest.mark.parametrize("ttl_ms", [0, TTL_MAX_MS + 1])
def test_a_session_has_a_life_within_bounds(log, ttl_ms):
    """Neither without one nor for ever."""
    with pytest.raises(CommandRejected, match="are possible"):
        log.apply(OpenSession(ttl_ms))


def test_a_result_that_cannot_be_kept_is_still_applied_once(log):
    """The second answer says so, and what to do."""
    session = log.apply(OpenSession(1_000))
    log.apply(InSession(session, 1, 0, 999))
    with pytest.raises(CommandRejected, match="Give the state machine encode_result") as refusal:
        log.apply(InSession(session, 1, 0, 999))
    assert refusal.value.code == "result_not_kept"
    assert log.done == [999]


def test_a_machine_with_a_codec_gives_its_own_results_again():
    """Of the type that they had."""
    layer = SessionLayer(KeyValueStateMachine())
    session = layer.apply(Entry(1, 1, 5, OpenSession(1_000)))
    for index in (2, 3):
        entry = Entry(index, 1, 5, InSession(session, 1, 0, KeyValueCommand.put("a", b"1")))
        assert layer.apply(entry) == KeyValueResult(True, None)


@pytest.mark.parametrize("data", [b"", b"\x09abc"])
def test_bytes_that_are_no_command_are_refused(log, data):
    """Never skipped."""
    with pytest.raises(ValueError, match=r"unknown kind 9|empty command"):
        log.layer.decode_command(data)


@pytest.mark.parametrize("data", [b"", b"\x01\x00", b"\x63\x00" + bytes(40)])
def test_bytes_that_are_no_snapshot_are_refused(log, data):
    """The state stays as it is."""
    log.apply(5)
    with pytest.raises(ValueError, match="sessions of version"):
        log.layer.restore(data)
    assert log.done == [5]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from([500, 5_000])),
        st.tuples(st.just("send"), st.integers(0, 2), st.integers(1, 4), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.sampled_from([100, 600])),
        st.tuples(st.just("close"), st.integers(0, 2)),
        st.tuples(st.just("restart")),
    ),
    max_size=40,
)


@given(STEPS)
@settings(deadline=None, max_examples=200)
def test_no_command_ever_takes_effect_twice(steps):
    """Whatever is sent again, whoever is restarted: one node that restarts, one that does not."""
    log, steady = Log(sessions_max=3), Log(sessions_max=3)
    sessions = [1_000_000]
    for step in steps:
        answers = []
        for one in (log, steady):
            command = None
            if step[0] == "open":
                command = OpenSession(step[1])
            elif step[0] == "send":
                session = sessions[step[1] % len(sessions)]
                # A value for each (session, number): its second occurrence is a second effect.
                command = InSession(session, step[2], step[3], 10 * session + step[2])
            elif step[0] == "close":
                command = CloseSession(sessions[step[1] % len(sessions)])
            elif step[0] == "wait":
                one.now_ms += step[1]
            elif one is log:
                log.restart()
            if command is not None:
                try:
                    answers.append(one.apply(command))
                except CommandRejected as refusal:
                    answers.append((refusal.code, refusal.message))
        assert answers[:1] == answers[1:]
        if step[0] == "open" and isinstance(answers[0], int):
            sessions.append(answers[0])
        assert log.layer.snapshot() == steady.layer.snapshot()
        assert len(log.done) == len(set(log.done))
