"""A program for the web to show: its state is set by the test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mailer.config.schema import Config
from mailer.events import DirectStatus, Hub, ProviderStatus
from mailer.observe.metrics import Metrics, Sources
from mailer.spool.store import Totals
from mailer.web.connection import Patience
from mailer.web.server import WebServer

GIB = 1 << 30
STARTED_AT = 1_790_000_000.0
NOW = STARTED_AT + 60


@dataclass
class Program:
    """Implements ``web.application.Application``."""

    counts: Totals = Totals()  # noqa: RUF009 - a frozen value
    files: int = 0
    free: int = 100 * GIB
    refusing: str = ""
    unready: str = ""
    is_closed: bool = False
    late: float = 0.0
    statuses: list[ProviderStatus] = field(default_factory=list)
    direct: DirectStatus | None = None
    parked: int = 0
    retries: int = 0
    fault: Exception | None = None
    version: str = "9.9.9"
    started_at: float = STARTED_AT
    hub: Hub = field(default_factory=Hub)

    def __post_init__(self) -> None:
        sources = Sources(self.totals, self.provider_statuses, self.direct_status, lambda: 0, lambda: 0)
        self.metrics = Metrics(self.hub, sources, self.version)

    def totals(self) -> Totals:
        return self.counts

    def failed_files(self) -> int:
        return self.files

    def disk_free_bytes(self) -> int:
        return self.free

    def why_not_accepting(self) -> str:
        return self.refusing

    def why_not_ready(self) -> str:
        return self.unready

    def no_way_open(self) -> bool:
        return self.is_closed

    def oldest_due_seconds(self, now: float) -> float:
        return self.late

    def provider_statuses(self) -> Sequence[ProviderStatus]:
        return self.statuses

    def direct_status(self) -> DirectStatus | None:
        return self.direct

    def metrics_text(self, openmetrics: bool) -> tuple[str, bytes]:
        return self.metrics.exposition(openmetrics)

    def retry_failed(self) -> int:
        if self.fault is not None:
            raise self.fault
        self.retries += 1
        return self.parked


def config(**settings: object) -> Config:
    return Config(health_check_port=0, hostname="relay.example", **settings)  # type: ignore[arg-type]  # tests name any key


@contextmanager
def serving(program: Program, settings: Config | None = None, patience: Patience = Patience()) -> Iterator[WebServer]:  # noqa: B008 - a frozen value
    server = WebServer(settings or config(), program, patience, clock=lambda: NOW)
    server.start()
    try:
        yield server
    finally:
        server.stop()
