"""How commands fail: one sentence of what is wrong, one of what to do next, one exit code.

Exit codes are part of the interface, so that scripts can decide without reading text:

==== =========================================================================
0    done
1    refused: a document, a name or a request is not valid; nothing was changed
2    the command line itself is wrong
3    what was asked for does not exist
4    no router could be reached, or none leads; nothing was changed, try again
5    the outcome is unknown: it may have been done; look, then repeat
70   a mistake in Conveyor
130  interrupted
==== =========================================================================
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import IO, Any

import click

from conveyor_config import ConfigError
from conveyor_grpc.errors import (
    BusyError,
    ConflictError,
    ControlError,
    DeadlineError,
    FellBehindError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    NotLeaderError,
    NotReadyError,
    UnknownOutcomeError,
    UnreachableError,
)


class ExitCode(IntEnum):
    """What a command's exit code means."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    UNKNOWN = 5
    INTERNAL = 70
    INTERRUPTED = 130


class CommandFailed(click.ClickException):
    """A command that did not do what it was asked for."""

    def __init__(
        self, message: str, code: ExitCode = ExitCode.REFUSED, next_move: str | None = None
    ) -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc]  # click reads the instance's
        self.next_move = next_move

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message and the next move to standard error."""
        click.secho("error: ", fg="red", bold=True, nl=False, err=True, file=file)
        click.echo(shown(self.message), err=True, file=file)
        if self.next_move:
            click.echo(f"next: {self.next_move}", err=True, file=file)


_RETRY = "nothing was changed; try again in a moment"

_MOVES: tuple[tuple[type[ControlError], ExitCode, str], ...] = (
    (
        UnreachableError,
        ExitCode.UNAVAILABLE,
        "check that a router runs there, or name others with --endpoint or CONVEYOR_ENDPOINT",
    ),
    (
        NotLeaderError,
        ExitCode.UNAVAILABLE,
        "the routers have no leader now; `conveyor status` shows which of them answer",
    ),
    (NotReadyError, ExitCode.UNAVAILABLE, _RETRY),
    (BusyError, ExitCode.UNAVAILABLE, _RETRY),
    (FellBehindError, ExitCode.UNAVAILABLE, _RETRY),
    (NotFoundError, ExitCode.NOT_FOUND, "`conveyor get KIND` lists what there is"),
    (ConflictError, ExitCode.REFUSED, "look at what changed, then repeat the command"),
    (InternalError, ExitCode.INTERNAL, "the log of the router has the details"),
    (
        UnknownOutcomeError,
        ExitCode.UNKNOWN,
        "it may have been done; look with `conveyor get`, then repeat",
    ),
)


def failure_of(error: ControlError | ConfigError) -> CommandFailed:
    """The command's failure for what a library raised."""
    if isinstance(error, ConfigError):
        return CommandFailed(str(error), ExitCode.REFUSED)
    if isinstance(error, DeadlineError):
        if error.retry_safe:
            return CommandFailed(error.message, ExitCode.UNAVAILABLE, _RETRY)
        return CommandFailed(
            error.message,
            ExitCode.UNKNOWN,
            "look with `conveyor get`, then repeat, or give more --timeout",
        )
    message = error.message
    if isinstance(error, InvalidRequestError):
        message = "\n".join([message, *_problem_lines(error.problems)])
    for kind, code, move in _MOVES:
        if isinstance(error, kind):
            return CommandFailed(message, code, move)
    return CommandFailed(message, ExitCode.REFUSED)


def _problem_lines(problems: Sequence[Any]) -> list[str]:
    return [f"  {problem.document} {problem.path}: {problem.message}" for problem in problems]


def shown(text: str) -> str:
    """Text of others as it may be shown on a terminal: control characters are spelled out."""
    return "".join(
        character if character.isprintable() or character == "\n" else f"\\x{ord(character):02x}"
        for character in text
    )
