"""A service's answer is checked before anything of it is used, and the text says what is wrong."""

from collections.abc import Sequence

import pytest

from conveyor_sdk.carrier.frame import write_u32
from conveyor_sidecar.core.answers import failures_problem, outputs_problem
from conveyor_sidecar.core.events import Failure, FailureKind, Outputs


def failed(*places: int) -> list[Failure]:
    return [Failure(place, FailureKind.RETRY, "x") for place in places]


def made(parents: Sequence[int], count: int | None = None, routes: Sequence[str] = ()) -> Outputs:
    count = len(parents) if count is None else count
    return Outputs(b"x" * count, write_u32([1] * count), parents, routes)


@pytest.mark.parametrize(
    ("failures", "text"),
    [
        (failed(0, 2), ""),
        (failed(3), "failure of record 3; the call had records 0 to 2"),
        (failed(-1), "failure of record -1"),
        (failed(1, 1), "record 1 as failed twice"),
    ],
)
def test_failures_are_of_records_of_the_call_and_once(failures: list[Failure], text: str) -> None:
    """A failure of nobody, or twice of somebody, makes the answer worthless."""
    problem = failures_problem(3, failures)
    assert problem == "" if not text else text in problem


@pytest.mark.parametrize(
    ("outputs", "failures", "text"),
    [
        (made([0, 2, 2]), [], ""),
        (made([]), [], ""),
        (None, [], "what became of its records"),
        (made([0], count=2), [], "2 records and 1 parents"),
        (made([3]), [], "names record 3 as its parent"),
        (made([1]), failed(1), "record 1 both failed and has an output"),
        (made([0, 1], routes=["sink"]), [], "2 records and 1 routes"),
        (made([0], routes=["moon"]), [], "routed to 'moon'; the stage's out-edges lead to sink"),
        (made([0, 1], routes=["", "sink"]), [], ""),
    ],
)
def test_outputs_have_parents_in_the_call_and_routes_that_exist(
    outputs: Outputs | None, failures: list[Failure], text: str
) -> None:
    """Wrong counts, wrong parents and unknown routes are told, each in its words."""
    problem = outputs_problem(3, outputs, failures, {"sink"})
    assert problem == "" if not text else text in problem
