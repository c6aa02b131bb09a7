"""Records that wait for a lane."""

from __future__ import annotations

from collections import deque

from conveyor_sidecar.core.delivery import Piece


class WaitingLine:
    """Pieces in the order in which they leave, with their totals.

    Attributes:
        pieces: What waits.
        records: Their number.
        bytes: Of their bodies.
        since_ms: Since when the first of them waits.
    """

    __slots__ = ("bytes", "pieces", "records", "since_ms")

    def __init__(self) -> None:
        self.pieces: deque[Piece] = deque()
        self.records = 0
        self.bytes = 0
        self.since_ms = 0

    def append(self, piece: Piece, now_ms: int) -> None:
        """Let a piece wait behind all others."""
        if not self.pieces:
            self.since_ms = now_ms
        self.pieces.append(piece)
        self.records += piece.frame.count
        self.bytes += len(piece.frame.body)

    def append_left(self, piece: Piece) -> None:
        """Let a piece go before all others: it has waited before."""
        self.pieces.appendleft(piece)
        self.records += piece.frame.count
        self.bytes += len(piece.frame.body)

    def pop(self) -> Piece:
        """Take the first."""
        piece = self.pieces.popleft()
        self.records -= piece.frame.count
        self.bytes -= len(piece.frame.body)
        return piece
