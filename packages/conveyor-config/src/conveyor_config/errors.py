"""What can be wrong with text: one tree, each error with its place and the next move."""

from collections.abc import Iterable
from dataclasses import dataclass

from conveyor_registry.model import Problem, Severity


class ConfigError(Exception):
    """Root of this package's errors. Nothing was done; correct the text and try again."""

    retry_safe = True


class FileUnreadable(ConfigError):  # noqa: N818
    """A file that was asked for is absent, unreadable or not a file."""

    def __init__(self, file: str, reason: str) -> None:
        self.file = file
        super().__init__(f"{file}: {reason}")


class YamlRefused(ConfigError):  # noqa: N818
    """Text that is not YAML, or YAML outside the bounds and the subset that is read."""

    def __init__(self, file: str, line: int, column: int, reason: str) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.reason = reason
        super().__init__(f"{file}:{line}:{column}: {reason}")


@dataclass(frozen=True, slots=True)
class Located:
    """A problem and where its text stands: ``file:line``, a variable or a flag."""

    place: str
    problem: Problem

    @property
    def is_error(self) -> bool:
        """Whether the problem refuses the text."""
        return self.problem.severity is Severity.ERROR

    def __str__(self) -> str:
        """One line; a predicate's caret adds two."""
        where = f"{self.problem.where}: " if self.problem.path else ""
        severity = "" if self.is_error else "warning: "
        return f"{self.place}: {severity}{where}{self.problem.text}"


class _ProblemsError(ConfigError):
    def __init__(self, problems: Iterable[Located]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SettingsRefused(_ProblemsError):  # noqa: N818
    """Settings that are not valid; carries every problem."""


class ManifestsRefused(_ProblemsError):  # noqa: N818
    """Manifests of which at least one is not valid; carries every problem of all."""


class InsecureBindRefused(ConfigError):  # noqa: N818
    """An address that others can reach, without certificates."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"{address} can be reached by other machines, and without certificates anybody there "
            "could command this process: bind a loopback address such as 127.0.0.1, or set "
            "CONVEYOR_INSECURE=true if the network itself is trusted"
        )
