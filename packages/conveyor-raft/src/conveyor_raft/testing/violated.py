"""The exception of every rule of the simulator."""

from __future__ import annotations


class Violated(AssertionError):  # noqa: N818 - the name is the sentence
    """A rule does not hold. `name` is the rule's."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.detail = detail
