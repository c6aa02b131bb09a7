import json

import pytest
import yaml

from conveyor_cli.errors import ExitCode, failure_of, shown
from conveyor_cli.output import age, cell, count, dumped
from conveyor_config import FileUnreadable
from conveyor_grpc import errors as grpc_errors
from conveyor_grpc.errors import ControlError


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-1, "0s"),
        (0.4, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7_200, "2h"),
        (200_000, "2d"),
    ],
)
def test_ages_take_the_unit_that_says_most(seconds: float | None, text: str) -> None:
    """A clock that runs ahead gives no negative age."""
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (0.25, "0.2"), (9.5, "9.5"), (1234567, "1,234,567")]
)
def test_counts_have_their_thousands_apart(number: float, text: str) -> None:
    """Small rates keep a digit behind the point."""
    assert count(number) == text


def test_texts_of_others_cannot_move_the_cursor() -> None:
    """Control characters of names, reasons and errors are spelled out."""
    assert shown("a\x1b[2Jb\r\x07") == "a\\x1b[2Jb\\x0d\\x07"
    assert cell("a\nb").plain == "a b"
    assert cell(None).plain == "-"
    assert cell("").plain == "-"


def test_states_are_coloured() -> None:
    """By what they mean."""
    assert cell("Running").style == "green"
    assert cell("Failed").style == "red"
    assert cell("whatever").style == ""


def test_data_is_json_or_yaml() -> None:
    """Both read back to the same; compact forms follow each other in a stream."""
    data = {"country": "NO", "at": "12:30", "n": 1, "none": None}
    assert json.loads(dumped(data, "json")) == data
    assert yaml.safe_load(dumped(data, "yaml")) == data
    assert "\n" not in dumped(data, "json", compact=True)
    assert dumped(data, "yaml", compact=True).startswith("---\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (grpc_errors.UnreachableError("m"), ExitCode.UNAVAILABLE),
        (grpc_errors.NotLeaderError("m"), ExitCode.UNAVAILABLE),
        (grpc_errors.NotReadyError("m"), ExitCode.UNAVAILABLE),
        (grpc_errors.BusyError("m"), ExitCode.UNAVAILABLE),
        (grpc_errors.DeadlineError("m", retry_safe=True), ExitCode.UNAVAILABLE),
        (grpc_errors.DeadlineError("m"), ExitCode.UNKNOWN),
        (grpc_errors.UnknownOutcomeError("m"), ExitCode.UNKNOWN),
        (grpc_errors.NotFoundError("m"), ExitCode.NOT_FOUND),
        (grpc_errors.InvalidRequestError("m"), ExitCode.REFUSED),
        (grpc_errors.ConflictError("m"), ExitCode.REFUSED),
        (grpc_errors.RefusedError("m"), ExitCode.REFUSED),
        (grpc_errors.TooLargeError("m"), ExitCode.REFUSED),
        (grpc_errors.InternalError("m"), ExitCode.INTERNAL),
        (FileUnreadable("f", "m"), ExitCode.REFUSED),
    ],
)
def test_each_error_has_its_exit_code(error: ControlError, code: ExitCode) -> None:
    """Scripts decide by the code alone."""
    failure = failure_of(error)
    assert failure.exit_code == code
    assert "m" in failure.message


def test_every_error_of_the_control_plane_is_translated() -> None:
    """No class of the table falls through without a code."""
    for row in grpc_errors.TABLE:
        assert failure_of(row.exception("m")).exit_code in {1, 3, 4, 5, 70}
