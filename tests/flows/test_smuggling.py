"""SMTP smuggling through the whole process: what was accepted as one message arrives as one message, whatever the
upstream would take for an end; and nothing of one command ever becomes part of another."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.flows.rerouting import DEBUG, named
from tests.smtp import smuggling
from tests.smtp.smuggling import FALSE_ENDINGS
from tests.support.certificates import issue, make_ca
from tests.support.relay import WAIT_SECONDS, Relay
from tests.support.upstream import Behaviour, Transaction, Upstream


@dataclass
class Exchange:
    """A relay between the attacker and two upstreams, one strict and one lenient about what ends a message."""

    relay: Relay
    upstreams: dict[str, Upstream]
    taken: dict[str, int] = field(default_factory=dict)

    def next_message(self, kind: str) -> Transaction:
        """The message that came since the last call; there must be one, and only one."""
        seen = self.taken.get(kind, 0)
        messages = self.upstreams[kind].wait_for(seen + 1)
        assert len(messages) == seen + 1
        self.taken[kind] = len(messages)
        return messages[seen]

    def talk(self, *pieces: bytes) -> list[bytes]:
        """Send the pieces, each in a write of its own, without waiting for any answer; all the reply lines."""
        with socket.create_connection(("127.0.0.1", self.relay.smtp_port), WAIT_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.sendall(piece)
            return lines_until_the_end(connection)


def lines_until_the_end(connection: socket.socket) -> list[bytes]:
    said = b""
    while piece := connection.recv(65536):
        said += piece
    return said.splitlines()


@pytest.fixture(scope="module", params=["normalize", "reject"])
def exchange(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    with Upstream() as strict, Upstream(Behaviour(lenient=True)) as lenient:
        upstreams = {"strict": strict, "lenient": lenient}
        providers = [named(kind, upstream, domains=[f"{kind}.test"]) for kind, upstream in upstreams.items()]
        with Relay(tmp_path_factory.mktemp("relay"), providers, bareNewlines=request.param, logging=DEBUG) as relay:
            yield Exchange(relay, upstreams)


def commands(kind: str) -> bytes:
    return f"MAIL FROM:<outer@example.com>\r\nRCPT TO:<victim@{kind}.test>\r\nDATA\r\n".encode()


def expect_one_message(exchange: Exchange, kind: str, ending: bytes, replies: list[bytes]) -> None:
    """What was sent arrived as one message, or was refused behind its real end and left nothing."""
    is_refused = smuggling.has_nul(ending) or (
        exchange.relay.settings["bareNewlines"] == "reject" and smuggling.has_bare_newline(ending)
    )
    assert [line[:3] for line in replies[-3:]] == [b"354", b"550" if is_refused else b"250", b"221"]
    if is_refused:
        # The next message that arrives is this one.
        exchange.talk(b"HELO app.test\r\n" + commands(kind) + b"Subject: next\r\n\r\nnext\r\n.\r\nQUIT\r\n")
        assert exchange.next_message(kind).data.endswith(b"\r\n\r\nnext\r\n")
    else:
        message = exchange.next_message(kind)
        assert (message.sender, message.recipients) == ("outer@example.com", (f"victim@{kind}.test",))
        assert message.data.partition(b"\r\nFrom: ")[2] == smuggling.content_of(ending).partition(b"From: ")[2]
        assert not {13, 10} & set(message.raw.replace(b"\r\n", b""))  # no bare CR or LF
    upstream = exchange.upstreams[kind]
    assert upstream.verbs().count("MAIL") == len(upstream.transactions) == len(upstream.messages)
    assert not any(smuggling.INNER_SENDER in line for _, line in upstream.commands)


@pytest.mark.parametrize("name", FALSE_ENDINGS)
@pytest.mark.parametrize("early", [b"", b"NOOP\r\n"], ids=["alone", "after an early command"])
@pytest.mark.parametrize("kind", ["strict", "lenient"])
def test_false_ending_never_makes_two_messages_of_one(exchange: Exchange, kind: str, early: bytes, name: str) -> None:
    ending = FALSE_ENDINGS[name]
    # All at once, so that whatever follows a false ending is there to be executed.
    replies = exchange.talk(b"EHLO app.test\r\n" + early + commands(kind) + smuggling.payload(ending) + b"QUIT\r\n")
    expect_one_message(exchange, kind, ending, replies)


@pytest.mark.parametrize("name", FALSE_ENDINGS)
def test_false_ending_cut_into_single_bytes_fares_the_same(exchange: Exchange, name: str) -> None:
    ending = FALSE_ENDINGS[name]
    payload = smuggling.payload(ending)
    start = payload.index(ending) - 2
    end = start + len(ending) + 4
    pieces = [payload[:start], *(payload[i : i + 1] for i in range(start, end)), payload[end:]]
    replies = exchange.talk(b"HELO app.test\r\n" + commands("lenient"), *pieces, b"QUIT\r\n")
    expect_one_message(exchange, "lenient", ending, replies)


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n"])
def test_lenient_upstream_would_fall_for_it(ending: bytes) -> None:
    with Upstream(Behaviour(lenient=True)) as upstream:
        with socket.create_connection((upstream.host, upstream.port), WAIT_SECONDS) as connection:
            connection.sendall(b"HELO app.test\r\n" + commands("lenient") + smuggling.payload(ending) + b"QUIT\r\n")
            lines_until_the_end(connection)
        assert [message.sender for message in upstream.messages] == ["outer@example.com", smuggling.INNER_SENDER]


def test_message_may_hold_a_whole_dialogue_behind_dots_and_arrives_as_it_was(exchange: Exchange) -> None:
    for kind in ("strict", "lenient"):
        body = b"..\r\n...\r\n. \r\nQUIT\r\n..QUIT\r\nMAIL FROM:<smuggled@example.com>\r\n"
        exchange.talk(b"HELO app.test\r\n" + commands(kind) + b"Subject: dots\r\n\r\n" + body + b".\r\nQUIT\r\n")
        message = exchange.next_message(kind)
        # On the way in the first dot of each line is the client's stuffing; ``. `` is a line of a space.
        assert message.data.endswith(b"\r\n\r\n.\r\n..\r\n \r\nQUIT\r\n.QUIT\r\nMAIL FROM:<smuggled@example.com>\r\n")


INJECTED_ADDRESSES = (
    b"<foo> ORCPT=x@strict.test>",
    b"<foo> ORCPT=x",
    b"<foo@strict.test> ORCPT=x@strict.test",
    b"<foo@strict.test> ORCPT=rfc822;x@strict.test NOTIFY=NEVER+0D+0A",
    b"<foo@strict.test> ORCPT=rfc822;x@strict.test+0D+0ARSET",
    b"<foo@strict.test>\rRCPT TO:<x@strict.test>",
    b"<foo@strict.test>\nRCPT TO:<x@strict.test>",
    b"<foo@strict.test\0>",
    b"<foo bar@strict.test>",
    b'<"foo> ORCPT=x"@strict.test>',
    b'<"foo\rbar"@strict.test>',
    b"<foo@strict.test\xc2\x85x>",
    b"<foo@strict.test>, <x@strict.test>",
    b"foo@strict.test",
)


@pytest.mark.parametrize("address", INJECTED_ADDRESSES)
def test_address_that_carries_a_parameter_or_a_line_never_reaches_an_upstream(exchange: Exchange, address: bytes) -> None:
    replies = exchange.talk(
        b"EHLO app.test\r\nMAIL FROM:" + address + b"\r\nRSET\r\n"
        b"MAIL FROM:<outer@example.com>\r\nRCPT TO:" + address + b"\r\nRCPT TO:<victim@strict.test>\r\n"
        b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
    )
    mail, *_, rcpt = (reply for reply in replies[9:] if reply.startswith(b"5"))
    assert (mail[:1], rcpt[:1]) == (b"5", b"5")
    message = exchange.next_message("strict")
    assert (message.sender, message.recipients) == ("outer@example.com", ("victim@strict.test",))
    assert not any("ORCPT" in line or "foo" in line for _, line in exchange.upstreams["strict"].commands)


@pytest.mark.parametrize("local_part", ['"a b"', '"a\\"b"', '"@"', "a+b=c!#$%&'*/?^_`{|}~", '"RCPT TO:x@y"', "-", '" "'])
def test_odd_address_that_is_one_arrives_unchanged(exchange: Exchange, local_part: str) -> None:
    address = f"{local_part}@strict.test"
    line = f"HELO app.test\r\nMAIL FROM:<{address}>\r\nRCPT TO:<{address}>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
    exchange.talk(line.encode())
    message = exchange.next_message("strict")
    assert (message.sender, message.recipients) == (address, (address,))


def test_what_a_client_sends_before_starttls_is_not_executed_within_it(tmp_path: Path) -> None:
    ca = make_ca(tmp_path)
    certificate = issue(ca, "127.0.0.1")
    tls = {"certFile": str(certificate.cert_file), "keyFile": str(certificate.key_file)}
    with Upstream() as upstream, Relay(tmp_path, [named("first", upstream)], tls=tls) as relay:
        for attempt in range(5):
            with socket.create_connection(("127.0.0.1", relay.smtp_port), WAIT_SECONDS) as raw:
                # In one write, so that the commands are in the relay's buffer when the handshake begins.
                raw.sendall(
                    b"EHLO app.test\r\nSTARTTLS\r\nMAIL FROM:<injected@example.com>\r\nRCPT TO:<to@example.org>\r\nDATA\r\n"
                )
                said = b""
                while b"220 2" not in said and (piece := raw.recv(65536)):
                    said += piece
                try:
                    with ssl.create_default_context(cafile=ca.cert_file).wrap_socket(raw, server_hostname="127.0.0.1") as sock:
                        sock.sendall(b"Subject: injected\r\n\r\nx\r\n.\r\nNOOP\r\nQUIT\r\n")
                        replies = lines_until_the_end(sock)
                except OSError:
                    replies = []  # the session was ended at once: as good
            assert not any(line.startswith((b"354", b"250 2.1")) for line in replies), f"attempt {attempt}"
        relay.send("after it")
        assert [m.sender for m in upstream.wait_for(1)] == ["from@example.com"]
