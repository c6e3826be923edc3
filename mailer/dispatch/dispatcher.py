"""The delivering half of the program as one thing: built, started, reloaded and stopped by ``app.py``.

It owns three service threads (schedule, parking, crew) besides the workers, and two more, ``direct`` and ``tls-policies``,
from when mail first goes to the recipients' own servers. What each does and how it fails is said in its module; this one
only joins them.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from mailer.config.schema import Config
from mailer.dispatch.bounce import Reporter
from mailer.dispatch.crew import Crew
from mailer.dispatch.deliverer import Deliverer
from mailer.dispatch.ending import NO_WAY, Ending
from mailer.dispatch.intake import Intake
from mailer.dispatch.ledger import Ledger
from mailer.dispatch.parking import Parking
from mailer.dispatch.queue import FairQueue
from mailer.dispatch.round import Rules
from mailer.dispatch.schedule import Schedule
from mailer.dispatch.ways import WORKERS_PER_COUNT, Ways
from mailer.events import Hub
from mailer.service import Service
from mailer.spool.failed import FailedStore
from mailer.spool.store import Store
from mailer.transport.local import LocalFiles
from mailer.transport.providers import ProviderSet

if TYPE_CHECKING:  # imported when it is enabled: it brings DNS along, which most installations never need
    from mailer.transport.direct import DirectDelivery

log = logging.getLogger(__name__)

STUCK_MARGIN_SECONDS = 60.0
"""Over ``processingTimeout``, before a standstill is called one."""
PARKING_END_SECONDS = 5.0


class Dispatcher:
    """Delivers what ``intake`` accepted; see the module. ``listens_on`` names the addresses and ports of this program's own
    listeners: mail for those would go round in circles."""

    def __init__(self, config: Config, store: Store, failed: FailedStore, providers: ProviderSet, hub: Hub) -> None:
        self._store = store
        self._hub = hub
        self._providers = providers
        self.listens_on: Callable[[], Collection[tuple[str, int]]] = lambda: ()
        self._direct: DirectDelivery | None = None
        self._direct_services: tuple[Service, ...] = ()
        self.ways = Ways(config, providers, LocalFiles(config.data_dir), _rules(config))
        self._queue = FairQueue(config.queue_size, self.ways.limit_of)
        self._schedule = Schedule(store, self._queue, self.ways, self._wake_schedule)
        self._parking = Parking(store, failed, self._schedule, self.ways.lane, self._wake_parking)
        self._parking.interval_seconds = config.retry.failed_retry_interval
        ledger = Ledger(store, self._schedule, self._parking, hub, config.worker_count * WORKERS_PER_COUNT)
        self.intake = Intake(store, self._schedule, self.ways, hub)
        ending = Ending(self.ways, ledger, Reporter(store, self.intake, self.ways))
        deliverer = Deliverer(store, self._queue, self.ways, ending, self._parking, hub)
        self._crew = Crew(store, self._queue, self._schedule, deliverer.process, config.worker_count)
        self._schedule_service = Service("schedule", self._schedule)
        self._parking_service = Service("parking", self._parking)
        self._crew_service = Service("crew", self._crew)
        self._crew.on_wake = self._crew_service.wake

    def __repr__(self) -> str:
        return f"Dispatcher({self._queue!r}, {self._schedule!r}, {self._crew!r})"

    def start(self) -> None:
        """End what a crash cut short, then start the threads."""
        self._configure_direct(self.ways.config)
        self._parking.recover()
        left = self._store.totals()
        if left.queued or left.parked:
            log.info("spool.waiting queued=%d parked=%d: from before this start", left.queued, left.parked)
        for service in (self._schedule_service, self._parking_service, self._crew_service):
            service.start()

    def configure(self, config: Config) -> None:
        """Take a new configuration; the provider set has been configured before. ``queueSize`` needs a restart."""
        self._configure_direct(config)
        self.ways.configure(config, _rules(config))
        self._queue.forget_limits()
        self._parking.interval_seconds = config.retry.failed_retry_interval
        self._crew.set_count(config.worker_count)
        self._store.make_due(time.time(), NO_WAY)
        self._schedule.look_again()

    def _configure_direct(self, config: Config) -> None:
        """Have the way to the recipients' own servers from when it is first enabled; later it only takes configurations."""
        if self._direct is not None:
            self._direct.configure(config)
        elif config.direct_delivery.enabled:
            from mailer.transport.direct import DirectDelivery, Surroundings  # noqa: PLC0415 - see above

            self._direct = self.ways.direct = DirectDelivery(config, self._hub, Surroundings(listens_on=self.listens_on))
            self._direct.on_limit_changed = self._queue.set_limit
            self._direct.on_breaker_closed = self.breaker_closed
            self._direct.policies.reporter.submit = self.intake.accept_report
            self._direct_services = Service("direct", self._direct), Service("tls-policies", self._direct.policies)
            for service in self._direct_services:
                service.start()

    def breaker_closed(self, name: str) -> None:
        """What waited or was parked for that provider's sake is due (spec 4)."""
        self._parking.opened_again(name)

    def retry_failed(self) -> int:
        """Close all breakers, take up files dropped in, and make every parked message due. Returns how many are due.

        Raises SpoolError when the spool cannot write; the breakers are closed all the same.
        """
        now = time.time()
        try:
            self._parking.scan(now)
            return self._store.make_due(now)
        finally:
            self._schedule.call_again(None)
            self._providers.close_all_breakers()
            if self._direct is not None:
                self._direct.close_all_breakers()
            self._schedule.look_again()

    @property
    def sending(self) -> int:
        """How many messages are in a worker's hands."""
        return self._crew.busy

    def why_stuck(self) -> str:
        """Why deliveries make no progress, in words for an operator; empty when they do."""
        if not (self._schedule_service.is_alive and self._parking_service.is_alive and self._crew_service.is_alive):
            return "a thread of the dispatcher has ended: restart, and report the log"
        idle = self._crew.seconds_without_progress()
        if idle > self.ways.config.processing_timeout + STUCK_MARGIN_SECONDS:
            return f"messages are waiting and no delivery began or ended for {idle:.0f} s"
        return ""

    def stop(self, timeout_seconds: float) -> bool:
        """Finish what is in flight; False when something had not ended within the time. The rest waits on disk."""
        self._schedule.pause()
        self._crew_service.stop()
        finished = self._crew.stop(timeout_seconds)
        self._schedule_service.stop()
        self._schedule_service.join(timeout_seconds)
        for service in self._direct_services:
            service.stop()
        if self._direct is not None:
            self._direct.close()
            self._direct.policies.close()
        return finished

    def finish_parking(self) -> None:
        """The last steps of hand-overs, once the spool has written its last records; the next start does what is left."""
        self._parking_service.stop()
        self._parking_service.join(PARKING_END_SECONDS)
        self._parking.finish_tasks()

    def _wake_schedule(self) -> None:
        self._schedule_service.wake()

    def _wake_parking(self) -> None:
        self._parking_service.wake()


def _rules(config: Config) -> Rules:
    retry = config.retry
    return Rules(
        attempts_per_provider=max(1, retry.attempts_per_provider),
        passes=max(1, config.direct_delivery.retry_count),
        base_delay=retry.base_delay / 1000,
        max_delay=retry.max_delay / 1000,
        batch_delay=config.batch_delay / 1000,
        continue_on_error=config.continue_on_error,
        jitter=random.random,
    )
