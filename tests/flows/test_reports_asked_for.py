"""What clients ask about delivery reports (DSN) goes with the message wherever it goes, and messages come in chunks."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest

from mailer.mail.content import LARGE_BYTES
from tests.flows.parking import in_failed, retry_until
from tests.support.postfix import Postfix, Setup, require
from tests.support.relay import Relay, eventually, message
from tests.support.upstream import EXTENSIONS, Behaviour, Upstream

WITH_DSN = Behaviour(extensions=(*EXTENSIONS, "DSN"))
ONE_ATTEMPT = {"attemptsPerProvider": 1}
ASKED_OF_MESSAGE = ("RET=HDRS", "ENVID=QQ+2B314159")
ASKED_OF_RECIPIENT = ("NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;B+2Btag@example.org")


def heard(upstream: Upstream, verb: str) -> list[str]:
    return [line for _, line in upstream.commands if line.startswith(verb)]


def send(client: smtplib.SMTP, text: str = "hello") -> None:
    """By Python's own client."""
    client.sendmail("from@example.com", ["b@example.org"], message(text), ASKED_OF_MESSAGE, ASKED_OF_RECIPIENT)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_was_asked_survives_parking_and_a_restart(tmp_path: Path, processes: int) -> None:
    with Upstream(WITH_DSN) as upstream:
        upstream.on("rcpt", "450 4.2.1 busy")
        relay = Relay(tmp_path, [upstream], retry=ONE_ATTEMPT, processes=processes)
        with relay:
            with relay.connect() as client:
                send(client)
            eventually(lambda: len(in_failed(relay)) == 1, "the parked file")
            assert relay.terminate() == 0
        upstream.on("rcpt")
        upstream.commands.clear()
        with relay:
            retry_until(relay, lambda: in_failed(relay) == [], "the end of the file")
            [arrived] = upstream.wait_for(1)
        assert arrived.parameters.endswith(" ".join(ASKED_OF_MESSAGE))
        assert heard(upstream, "RCPT") == ["RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Btag@example.org"]


def test_a_thousand_recipients_with_an_original_each_cross_to_the_other_process(tmp_path: Path) -> None:
    people = {f"r{n}@example.org": f"ORCPT=rfc822;{'x' * 470}{n}@example.org" for n in range(1000)}
    with Upstream(WITH_DSN) as upstream, Relay(tmp_path, [upstream], processes=2, batchSize=1000) as relay:
        with relay.connect() as client:
            client.ehlo()
            client.mail("from@example.com", list(ASKED_OF_MESSAGE))
            for person, original in people.items():
                assert client.rcpt(person, [original])[0] == 250
            assert client.data(message("to many"))[0] == 250
        upstream.wait_for(1)
        assert heard(upstream, "RCPT") == [f"RCPT TO:<{person}> {original}" for person, original in people.items()]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("size", [100, LARGE_BYTES + 1000, 3_000_000])
def test_a_message_in_chunks_arrives_whole(tmp_path: Path, processes: int, size: int) -> None:
    content = message(".\r\n" + "\r\n".join(["0123456789" * 7] * (size // 72 + 1)))
    chunks = [content[at : at + 70_001] for at in range(0, len(content), 70_001)]
    with Upstream() as upstream, Relay(tmp_path, [upstream], processes=processes) as relay, relay.connect() as client:
        client.ehlo()
        client.mail("from@example.com")
        client.rcpt("b@example.org")
        for chunk in chunks:  # all at once: the replies are read below
            client.send(b"BDAT %d\r\n" % len(chunk) + chunk)
        client.send(b"BDAT 0 LAST\r\n")
        assert {client.getreply()[0] for _ in range(len(chunks) + 1)} == {250}
        [arrived] = upstream.wait_for(1)
        assert arrived.data.endswith(content)


def test_a_postfix_that_relays_to_us_passes_on_what_was_asked(tmp_path: Path) -> None:
    require()
    content = "a line\r\n.\r\n..\r\n" + "x" * 900
    with Upstream(WITH_DSN) as upstream, Relay(tmp_path, [upstream]) as relay:
        with Postfix(Setup(relay_to=("127.0.0.1", relay.smtp_port))) as postfix:
            with smtplib.SMTP(postfix.host, postfix.port) as client:
                send(client, content)
            [arrived] = upstream.wait_for(1)
        assert arrived.data.partition(b"\r\n\r\n")[2] == f"{content}\r\n".encode()
        assert arrived.parameters.endswith(" ".join(ASKED_OF_MESSAGE))
        assert heard(upstream, "RCPT") == ["RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Btag@example.org"]
