"""`RouterStateMachine` keeps conveyor-raft's protocol."""

from __future__ import annotations

import pytest

from conveyor_raft.machines.base import StateMachine
from conveyor_raft.machines.router import (
    Outcome,
    RouterCommand,
    RouterState,
    RouterStateMachine,
    UnknownCommand,
)


def test_it_is_a_state_machine():
    """Types as the node wants them."""
    machine: StateMachine[RouterCommand, Outcome, RouterState] = RouterStateMachine.new()
    assert machine.state == RouterState()


def test_only_commands_are_encoded():
    """What is no command never reaches the log."""
    machine = RouterStateMachine()
    for wrong in ("noop", RouterCommand()):
        with pytest.raises(ValueError, match="no router command"):
            machine.encode_command(wrong)
    with pytest.raises(UnknownCommand):
        machine.decode_command(b"{}")
