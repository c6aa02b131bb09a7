"""The settings: defaults of the specification, and every refusal says what to change."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from conveyor_raft import RaftConfig


def test_the_four_fields_of_the_specification_have_their_defaults() -> None:
    """150 to 300 ms, a heartbeat each 50."""
    config = RaftConfig(node_id=1)
    assert (config.election_timeout_min_ms, config.election_timeout_max_ms) == (150, 300)
    assert config.heartbeat_interval_ms == 50


def test_the_core_gets_every_number_it_knows() -> None:
    """`core_options` copies by name, so a renamed field would be noticed here."""
    config = RaftConfig(node_id=1, heartbeat_interval_ms=7, max_batch_bytes=2048)
    options = config.core_options()
    assert options.heartbeat_interval_ms == 7
    assert options.max_batch_bytes == 2048
    missing = options.__dataclass_fields__.keys() - RaftConfig.model_fields.keys()
    assert not missing


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"node_id": 0}, "greater than or equal to 1"),
        ({"election_timeout_max_ms": 150}, "keeps? nodes from campaigning together"),
        ({"heartbeat_interval_ms": 100}, "at least twice"),
        ({"listen_address": "0.0.0.0:1"}, "set advertise_address"),
        ({"listen_adress": "a:1"}, "Extra inputs"),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], match: str) -> None:
    """With a reason."""
    with pytest.raises(ValidationError, match=match):
        RaftConfig(**{"node_id": 1, **fields})


def test_a_wildcard_with_an_address_to_tell_is_fine() -> None:
    """Peers are told the advertised one."""
    config = RaftConfig(node_id=1, listen_address="0.0.0.0:1", advertise_address="db1:1")
    assert config.advertise_address == "db1:1"
