"""Custody: who waits for the end of which records.

Rule R1 of the data plane: whoever sends records keeps them until they are done, and they are done
only when every record and everything derived from it has ended. Inside one sidecar this is a
count. A `Holding` stands for records that somebody outside waits for: a frame received on a lane
(its producer waits for DONE) or a batch read from a source (its position waits to move). A
`Piece` is records on their way through the sidecar, in a queue, in a call, on an outgoing lane or
on the way to the dead letters; it holds every holding that its records come from. When the last
piece lets go, the holding has ended, and that is the only way in which it ends.

The count is per frame and not per record: a piece that was merged from several frames keeps all
of them open until it has ended. That costs a little latency of DONE under failures and saves all
accounting per record.

An *abandoned* holding is one whose end nobody waits for any more: its lane was given up by the
producer, or its partition has another owner. Pieces that are abandoned altogether need not be
carried on, except into a sink, where another frame may already wait for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from conveyor_sdk.carrier.frame import Frame, merge_frames


class Holding:
    """Records whose end somebody outside this sidecar waits for.

    It begins with one hold, that of its maker, who lets go when every first piece is made.
    """

    __slots__ = ("abandoned", "ended", "pending", "waiters")

    def __init__(self) -> None:
        self.pending = 1
        self.ended = False
        self.abandoned = False
        self.waiters: list[Holding] = []

    def hold(self) -> None:
        """Keep it open until the matching `release`."""
        self.pending += 1

    def release(self) -> None:
        """Let go; the last one ends it and lets go of those that waited for it."""
        self.pending -= 1
        if self.pending:
            return
        self.ended = True
        self.on_end()
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.release()

    def wait_for(self, other: Holding) -> None:
        """Do not end before `other`: it carries the same records, and it came first."""
        self.hold()
        other.waiters.append(self)

    def on_end(self) -> None:
        """Tell whoever waits; called once."""
        raise NotImplementedError


class Piece:
    """Records on their way, with one hold on each holding that they come from.

    Attributes:
        frame: The records.
        holdings: Whose end depends on them.
        attempt: Which delivery to the stage comes next, or is under way: from 1.
        refusals: Deliveries in a row that did not count (busy, unreachable); they lengthen the
            back-off.
    """

    __slots__ = ("attempt", "frame", "holdings", "refusals")

    def __init__(
        self, frame: Frame, holdings: Sequence[Holding], attempt: int = 1, refusals: int = 0
    ) -> None:
        self.frame = frame
        self.holdings = holdings
        self.attempt = attempt
        self.refusals = refusals

    @property
    def abandoned(self) -> bool:
        """Nobody waits for any of it."""
        return all(holding.abandoned for holding in self.holdings)

    def fork(self, frame: Frame, attempt: int = 1, refusals: int = 0) -> Piece:
        """Return a further piece, for records that come from this one."""
        for holding in self.holdings:
            holding.pending += 1
        return Piece(frame, self.holdings, attempt, refusals)

    def release(self) -> None:
        """Its records have ended, or other pieces carry them."""
        for holding in self.holdings:
            holding.release()


def merge_pieces(pieces: Sequence[Piece]) -> Piece:
    """Return one piece in the place of all `pieces`, which must not be used any more."""
    if len(pieces) == 1:
        return pieces[0]
    holdings = [holding for piece in pieces for holding in piece.holdings]
    return Piece(merge_frames([piece.frame for piece in pieces]), holdings)


def split_piece(piece: Piece, frames: Iterable[Frame], attempt: int, refusals: int) -> list[Piece]:
    """Return one piece per frame in the place of `piece`, which must not be used any more."""
    parts = [piece.fork(frame, attempt, refusals) for frame in frames]
    piece.release()
    return parts
