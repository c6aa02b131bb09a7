"""What goes wrong in a simulated world, and when; all of it heals at the end of the storm."""

from __future__ import annotations

from collections.abc import Callable

from conveyor_sidecar.core.events import Drain
from conveyor_sidecar.testing.ledger import Ledger
from conveyor_sidecar.testing.network import Network
from conveyor_sidecar.testing.router import Router
from conveyor_sidecar.testing.sidecar import SimSidecar
from conveyor_sidecar.testing.world import World

LEASE_MS = 300
"""After it the simulated routers give the work of a silent sidecar to others."""


class Faults:
    """The faults of one world.

    Args:
        world: The clock.
        ledger: Told when something fails.
        network: Its links are cut.
        router: Moves what dead sidecars ran.
        sidecars: Die, drain, are not told.
    """

    def __init__(
        self,
        world: World,
        ledger: Ledger,
        network: Network,
        router: Router,
        sidecars: dict[str, SimSidecar],
    ) -> None:
        self._world = world
        self._ledger = ledger
        self._network = network
        self._router = router
        self._sidecars = sidecars
        self._kinds: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "cut": self._cut,
            "service-crash": self._service_crash,
            "reassign": self._reassign,
            "zombie": self._zombie,
            "router-outage": self._outage,
            "new-version": self._new_version,
            "drain": self._drain,
        }

    def plan(self) -> None:
        """Let faults happen until the end of the storm, and then heal everything."""
        scenario = self._ledger.scenario
        for kind in sorted(scenario.faults):
            action = self._kinds.get(kind)
            if action is not None:
                for _ in range(self._world.chance.randint(1, 4)):
                    self._world.after(self._world.chance.randint(1, scenario.storm_ms), action)
        self._network.repeats = 0.1 if "repeat" in scenario.faults else 0.0
        self._world.after(scenario.storm_ms, self._heal)

    def publish(self) -> None:
        """Tell every sidecar of a new table, each in its own time."""
        for name in sorted(self._sidecars):
            wait = self._world.chance.choice((0, 5, 60))
            self._world.after(wait, self._sidecars[name].learn)

    def watch(self) -> None:
        """Register sidecars that came back: another process gets its work under newer terms."""
        live = [name for name in sorted(self._sidecars) if self._sidecars[name].alive]
        for name in live:
            sidecar = self._sidecars[name]
            if self._router.up and self._router.boots[name] != sidecar.boot:
                self._router.boots[name] = sidecar.boot
                self._router.move(name, live)
                self._ledger.fault()
                self.publish()
                sidecar.learn()
        self._world.after(20, self.watch)

    def ended(self, name: str) -> None:
        """The lease of a sidecar has ended, if it is still away."""
        sidecar = self._sidecars[name]
        if sidecar.alive or not self._router.up:
            return
        live = [n for n in sorted(self._sidecars) if self._sidecars[n].alive]
        self._router.move(name, live)
        self.publish()

    def restart(self, name: str) -> None:
        """A dead sidecar comes back."""
        sidecar = self._sidecars[name]
        if not sidecar.alive:
            sidecar.host.up = True
            sidecar.start()
            self._world.say(f"{name} starts")

    def after_death(self, name: str) -> None:
        """See to it that its lease ends and that it comes back."""
        self._world.after(LEASE_MS, lambda: self.ended(name))
        back = self._world.chance.choice((10, 200, 1_000))
        self._world.after(back, lambda: self.restart(name))

    def _someone(self) -> SimSidecar:
        return self._sidecars[self._world.chance.choice(sorted(self._sidecars))]

    def _crash(self) -> None:
        sidecar = self._someone()
        if sidecar.alive:
            sidecar.die(with_services=self._world.odds(0.5))

    def _cut(self) -> None:
        if self._network.links:
            self._ledger.fault()
            self._network.cut(self._world.chance.choice(self._network.links))
            self._world.say("a link is cut")

    def _service_crash(self) -> None:
        sidecar = self._someone()
        if not sidecar.host.up:
            return
        sidecar.host.die()
        self._world.say(f"services of {sidecar.name} die")
        notice = self._world.chance.choice((0, 20, 200))
        self._world.after(notice, sidecar.services_down)
        self._world.after(notice + self._world.chance.choice((1, 50, 500)), self._back(sidecar))

    def _back(self, sidecar: SimSidecar) -> Callable[[], None]:
        def back() -> None:
            sidecar.host.up = True
            sidecar.services_up()

        return back

    def _reassign(self) -> None:
        if self._router.up:
            live = [name for name in sorted(self._sidecars) if self._sidecars[name].alive]
            self._ledger.fault()
            if self._world.odds(0.5):
                self._router.hand_over([self._world.chance.choice(self._ledger.partitions)])
            else:
                self._router.move(None, live)
            self.publish()

    def _zombie(self) -> None:
        """A sidecar lives on, cut off from the routers, which give its work to others."""
        sidecar = self._sidecars[self._world.chance.choice(self._router.runs("reader"))]
        if not sidecar.alive or sidecar.isolated:
            return
        sidecar.isolated = True
        self._world.say(f"{sidecar.name} is isolated")
        others = [n for n in sorted(self._sidecars) if self._sidecars[n].alive]
        others = [n for n in others if n != sidecar.name] or others

        def ended() -> None:
            self._ledger.fault()
            if self._world.odds(0.7):
                self._router.hand_over(self._ledger.partitions, away_from=sidecar.name)
            else:
                self._router.move(sidecar.name, others)
            self.publish()

        def wakes() -> None:
            # Its commits may reach the routers before their table reaches it.
            sidecar.isolated = False
            self._world.after(self._world.chance.choice((0, 60, 200)), sidecar.learn)

        self._world.after(LEASE_MS, ended)
        self._world.after(LEASE_MS + self._world.chance.choice((50, 500, 1_500)), wakes)

    def _new_version(self) -> None:
        if self._router.up:
            self._ledger.fault()
            self._router.change()
            self.publish()

    def _outage(self) -> None:
        def over() -> None:
            self._router.up = True

        self._router.up = False
        self._world.after(self._world.chance.choice((50, 300, 1_500)), over)

    def _drain(self) -> None:
        sidecar = self._someone()
        if not sidecar.alive or sidecar.draining:
            return
        sidecar.draining = True
        report = sidecar.report

        def leaves() -> None:
            if sidecar.report is report:
                sidecar.die()

        sidecar.on_drained = leaves
        report(Drain())
        self._world.say(f"{sidecar.name} drains")
        self._world.after(800, leaves)

    def _heal(self) -> None:
        self._world.say("the storm is over")
        self._network.repeats = 0.0
        self._router.up = True
        for name in sorted(self._sidecars):
            sidecar = self._sidecars[name]
            sidecar.isolated = False
            if sidecar.draining:
                sidecar.die()
            if not sidecar.alive:
                self.restart(name)
            if not sidecar.host.up:
                sidecar.host.up = True
                sidecar.services_up()
        self.publish()
