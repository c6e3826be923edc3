"""MAIL and RCPT as a peer hears them: what is asked about delivery reports is passed on where DSN is offered."""

from __future__ import annotations

import time

import pytest

from mailer.mail.dsn import Dsn, Wish
from mailer.mail.envelope import Options
from mailer.mail.outcome import Verdict
from tests.support.upstream import EXTENSIONS, Behaviour, Upstream
from tests.transport.deliveries import BODY, delivery_to, provider_for

ASKED = Dsn(
    "HDRS",
    "QQ+2B314159",
    (
        ("b@x.test", Wish("SUCCESS,DELAY", "rfc822;B+2Btag@x.test")),
        ("c@x.test", Wish("NEVER")),
        ("d@x.test", Wish(original="utf-8;用@x.test")),
    ),
)
PEOPLE = ("b@x.test", "c@x.test", "d@x.test", "e+f@x.test")


def heard(upstream: Upstream) -> list[str]:
    return [line for _, line in upstream.commands if line.startswith(("MAIL", "RCPT"))]


def deliver(upstream: Upstream, *recipients: str, options: Options) -> dict[int, Verdict]:
    provider = provider_for(upstream)
    provider.admit(len(recipients), time.time())
    try:
        return dict(provider.deliver(delivery_to(*recipients, options=options)))
    finally:
        provider.close()


@pytest.mark.parametrize("extra", [("PIPELINING",), ()], ids=["pipelining", "step by step"])
def test_what_was_asked_is_passed_on_to_a_peer_with_dsn(extra: tuple[str, ...]) -> None:
    with Upstream(Behaviour(extensions=(*extra, "DSN", "SMTPUTF8"))) as upstream:
        verdicts = deliver(upstream, *PEOPLE, options=Options(dsn=ASKED.to_text(), smtputf8=True))
        assert heard(upstream) == [
            "MAIL FROM:<a@client.test> SMTPUTF8 RET=HDRS ENVID=QQ+2B314159",
            "RCPT TO:<b@x.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Btag@x.test",
            "RCPT TO:<c@x.test> NOTIFY=NEVER ORCPT=rfc822;c@x.test",
            "RCPT TO:<d@x.test> ORCPT=utf-8;用@x.test",
            "RCPT TO:<e+f@x.test> ORCPT=rfc822;e+2Bf@x.test",
        ]
        assert all(verdict.took_dsn for verdict in verdicts.values())


def test_a_peer_without_smtputf8_is_told_in_ascii() -> None:
    with Upstream(Behaviour(extensions=("PIPELINING", "DSN"))) as upstream:
        deliver(upstream, "d@x.test", "b@bücher.test", options=Options(dsn=ASKED.to_text()))
        assert heard(upstream)[1:] == [
            "RCPT TO:<d@x.test> ORCPT=utf-8;\\x{7528}@x.test",
            "RCPT TO:<b@xn--bcher-kva.test> ORCPT=utf-8;b@b\\x{FC}cher.test",
        ]


def test_a_peer_without_dsn_hears_nothing_of_it_and_takes_nothing_over() -> None:
    with Upstream(Behaviour(extensions=("PIPELINING",))) as upstream:
        verdicts = deliver(upstream, *PEOPLE, options=Options(dsn=ASKED.to_text()))
        assert heard(upstream) == ["MAIL FROM:<a@client.test>", *(f"RCPT TO:<{person}>" for person in PEOPLE)]
        assert not any(verdict.took_dsn for verdict in verdicts.values())


def test_nothing_asked_is_the_address_alone() -> None:
    with Upstream(Behaviour(extensions=(*EXTENSIONS, "DSN"))) as upstream:
        assert deliver(upstream, "b@x.test", options=Options())[0].took_dsn
        assert heard(upstream) == [f"MAIL FROM:<a@client.test> SIZE={len(BODY)}", "RCPT TO:<b@x.test> ORCPT=rfc822;b@x.test"]


def test_a_recipient_that_was_refused_was_taken_over_by_nobody() -> None:
    with Upstream(Behaviour(extensions=("PIPELINING", "DSN"))) as upstream:
        upstream.on("rcpt", {"c@x.test": "550 5.1.1 no such user"})
        verdicts = deliver(upstream, "b@x.test", "c@x.test", options=Options(dsn=ASKED.to_text()))
        assert (verdicts[0].took_dsn, verdicts[1].took_dsn) == (True, False)
        upstream.on("dot", "554 5.6.0 no")
        assert not deliver(upstream, "b@x.test", options=Options())[0].took_dsn


def test_what_a_hand_wrote_into_a_file_ends_no_command() -> None:
    with Upstream(Behaviour(extensions=("PIPELINING", "DSN"))) as upstream:
        text = '["FULL RSET","x\\r\\nRSET",{"b@x.test":["NEVER\\r\\nRSET","rfc822;b@x.test\\r\\nRSET"]}]'
        assert deliver(upstream, "b@x.test", options=Options(dsn=text))[0].is_delivered
        assert heard(upstream) == ["MAIL FROM:<a@client.test>", "RCPT TO:<b@x.test> ORCPT=rfc822;b@x.test"]
        assert "RSET" not in upstream.verbs()
