"""The composition root: builds, starts and stops everything in one visible order.

``App`` owns every part and hands each what it needs; parts that must speak upwards get a callback here. It has two
threads of its own: one writes the counts of the sliding windows into the spool, one forgets what is old. ``start``
raises MailerError (a locked spool, a taken port …) and leaves nothing running; after that nothing here fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter

from mailer import __version__
from mailer.config.schema import Config
from mailer.dispatch.dispatcher import Dispatcher
from mailer.dispatch.ways import Ways
from mailer.events import DirectStatus, Hub, ProviderStatus
from mailer.front.keeper import Front
from mailer.observe.metrics import Metrics, Sources
from mailer.policy.limits import RateLimiter
from mailer.service import Service
from mailer.signing.hands import Hands
from mailer.signing.signer import Signers, read_ring
from mailer.smtp.server import SmtpServer
from mailer.spool.archive import Archive
from mailer.spool.failed import FailedStore
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Totals
from mailer.transport.peer import Surroundings
from mailer.transport.providers import ProviderSet
from mailer.web.server import WebServer
from mailer.window import Windows

log = logging.getLogger(__name__)

DAY_SECONDS = 86400.0
USAGE_SECONDS = 1.0
"""How often the counts of rate limits and quotas are written: a crash forgets at most so much of them."""
HOUSEKEEPING_SECONDS = 3600.0
LEFTOVER_SECONDS = 5.0
"""How long the last steps of hand-overs may take at the end; the next start finishes the rest."""

NEEDS_RESTART = {
    "smtpHost": attrgetter("smtp_host"),
    "smtpPort": attrgetter("smtp_port"),
    "tls.implicitPort": attrgetter("tls.implicit_port"),
    "dataDir": attrgetter("data_dir"),
    "queueSize": attrgetter("queue_size"),
    "enableHealthCheck": attrgetter("enable_health_check"),
    "healthCheckHost": attrgetter("health_check_host"),
    "healthCheckPort": attrgetter("health_check_port"),
    "processes": attrgetter("processes"),
}
"""What is bound or built once; everything else follows a reload."""


class App:
    """The running program. ``lines_dropped`` tells how many log lines were lost, for the metrics; ``listeners`` are
    listening sockets that a service manager handed over.

    It is also the ``web.application.Application`` that the HTTP pages ask.
    """

    def __init__(
        self,
        config: Config,
        lines_dropped: Callable[[], int] = lambda: 0,
        listeners: Sequence[socket.socket] = (),
        front: Front | None = None,
    ) -> None:
        self._config = config
        self.processors: Collection[int] = ()  # for signatures, where all other threads share one; set before the start
        self._listeners = listeners
        self._front = front
        self._lines_dropped = lines_dropped
        self._parts: _Parts | None = None
        self._at_stop = contextlib.ExitStack()
        self._draining = threading.Event()
        self.started_at = time.time()
        self.version = __version__

    def __repr__(self) -> str:
        return f"App({self._parts!r})"

    # its life

    def start(self, before_serving: Callable[[], None] = lambda: None) -> None:
        """Serve. Raises MailerError when that cannot be, and then nothing is left running.

        ``before_serving`` is called when the spool is open, however long that took, and no port yet.
        """
        with contextlib.ExitStack() as stack:
            self._parts = parts = _build(self._config, self, self._lines_dropped, self._front, stack)
            before_serving()
            parts.start(self._config, self._listeners, stack)
            self._at_stop = stack.pop_all()

    def reload(self, config: Config) -> list[str]:
        """Take a new configuration. Returns the keys whose change needs a restart."""
        changed = [key for key, of in NEEDS_RESTART.items() if of(config) != of(self._config)]
        self.parts.configure(config)
        self.parts.providers.check_logins()
        self._config = config
        return changed

    def drain(self, timeout_seconds: float) -> bool:
        """Stop accepting, and finish what is in flight; False when something had not ended within the time."""
        deadline = time.monotonic() + timeout_seconds
        self._draining.set()
        parts = self.parts
        parts.smtp.stop_accepting()
        sessions_ended = parts.smtp.close_sessions(timeout_seconds)
        delivered = parts.dispatcher.stop(max(1.0, deadline - time.monotonic()))
        return sessions_ended and delivered

    def stop(self) -> None:
        """End everything else, after ``drain``."""
        self._at_stop.close()

    @property
    def parts(self) -> _Parts:
        """What the program is made of, once started."""
        if self._parts is None:
            raise RuntimeError("the application was not started")
        return self._parts

    @property
    def smtp_port(self) -> int:
        return self.parts.smtp.port

    @property
    def http_port(self) -> int:
        """The port of the HTTP pages, 0 where they are off."""
        return self.parts.web.port if self.parts.web is not None else 0

    def listens_on(self) -> list[tuple[str, int]]:
        """The addresses and ports at which mail is heard."""
        smtp = self.parts.smtp
        return [(self._config.smtp_host, port) for port in (smtp.port, smtp.implicit_port) if port]

    # what the HTTP pages ask

    def totals(self) -> Totals:
        return self.parts.spool.totals()

    def failed_files(self) -> int:
        return self.parts.failed.count(time.monotonic())

    def disk_free_bytes(self) -> int:
        status = os.statvfs(self._config.data_dir)
        return status.f_bavail * status.f_frsize

    def why_not_accepting(self) -> str:
        if self._draining.is_set():
            return "stopping"
        return "" if self.parts.spool.accepting else "the spool cannot take mail: see the log, and the free space of dataDir"

    def why_not_ready(self) -> str:
        return self.why_not_accepting() or self.parts.dispatcher.why_stuck()

    def no_way_open(self) -> bool:
        return not self.parts.dispatcher.ways.is_open_somewhere(time.time())

    def oldest_due_seconds(self, now: float) -> float:
        oldest = self.parts.spool.oldest_due(now)
        return 0.0 if oldest is None else max(0.0, now - oldest)

    def provider_statuses(self) -> Sequence[ProviderStatus]:
        return self.parts.providers.statuses(time.time())

    def direct_status(self) -> DirectStatus | None:
        return self.parts.dispatcher.ways.direct_status(time.time())

    def metrics_text(self, openmetrics: bool) -> tuple[str, bytes]:
        return self.parts.metrics.exposition(openmetrics)

    def retry_failed(self) -> int:
        return self.parts.dispatcher.retry_failed()


@dataclass(frozen=True)
class _Parts:
    """Everything the program is made of, in the order in which mail passes through it."""

    hub: Hub
    metrics: Metrics
    spool: SqliteSpool
    failed: FailedStore
    archive: Archive
    limiter: RateLimiter
    providers: ProviderSet
    signers: Signers
    dispatcher: Dispatcher
    smtp: SmtpServer | Front
    web: WebServer | None
    chores: tuple[Service, ...]

    def start(self, config: Config, listeners: Sequence[socket.socket], stack: contextlib.ExitStack) -> None:
        """Start from the far end: who hears first would have nobody to hand on to. ``stack`` gets the ways back."""
        if self.web is not None:
            self.web.start()
            stack.callback(self.web.stop)
        self.smtp.start(listeners)
        stack.callback(self.smtp.stop_accepting)
        self.archive.start()
        self.dispatcher.intake.archive = self.archive if config.security.log_all_emails else None
        stack.callback(self.dispatcher.stop, LEFTOVER_SECONDS)
        self.dispatcher.start()
        self.providers.check_logins()
        for chore in self.chores:
            chore.start()
            stack.callback(chore.join, LEFTOVER_SECONDS)
            stack.callback(chore.stop)

    def configure(self, config: Config) -> None:
        """Take a new configuration: first what may still refuse it whole, providers before the dispatcher that asks them."""
        ring = read_ring(config.dkim)
        self.smtp.configure(config)
        self.providers.configure(config)
        self.signers.take(ring)
        self.dispatcher.ways.sign = self.signers.to_use
        self.limiter.configure(config.rate_limits)
        self.dispatcher.configure(config)
        self.dispatcher.intake.archive = self.archive if config.security.log_all_emails else None
        if self.web is not None:
            self.web.configure(config)


def _build(
    config: Config, app: App, lines_dropped: Callable[[], int], front: Front | None, stack: contextlib.ExitStack
) -> _Parts:
    """Make every part; only the spool and what lies under it take hold of anything outside."""
    hub = Hub()
    # Before the spool: without a key that is asked for there is nothing to start.
    signers = Signers(config.dkim, hands=Hands(app.processors))
    stack.callback(signers.close)
    spool = SqliteSpool.open(config.data_dir)
    failed = FailedStore(config.data_dir)
    archive = Archive(config.data_dir, config.security.archive_days)
    windows = Windows(spool.load_usage)
    providers = ProviderSet(config, windows, hub, Surroundings())
    dispatcher = Dispatcher(config, spool, failed, providers, hub)
    dispatcher.ways.sign = signers.to_use
    providers.on_breaker_closed = dispatcher.breaker_closed
    dispatcher.listens_on = app.listens_on
    # Ended in the reverse order: the spool writes its last records, then the files that follow them are put in place.
    stack.callback(archive.close)
    stack.callback(dispatcher.finish_parking)
    stack.callback(spool.close)
    stack.callback(lambda: spool.save_usage(windows.take_changes()))
    stack.callback(providers.close)
    limiter = RateLimiter(config.rate_limits, windows, hub)
    smtp: SmtpServer | Front
    if front is None:
        smtp = SmtpServer(config, dispatcher.intake, limiter, hub)
        dispatcher.intake.count_report = limiter.count_report
    else:
        smtp = front
        dispatcher.intake.count_report = front.count_report
        front.attach(config.data_dir, dispatcher.intake, spool, hub)
        stack.callback(front.end)
    sources = Sources(
        spool.totals,
        lambda: providers.statuses(time.time()),
        lambda: dispatcher.ways.direct_status(time.time()),
        lines_dropped,
        lambda: archive.dropped,
    )
    metrics = Metrics(hub, sources, __version__)
    web = WebServer(config, app) if config.enable_health_check else None
    chores = (
        Service("usage", _UsageKeeper(windows, spool)),
        Service("housekeeping", _Housekeeping(dispatcher.ways, spool, failed)),
        Service("providers", providers),
    )
    return _Parts(hub, metrics, spool, failed, archive, limiter, providers, signers, dispatcher, smtp, web, chores)


@dataclass(frozen=True)
class _UsageKeeper:
    """Writes the counts of rate limits and quotas down, so that they survive a restart."""

    windows: Windows
    spool: SqliteSpool

    def step(self, now: float) -> float:  # noqa: ARG002 - the Stepper's signature
        buckets = self.windows.take_changes()
        if buckets:
            self.spool.save_usage(buckets)
        return USAGE_SECONDS


@dataclass(frozen=True)
class _Housekeeping:
    """Forgets what is old: status rows, dead and quarantined files."""

    ways: Ways
    spool: SqliteSpool
    failed: FailedStore

    def step(self, now: float) -> float:
        kept = self.ways.config.spool  # of this moment: a reload may have changed it
        rows = self.spool.purge(now - kept.retention_days * DAY_SECONDS)
        files = self.failed.purge(now - kept.dead_days * DAY_SECONDS)
        if rows or files:
            log.info("housekeeping.done rows=%d files=%d", rows, files)
        return HOUSEKEEPING_SECONDS
