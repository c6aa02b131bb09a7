"""Custody: a holding ends exactly when the last piece of it has ended."""

from conveyor_sidecar.core.delivery import Holding, Piece, merge_pieces, split_piece
from conveyor_sidecar.testing.harness import frame_of


class Ended(Holding):
    """Counts its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = 0

    def on_end(self) -> None:
        self.ends += 1


def test_a_holding_ends_with_its_last_piece() -> None:
    """DONE means that everything derived has ended, not the first of it."""
    holding = Ended()
    piece = Piece(frame_of("a", "b"), (holding,))
    branches = [piece.fork(piece.frame), piece.fork(piece.frame)]
    piece.release()
    branches[0].release()
    assert not holding.ended
    branches[1].release()
    assert holding.ended
    assert holding.ends == 1


def test_merged_pieces_keep_every_holding_open() -> None:
    """A merged piece ends all that it came from, and none of it before."""
    one, other = Ended(), Ended()
    merged = merge_pieces([Piece(frame_of("a"), (one,)), Piece(frame_of("b"), (other,))])
    assert merged.frame.count == 2
    assert not one.ended
    merged.release()
    assert one.ended
    assert other.ended


def test_split_pieces_take_over_the_hold() -> None:
    """Splitting neither ends nor leaks a holding."""
    holding = Ended()
    piece = Piece(frame_of("a", "b", "c"), (holding,))
    parts = split_piece(piece, piece.frame.split(1, 100), attempt=2, refusals=0)
    assert [part.attempt for part in parts] == [2, 2, 2]
    for part in parts:
        assert not holding.ended
        part.release()
    assert holding.ended


def test_a_holding_waits_for_the_one_that_came_first() -> None:
    """A repeated record ends no earlier than its first delivery."""
    first, again = Ended(), Ended()
    again.wait_for(first)
    again.release()
    assert not again.ended
    first.release()
    assert again.ended


def test_a_piece_is_abandoned_only_altogether() -> None:
    """One waiting upstream is enough to carry a merged piece on."""
    one, other = Ended(), Ended()
    merged = merge_pieces([Piece(frame_of("a"), (one,)), Piece(frame_of("b"), (other,))])
    one.abandoned = True
    assert not merged.abandoned
    other.abandoned = True
    assert merged.abandoned
