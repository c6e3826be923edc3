"""Providers that stall, babble, hang up, talk without an end or speak TLS wrongly: a second, good one must get the mail.

Each stands first in the order of ways; the sink of the run is the second. The program is started for each anew, so that no
breaker opened before, and must end in order while the bad one still holds its connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.certificates import issue, make_ca
from tests.support.upstream import Upstream
from tests.torture.messages import read
from tests.torture.report import Row
from tests.torture.source import Load
from tests.torture.stage import Plan, Stage, StoryError
from tests.torture.trials import bad_providers
from tests.torture.trials.bad_providers import Bad

MESSAGES = 12
QUICK_EVERY = 6  # of a quick run's variants
TIMEOUT_SECONDS = 1  # of the bad provider: what stalls is given up soon
LOAD = Load(sessions=4, sizes=(1_000, 4_000, 300_000))


def run(plan: Plan) -> Iterator[Row]:
    trusted, certificates = bad_providers.with_certificates(plan.folder / "certificates")
    tls = bad_providers.context(issue(make_ca(plan.folder / "third"), "127.0.0.1"))
    every = QUICK_EVERY if plan.is_quick else 1
    kinds: dict[str, Sequence[Bad]] = {
        "a provider that stalls": bad_providers.stalling(tls)[:: min(every, 3)],
        "a provider that answers garbage": bad_providers.babbling()[::every],
        "a provider that hangs up": bad_providers.hanging_up()[::every],
        "a provider that answers 10 MB": bad_providers.long_winded()[::every],
        "a provider that speaks TLS wrongly": bad_providers.speaking_tls_wrongly(tls)[:: min(every, 2)],
        "a provider with a wrong certificate": certificates,
    }
    for name, bad in kinds.items():
        yield _row(plan, name, bad, trusted)


def _row(plan: Plan, name: str, variants: Sequence[Bad], trusted: Path) -> Row:
    with Stage(plan) as stage:
        again = sum(_meet(stage, bad, trusted) for bad in variants)
        stage.program.start()
        return Row(name, len(variants), stage.end_story(again))


def _meet(stage: Stage, bad: Bad, trusted: Path) -> int:
    """Send mail while the bad provider stands first. Returns how many messages it took without saying so."""
    with Upstream(bad.behaviour) as upstream:
        upstream.on(bad.step, bad.answer)
        first = {"name": "bad", "host": "127.0.0.1", "port": upstream.port, "timeout": TIMEOUT_SECONDS, **bad.told}
        stage.program.settings["forwardProviders"] = [first, stage.provider]
        stage.program.start(environ={"SSL_CERT_FILE": str(trusted)})
        with stage.load(LOAD):
            stage.expect_promises(MESSAGES)
        taken = 0
        if bad.is_good:
            stage.book.wait_until(lambda: len(upstream.messages) >= MESSAGES, TIMEOUT_SECONDS)
        else:
            stage.book.wait_for_sink(TIMEOUT_SECONDS * 10)
        stage.program.terminate()
        for transaction in upstream.messages:
            stage.book.came(read(transaction.data, transaction.sender, transaction.recipients))
            taken += not bad.is_good
        if upstream.connections == 0:
            raise StoryError(f"{bad.name}: nobody came to the provider")
        if bad.is_good and not upstream.messages:
            raise StoryError(f"{bad.name}: the provider got no mail; {stage.program.tail()}")
    stage.program.settings["forwardProviders"] = [stage.provider]
    return taken
