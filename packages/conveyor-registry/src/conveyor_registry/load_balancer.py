"""`LoadBalancer`: which instance of a service to call next.

What for: callers that know a list of services and want one. Healthy ones are taken; if there are
none, those that may still work (degraded, unknown); if there are none either, all of them, because
health can be wrong about everybody at once (Envoy's panic mode) and no answer never is right.

Rules kept: a list is recognised by its services' name; the balancer remembers one place per name,
for a bounded number of names (the ones used last).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from conveyor_raft.machines.router import ServiceHealth
from conveyor_registry.core.balance import after, heaviest
from conveyor_registry.views import RegisteredService

NAMES_MAX = 1_024
WEIGHT_LABEL = "weight"
WEIGHT_MAX = 1_000_000


@dataclass(slots=True)
class _Place:
    last: str | None = None
    credit: dict[str, int] = field(default_factory=dict)


class LoadBalancer:
    """Round robin and smooth weighted round robin over registered services."""

    def __init__(self) -> None:
        self._places: OrderedDict[str, _Place] = OrderedDict()

    @classmethod
    def new(cls) -> LoadBalancer:
        """A balancer that has picked nobody yet."""
        return cls()

    def select(self, services: Sequence[RegisteredService]) -> str | None:
        """The endpoint whose turn it is; None: there are no services."""
        chosen = _choices(services)
        if not chosen:
            return None
        place = self._place(services)
        place.last = after(list(chosen), place.last)
        return chosen[place.last].endpoint

    def select_weighted(self, services: Sequence[RegisteredService]) -> str | None:
        """The endpoint whose turn it is by the label ``weight`` (default 1; 0 takes no calls).

        None: there are no services, or none has a weight above 0.
        """
        chosen = {
            service_id: one for service_id, one in _choices(services).items() if weight_of(one) > 0
        } or _choices([one for one in services if weight_of(one) > 0])
        if not chosen:
            return None
        weights = {service_id: weight_of(one) for service_id, one in chosen.items()}
        best = heaviest(weights, self._place(services).credit)
        return None if best is None else chosen[best].endpoint

    def _place(self, services: Sequence[RegisteredService]) -> _Place:
        name = min(one.service_name for one in services)
        place = self._places.setdefault(name, _Place())
        self._places.move_to_end(name)
        if len(self._places) > NAMES_MAX:
            self._places.popitem(last=False)
        return place


def weight_of(service: RegisteredService) -> int:
    """The service's weight; what is no number from 0 to a million counts as 1."""
    text = service.labels.get(WEIGHT_LABEL, "1")
    return int(text) if text.isdecimal() and int(text) <= WEIGHT_MAX else 1


def _choices(services: Sequence[RegisteredService]) -> dict[str, RegisteredService]:
    healthy = [one for one in services if one.health is ServiceHealth.HEALTHY]
    working = [one for one in services if one.health is not ServiceHealth.UNHEALTHY]
    return {one.service_id: one for one in healthy or working or services}
