"""Timers: in order, once, unless cancelled."""

from conveyor_sidecar.core.timers import Timers


def test_timers_run_in_order_of_time_then_of_making() -> None:
    """What is due runs earliest first; equal times keep their order."""
    timers = Timers()
    ran: list[str] = []
    for name, due in (("late", 9), ("first", 5), ("second", 5)):
        timers.at(due, lambda name=name: ran.append(name))
    timers.run(8)
    assert ran == ["first", "second"]
    assert timers.next_due_ms == 9


def test_a_cancelled_timer_does_nothing_and_is_not_waited_for() -> None:
    """The next deadline is that of a timer that still matters."""
    timers = Timers()
    ran: list[int] = []
    first = timers.at(1, lambda: ran.append(1))
    timers.at(2, lambda: ran.append(2))
    first.cancel()
    first.cancel()
    assert timers.next_due_ms == 2
    timers.run(5)
    assert ran == [2]
    assert timers.next_due_ms is None


def test_a_timer_made_by_a_timer_for_now_runs_too() -> None:
    """Nothing that is due stays behind."""
    timers = Timers()
    ran: list[str] = []
    timers.at(1, lambda: (timers.at(1, lambda: ran.append("inner")), None)[1])
    timers.run(1)
    assert ran == ["inner"]


def test_cancelled_timers_do_not_pile_up() -> None:
    """A million calls with deadlines leave no million timers."""
    timers = Timers()
    for _ in range(10_000):
        timers.at(30_000, lambda: None).cancel()
    assert len(timers._heap) < 200
