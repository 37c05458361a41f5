"""The loops of the one process that decides: rollouts, drift, sending, the release list."""

import sys
import threading
import traceback
from collections.abc import Callable

from edge_core.errors import SerinusError
from fleet_server.config import ServerConfig
from fleet_server.mqtt_gateway import MqttGateway
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.suite import Services
from fleet_server.webhook_sender import WebhookSender

MOST_BATCHES = 20
"""Orders are sent so often in a row, then others have their turn."""


class Leader:
    """Two threads: one decides and sends, one keeps the list of approved releases.

    Of several processes one leads; the others ask again and again whether they may. All that these
    threads write is checked, in the same transaction, against who leads then.
    """

    def __init__(self, config: ServerConfig, services: Services, gateway: MqttGateway) -> None:
        self._config = config
        self._services = services
        self._gateway = gateway
        self._stop = threading.Event()
        self._complaints: dict[str, str] = {}
        self._watch = RepositoryWatch(config, services.catalog, services.repository_expiry)
        self._sender = WebhookSender(services.webhooks, private=config.webhooks.private)
        self._steps: tuple[tuple[str, Callable[[], object]], ...] = (
            ("commands", self._send_commands),
            ("drift", services.drift.observe),
            ("rollouts", services.rollouts.decide),
            ("desired states", self._send),
            ("fairness", services.fairness.watch),
            ("feedback loops", services.feedback_loops.watch),
            ("budgets", services.budgets.watch),
            ("retraining", services.retraining.watch),
            ("incidents", services.incidents.collect),
            ("webhooks", self._tell),
            ("labels", services.labels.forget),
            ("retention", services.retention.prune),
        )
        self._threads = [
            threading.Thread(target=self._decide, name="decisions", daemon=True),
            threading.Thread(target=self._list, name="repository", daemon=True),
        ]

    def start(self) -> None:
        """Look at the repository once where it leads, then run both loops."""
        self._guarded("leadership", self._services.leading.lead)
        self._look()
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> str:
        """Names of threads that should run and do not; empty where all do."""
        return ", ".join(f"{t.name} has ended" for t in self._threads if not t.is_alive())

    def stop(self) -> None:
        """End both loops after the step that they are in."""
        self._stop.set()
        self._services.rollouts.changed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(10)
        self._sender.close()
        self._services.leading.release()

    def _decide(self) -> None:
        changed = self._services.rollouts.changed
        while not self._stop.is_set():
            changed.clear()
            self._guarded("leadership", self._lead)
            changed.wait(self._config.windows.decide_every_seconds)

    def _lead(self) -> None:
        """One round, where this process is the one that decides."""
        leading = self._services.leading
        if not leading.lead():
            return
        measures = self._services.measures
        with self._services.database.fenced(leading.check), measures.round.time():
            for what, step in self._steps:
                with measures.step.labels(what).time():
                    self._guarded(what, step)

    def _send(self) -> None:
        """Send after the commit that wrote the rows; whatever fails is due again next time."""
        for _ in range(MOST_BATCHES):
            due = self._services.desired.to_send()
            if due and not self._services.leading.confirmed():
                return
            taken = self._gateway.send(due) if due else []
            if taken:
                self._services.desired.sent(taken)
            if not taken or len(taken) < len(due) or self._stop.is_set():
                return  # nothing is due, or the client takes no more now

    def _tell(self) -> None:
        """Put news into the outbox, and send what is due; the sender notes what came of it."""
        self._services.webhooks.collect()
        self._sender.send(self._services.leading.confirmed)

    def _send_commands(self) -> None:
        """Send what was ordered; what fails, or is not answered, is due again."""
        due = self._services.commands.to_send()
        if due and self._services.leading.confirmed():
            self._services.commands.sent(self._gateway.send_commands(due))

    def _list(self) -> None:
        while not self._stop.wait(self._config.repository.check_every_seconds):
            self._look()

    def _look(self) -> None:
        """Take over what the repository lists, where this process leads."""
        leading = self._services.leading
        if leading.leads:
            with self._services.database.fenced(leading.check):
                self._guarded("repository", self._watch.look)

    def _guarded(self, what: str, step: Callable[[], object]) -> None:
        """Run one step; a failure is told once and the step is tried again next time."""
        try:
            step()
        except SerinusError as error:
            self._complain(what, str(error))
        except Exception as error:
            if self._complain(what, repr(error)):
                traceback.print_exc()
        else:
            self._complaints.pop(what, None)

    def _complain(self, what: str, text: str) -> bool:
        self._services.measures.failures.labels(what).inc()
        if self._complaints.get(what) == text:
            return False
        self._complaints[what] = text
        print(f"{what}: {text}", file=sys.stderr, flush=True)
        return True
