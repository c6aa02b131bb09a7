"""Links: one stream to each sidecar that consumes what we produce, and those that others opened.

The side that opens a link is the producer of all lanes on it. A link to a peer exists while there
are lanes to it; when it breaks it is opened again after a back-off, and a HELLO for all its lanes
takes up where they were. What a peer says on a link that was replaced meanwhile is not heard.

Lanes to this very sidecar use the same words without a link: `LOCAL` always stands.
"""

from __future__ import annotations

from conveyor_sidecar.core.context import LOCAL, Context
from conveyor_sidecar.core.effects import CloseLink, OpenLink
from conveyor_sidecar.core.lane import LaneProducer
from conveyor_sidecar.core.messages import (
    Done,
    End,
    Hello,
    HelloAck,
    LaneAccept,
    LaneCredit,
    LaneOpen,
    LaneStatus,
)
from conveyor_sidecar.core.outbox import Outbox
from conveyor_sidecar.core.retry import backoff_ms
from conveyor_sidecar.core.routes import RetryPolicy
from conveyor_sidecar.core.statistics import LaneStatistics
from conveyor_sidecar.core.timers import Timer

IDLE_CLOSE_MS = 10_000
"""A link without lanes is closed after it."""


class _PeerLink:
    """The stream to one peer, as far as it stands."""

    __slots__ = (
        "endpoint",
        "failures",
        "idle_timer",
        "lanes",
        "link",
        "peer",
        "resume_timer",
        "retry_timer",
        "up",
    )

    def __init__(self, peer: str, endpoint: str) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.link: str | None = None
        self.up = False
        self.failures = 0
        self.lanes: dict[int, tuple[LaneProducer, Outbox]] = {}
        self.retry_timer: Timer | None = None
        self.resume_timer: Timer | None = None
        self.idle_timer: Timer | None = None


class Links:
    """All links of one engine on which it is the producer."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._peers: dict[str, _PeerLink] = {}
        self._by_link: dict[str, _PeerLink] = {}
        options = context.options
        self._policy = RetryPolicy(
            backoff_ms=options.reconnect_min_ms, backoff_max_ms=options.reconnect_max_ms
        )

    def attach(self, lane: LaneProducer, outbox: Outbox) -> None:
        """Open the lane as soon as its link stands."""
        peer = self._peer(lane.target.sidecar_id, lane.target.endpoint)
        peer.lanes[lane.number] = (lane, outbox)
        if peer.idle_timer is not None:
            peer.idle_timer.cancel()
            peer.idle_timer = None
        if peer.up:
            self._hello(peer, [lane.opening()])
        elif peer.link is None:  # the table speaks of it again: do not sit the back-off out
            if peer.retry_timer is not None:
                peer.retry_timer.cancel()
                peer.retry_timer = None
            self._connect(peer)

    def detach(self, lane: LaneProducer, reason: str) -> None:
        """Give the lane up; its consumer is told, if it is there."""
        peer = self._peers.get(lane.target.sidecar_id)
        if peer is None or peer.lanes.pop(lane.number, None) is None:
            return
        if peer.up and peer.link is not None:
            bundle = self._context.bundle(peer.link)
            bundle.ends.append(End(lane.number, lane.next_sequence - 1, reason))
        if not peer.lanes and peer.link != LOCAL and peer.idle_timer is None:
            due = self._context.now_ms + IDLE_CLOSE_MS
            peer.idle_timer = self._context.timers.at(due, lambda: self._close_idle(peer))

    def link_of(self, lane: LaneProducer) -> str:
        """The link that an accepted lane is on."""
        link = self._peers[lane.target.sidecar_id].link
        assert link is not None
        return link

    def statistics(self) -> list[LaneStatistics]:
        """Every lane that this sidecar produces on."""
        lanes = [lane for peer in self._peers.values() for lane, _ in peer.lanes.values()]
        return [
            LaneStatistics(
                lane.name.pipeline,
                lane.name.edge,
                lane.name.producer.number,
                lane.name.consumer.number,
                lane.target.sidecar_id,
                lane.ready,
                lane.ready and not lane.may_send,
                len(lane.retained),
                lane.outstanding_bytes,
            )
            for lane in lanes
        ]

    def rehello(self) -> None:
        """Ask again for lanes that were not accepted: the table has changed."""
        for peer in self._peers.values():
            if peer.up:
                self._hello(
                    peer, [lane.opening() for lane, _ in peer.lanes.values() if not lane.ready]
                )

    def on_up(self, link: str) -> None:
        """A link stands: open or resume all lanes on it."""
        peer = self._by_link.get(link)
        if peer is None:
            return
        peer.up = True
        self._hello(peer, [lane.opening() for lane, _ in peer.lanes.values()])

    def on_down(self, link: str, gone: bool) -> None:
        """A link broke, or could not be opened."""
        peer = self._by_link.get(link)
        if peer is None:
            return
        self._unlink(peer, link)
        peer.failures += 1
        if gone:
            self._expire(peer)
        if not peer.lanes:
            self._forget(peer)
            return
        if peer.retry_timer is not None:
            peer.retry_timer.cancel()
        wait = backoff_ms(self._policy, peer.failures, 0, self._context.chance)
        peer.retry_timer = self._context.timers.at(
            self._context.now_ms + wait, lambda: self._reconnect(peer)
        )

    def on_ack(self, link: str, ack: HelloAck) -> None:
        """A peer answers for lanes."""
        peer = self._by_link.get(link)
        if peer is None:
            return
        peer.failures = 0
        if peer.resume_timer is not None:
            peer.resume_timer.cancel()
            peer.resume_timer = None
        again = False
        for accept in ack.lanes:
            entry = peer.lanes.get(accept.lane)
            if entry is None:
                continue
            again = not self._answered(entry[0], entry[1], accept, ack.boot_id) or again
        if again and peer.retry_timer is None:
            wait = max([accept.retry_after_ms for accept in ack.lanes])
            wait = max(wait, self._context.options.refused_lane_ms)
            peer.retry_timer = self._context.timers.at(
                self._context.now_ms + wait, lambda: self._ask_again(peer)
            )

    def on_credit(self, link: str, credit: LaneCredit) -> None:
        """A peer will take more."""
        entry = self._entry(link, credit.lane)
        if entry is not None:
            entry[0].grant(credit)
            entry[1].granted()

    def on_done(self, link: str, done: Done) -> None:
        """Frames have ended at a peer."""
        entry = self._entry(link, done.lane)
        if entry is not None:
            entry[1].done(entry[0], done)

    def on_fenced(self, link: str, number: int, newer_term: int) -> None:
        """A peer knows a newer owner of the producing instance."""
        entry = self._entry(link, number)
        if entry is not None:
            self._context.fenced.append((entry[0].name.producer, newer_term))

    def _entry(self, link: str, number: int) -> tuple[LaneProducer, Outbox] | None:
        peer = self._by_link.get(link)
        return None if peer is None else peer.lanes.get(number)

    def _answered(
        self, lane: LaneProducer, outbox: Outbox, accept: LaneAccept, boot_id: str
    ) -> bool:
        """Take one lane's answer; return False if the lane is to be asked for again."""
        if accept.status is LaneStatus.FENCED:
            self._context.fenced.append((lane.name.producer, accept.newer_term))
            return True
        if accept.status is not LaneStatus.OPEN:
            return False
        if lane.consumer_boot not in ("", boot_id):
            outbox.replace(lane, "the consumer's process is another one")
            return True
        lane.consumer_boot = boot_id
        if accept.credit is not None:
            lane.grant(accept.credit)
        if accept.done is not None:
            outbox.done(lane, accept.done)
        if not lane.ready:
            outbox.accepted(lane, accept.next_sequence)
        return True

    def _peer(self, sidecar_id: str, endpoint: str) -> _PeerLink:
        peer = self._peers.get(sidecar_id)
        if peer is None:
            peer = self._peers[sidecar_id] = _PeerLink(sidecar_id, endpoint)
            if sidecar_id == self._context.options.sidecar_id:
                peer.link = LOCAL
                peer.up = True
                self._by_link[LOCAL] = peer
        elif peer.endpoint != endpoint:
            peer.endpoint = endpoint
            if peer.link != LOCAL:
                self._move(peer)
        return peer

    def _move(self, peer: _PeerLink) -> None:
        """The peer listens elsewhere now."""
        if peer.link is not None:
            self._context.emit(CloseLink(peer.link, "the peer has another address"))
            self._unlink(peer, peer.link)
        peer.failures = 0
        if peer.retry_timer is not None:
            peer.retry_timer.cancel()
            peer.retry_timer = None
        if peer.lanes:
            self._connect(peer)

    def _unlink(self, peer: _PeerLink, link: str) -> None:
        """The peer has no link at present; its lanes wait for the next one."""
        self._context.drop_bundle(link)
        self._by_link.pop(link, None)
        peer.link = None
        peer.up = False
        for lane, _ in peer.lanes.values():
            lane.ready = False
        if peer.resume_timer is None:
            due = self._context.now_ms + self._context.options.resume_ms
            peer.resume_timer = self._context.timers.at(due, lambda: self._expire(peer))

    def _connect(self, peer: _PeerLink) -> None:
        peer.link = f"to:{peer.peer}:{next(self._context.numbers)}"
        self._by_link[peer.link] = peer
        self._context.emit(OpenLink(peer.link, peer.peer, peer.endpoint))

    def _reconnect(self, peer: _PeerLink) -> None:
        peer.retry_timer = None
        if peer.link is None and peer.lanes:
            self._connect(peer)
        elif peer.link is None:
            self._forget(peer)

    def _ask_again(self, peer: _PeerLink) -> None:
        peer.retry_timer = None
        if peer.up:
            self._hello(peer, [lane.opening() for lane, _ in peer.lanes.values() if not lane.ready])

    def _expire(self, peer: _PeerLink) -> None:
        if peer.resume_timer is not None:
            peer.resume_timer.cancel()
            peer.resume_timer = None
        if not peer.up:
            for lane, outbox in list(peer.lanes.values()):
                outbox.expired(lane)

    def _close_idle(self, peer: _PeerLink) -> None:
        peer.idle_timer = None
        if peer.lanes:
            return
        if peer.link is not None:
            self._context.drop_bundle(peer.link)
            self._context.emit(CloseLink(peer.link, "no lane needs it"))
            self._by_link.pop(peer.link, None)
        self._forget(peer)

    def _forget(self, peer: _PeerLink) -> None:
        for timer in (peer.retry_timer, peer.resume_timer, peer.idle_timer):
            if timer is not None:
                timer.cancel()
        if self._peers.get(peer.peer) is peer:
            del self._peers[peer.peer]

    def _hello(self, peer: _PeerLink, lanes: list[LaneOpen]) -> None:
        if not lanes or peer.link is None:
            return
        options = self._context.options
        bundle = self._context.bundle(peer.link)
        if bundle.hello is None:
            bundle.hello = Hello(options.sidecar_id, options.boot_id, [])
        bundle.hello.lanes += lanes
