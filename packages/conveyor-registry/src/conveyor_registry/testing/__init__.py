"""Fakes for users of the registry: they behave as the real thing, and contract tests say so."""

from conveyor_registry.testing.in_process import InProcessRaft

__all__ = ["InProcessRaft"]
