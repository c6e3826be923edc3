"""What the optional parts cost together: the rate with all of them on, over the rate with all of them off.

On: log lines at info, the archive, rate limits (far above the load), and /metrics scraped each second in Prometheus's form.
Off: log lines from error on, no archive, no limits, nobody scrapes. Two mailers take turns; timed as ``rate`` is.
"""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.call import Call, say
from bench.figures.rate import LOAD, rates
from bench.run import Line, Run, run, runs
from bench.subjects import ANSWER_SECONDS, Mailer, provider
from bench.table import Row, at_least
from bench.traffic import Sink

SCRAPE_SECONDS = 1.0
_FAR_ABOVE = 10**9
_ON: dict[str, object] = {
    "logging": {"level": "info"},
    "security": {"requireAuth": False, "logAllEmails": True},
    "rateLimits": {
        "enabled": True,
        **dict.fromkeys(("maxPerHour", "maxPerDay", "globalMaxPerHour", "globalMaxPerDay"), _FAR_ABOVE),
    },
}
_OFF: dict[str, object] = {
    "logging": {"level": "error"},
    "security": {"requireAuth": False, "logAllEmails": False},
    "rateLimits": {"enabled": False},
}


def measure(call: Call) -> list[Row]:
    say("options")
    load = LOAD.of(call.size(LOAD.messages, 200))
    with ExitStack() as stack:
        sinks = [stack.enter_context(Sink()) for _ in range(2)]
        rooms = [stack.enter_context(call.room("options")) for _ in range(2)]
        all_on = stack.enter_context(Mailer(call.program, rooms[0], [provider(sinks[0].port)], **_ON))
        all_off = stack.enter_context(Mailer(call.program, rooms[1], [provider(sinks[1].port)], **_OFF))
        lines = [Line(all_on, sinks[0]), Line(all_off, sinks[1])]

        def measured(line: Line) -> Run:
            with _scraping(all_on) if line.relay is all_on else ExitStack():
                return run(line, load)

        ours, theirs = runs(call, lines, load, measured)
    return [Row("rate, every optional part on", "msg/s", rates(ours), "mailer, all off", rates(theirs), at_least(0.8))]


@contextmanager
def _scraping(mailer: Mailer) -> Iterator[None]:
    """A scraper, each second, for the time of a block."""
    ends = threading.Event()
    accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
    request = urllib.request.Request(f"http://127.0.0.1:{mailer.http_port}/metrics", headers=accept)

    def scrape() -> None:
        while not ends.is_set():
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                answer.read()
            ends.wait(SCRAPE_SECONDS)

    thread = threading.Thread(target=scrape, name="scraper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
