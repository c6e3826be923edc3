"""One message over one conversation: what each fault of an upstream means for each recipient."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.mail.address import Address
from mailer.mail.content import CHUNK_BYTES, Content, FileContent, MemoryContent
from mailer.mail.envelope import Options
from mailer.mail.outcome import Delivery, MailerError, Reply, Stage, Verdict
from mailer.transport.transaction import GROUP_RECIPIENTS
from tests.support.upstream import EXTENSIONS, Answer, Behaviour, Disconnect, Stall, Upstream
from tests.transport.deliveries import BODY, delivery_to, provider_for

NO_PIPELINING = tuple(e for e in EXTENSIONS if e != "PIPELINING")


@pytest.fixture(params=["pipelining", "step by step"])
def upstream(request: pytest.FixtureRequest) -> Iterator[Upstream]:
    with Upstream(Behaviour(extensions=EXTENSIONS if request.param == "pipelining" else NO_PIPELINING)) as server:
        yield server


def deliver(upstream: Upstream, delivery: Delivery, timeout: int = 10) -> dict[int, Verdict]:
    provider = provider_for(upstream, timeout=timeout)
    provider.admit(len(delivery.recipients), time.time())
    try:
        return dict(provider.deliver(delivery))
    finally:
        provider.close()


def test_a_message_arrives_with_its_envelope(upstream: Upstream) -> None:
    verdicts = deliver(upstream, delivery_to("b@x.test", '"c d"@y.test', sender=""))
    [message] = upstream.wait_for(1)
    assert (message.sender, message.recipients, message.data) == ("", ("b@x.test", '"c d"@y.test'), BODY)
    assert all(v.is_delivered for v in verdicts.values())
    assert verdicts[0] == Verdict(Stage.DATA, Reply(250, "2.0.0", "taken 1"))


def test_size_and_body_are_declared(upstream: Upstream) -> None:
    deliver(upstream, delivery_to(content=BODY + b"caf\xc3\xa9\r\n"))
    deliver(upstream, delivery_to())
    first, second = upstream.wait_for(2)
    assert first.parameters == f"SIZE={len(BODY) + 7} BODY=8BITMIME"
    assert second.parameters == f"SIZE={len(BODY)}"


def test_nothing_is_declared_that_is_not_offered() -> None:
    with Upstream(Behaviour(extensions=())) as upstream:
        deliver(upstream, delivery_to(options=Options(body="8BITMIME")))
        assert upstream.wait_for(1)[0].parameters == ""


def test_a_refused_recipient_never_hurts_another(upstream: Upstream) -> None:
    upstream.on("rcpt", {"b@x.test": "550 5.1.1 no such user", "c@x.test": "452 4.2.2 full"})
    verdicts = deliver(upstream, delivery_to("a@x.test", "b@x.test", "c@x.test", "d@x.test"))
    assert upstream.wait_for(1)[0].recipients == ("a@x.test", "d@x.test")
    assert verdicts[1] == Verdict(Stage.RCPT, Reply(550, "5.1.1", "no such user"))
    assert verdicts[2] == Verdict(Stage.RCPT, Reply(452, "4.2.2", "full"))
    assert verdicts[0].is_delivered
    assert verdicts[3].is_delivered


@pytest.mark.parametrize("data_reply", [None, "354 go ahead", "503 5.5.1 no recipients"])
def test_when_every_recipient_is_refused_the_answer_to_data_says_nothing(upstream: Upstream, data_reply: str | None) -> None:
    upstream.on("rcpt", "550 5.1.1 no such user")
    upstream.on("data", data_reply)
    provider = provider_for(upstream)
    verdicts = provider.deliver(delivery_to("b@x.test", "c@x.test"))
    assert {v.reply.enhanced for v in verdicts.values()} == {"5.1.1"}
    assert {v.stage for v in verdicts.values()} == {Stage.RCPT}
    upstream.on("rcpt")
    upstream.on("data")
    assert provider.deliver(delivery_to("d@x.test"))[0].is_delivered, "the connection serves on"
    messages = [t for t in upstream.transactions if t.recipients]
    assert [m.recipients for m in messages] == [("d@x.test",)]
    assert all(t.data == b"" for t in upstream.transactions if not t.recipients)
    assert messages[0].data == BODY
    provider.close()


def test_a_refused_sender_is_a_verdict_for_everyone(upstream: Upstream) -> None:
    upstream.on("mail", "553 5.7.1 sender not owned")
    verdicts = deliver(upstream, delivery_to("b@x.test", "c@x.test"))
    assert set(verdicts.values()) == {Verdict(Stage.MAIL, Reply(553, "5.7.1", "sender not owned"))}
    assert upstream.messages == []


def test_content_refused_after_partial_acceptance_concerns_those_accepted(upstream: Upstream) -> None:
    upstream.on("rcpt", {"b@x.test": "550 5.1.1 no such user"})
    upstream.on("dot", "554 5.6.0 spam")
    verdicts = deliver(upstream, delivery_to("a@x.test", "b@x.test"))
    assert verdicts[0] == Verdict(Stage.DATA, Reply(554, "5.6.0", "spam"))
    assert verdicts[1] == Verdict(Stage.RCPT, Reply(550, "5.1.1", "no such user"))


def test_data_refused(upstream: Upstream) -> None:
    upstream.on("data", "451 4.3.0 not now")
    assert deliver(upstream, delivery_to())[0] == Verdict(Stage.DATA, Reply(451, "4.3.0", "not now"))


@pytest.mark.parametrize(
    ("step", "stage"),
    [
        ("connect", Stage.CONNECT),
        ("ehlo", Stage.EHLO),
        ("mail", Stage.MAIL),
        ("rcpt", Stage.RCPT),
        ("data", Stage.DATA),
        ("dot", Stage.DATA),
    ],
)
@pytest.mark.parametrize(
    ("answer", "enhanced"),
    [
        (Disconnect(), "4.4.2"),
        (Disconnect(reset=True), "4.4.2"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "4.5.0"),
        (b"250-" + b"x" * 200_000, "4.5.0"),
        (Disconnect("421 4.7.0 go away"), "4.7.0"),
        (Stall(), "4.4.2"),
    ],
    ids=["disconnect", "reset", "garbage", "endless", "421", "stall"],
)
def test_a_fault_at_any_step_is_a_temporary_verdict_of_that_step(
    upstream: Upstream, step: str, stage: Stage, answer: Answer, enhanced: str
) -> None:
    upstream.on(step, answer)
    seconds = 0.4 if isinstance(answer, Stall) else 20.0
    verdicts = deliver(upstream, delivery_to("b@x.test", "c@x.test", seconds=seconds))
    assert {v.stage for v in verdicts.values()} == {stage}
    for verdict in verdicts.values():
        assert verdict.reply.is_transient
        assert verdict.reply.enhanced == enhanced
        assert verdict.in_doubt == (step == "dot" and enhanced != "4.7.0")
    assert step == "dot" or upstream.transactions == []


@pytest.mark.parametrize("step", ["connect", "ehlo", "mail", "rcpt", "data", "dot"])
def test_a_reply_of_ten_megabytes_is_cut_short(step: str) -> None:
    with Upstream() as upstream:
        upstream.on(step, b"250-" + b"x" * 10_000_000 + b"\r\n250 ok\r\n")
        reply = deliver(upstream, delivery_to())[0].reply
        assert (reply.code, reply.enhanced) == (451, "4.5.0")
        assert len(reply.text) < 200


def test_the_timeout_of_a_step_holds_though_the_deadline_is_far(upstream: Upstream) -> None:
    upstream.on("mail", Stall())
    verdict = deliver(upstream, delivery_to(), timeout=1)[0]
    assert verdict == Verdict(Stage.MAIL, Reply(451, "4.4.2", "time-out: no answer"))


def test_421_to_one_recipient_leaves_nobody_accepted(upstream: Upstream) -> None:
    upstream.on("rcpt", None, Disconnect("421 4.3.2 shutting down"))
    verdicts = deliver(upstream, delivery_to("a@x.test", "b@x.test", "c@x.test"))
    assert {v.reply for v in verdicts.values()} == {Reply(421, "4.3.2", "shutting down")}
    assert upstream.messages == []


def test_a_message_whose_reply_was_lost_is_in_doubt(upstream: Upstream) -> None:
    upstream.on("dot", Disconnect(accepted=True))
    verdict = deliver(upstream, delivery_to())[0]
    assert verdict.in_doubt
    assert (verdict.stage, verdict.reply.code) == (Stage.DATA, 451)
    assert len(upstream.wait_for(1)) == 1


def test_421_after_the_content_is_an_answer_and_leaves_no_doubt(upstream: Upstream) -> None:
    upstream.on("dot", Disconnect("421 4.3.0 try later"))
    verdict = deliver(upstream, delivery_to())[0]
    assert not verdict.in_doubt
    assert verdict.reply.code == 421


def test_an_answer_before_the_content_was_sent_is_not_taken_for_its_reply(upstream: Upstream) -> None:
    upstream.on("data", b"354 go\r\n250 2.0.0 taken already\r\n")
    verdict = deliver(upstream, delivery_to())[0]
    assert not verdict.is_delivered
    assert verdict.reply.enhanced == "4.5.0"
    assert upstream.messages == []


@pytest.mark.parametrize(("step", "reply"), [("mail", "354 a"), ("rcpt", "354 a"), ("data", "250 a"), ("dot", "354 a")])
def test_a_reply_of_the_wrong_kind_is_nonsense(upstream: Upstream, step: str, reply: str) -> None:
    upstream.on(step, reply)
    verdict = deliver(upstream, delivery_to())[0]
    assert not verdict.is_delivered
    assert verdict.reply.enhanced == "4.5.0"


def test_content_is_dot_stuffed(upstream: Upstream) -> None:
    content = b".\r\n..\r\n.a\r\nb\r\n"
    deliver(upstream, delivery_to(content=content))
    [message] = upstream.wait_for(1)
    assert message.data == content
    assert message.raw == b"..\r\n...\r\n..a\r\nb\r\n"


def test_large_content_streams_from_its_file(upstream: Upstream, tmp_path: Path) -> None:
    line = b"." * 77 + b"\r\n"
    data = BODY + line * (3 * CHUNK_BYTES // len(line))
    path = tmp_path / "content"
    path.write_bytes(data)
    assert deliver(upstream, delivery_to(content=FileContent(path, len(data))))[0].is_delivered
    assert upstream.wait_for(1)[0].data == data


def test_content_cut_on_our_disk_is_never_ended_on_the_wire(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(BODY * 5000)
    verdict = provider_for(upstream).deliver(delivery_to(content=FileContent(path, len(BODY) * 6000)))[0]
    assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.LOCAL, 451, "4.3.0")
    assert not verdict.in_doubt
    upstream.wait_until(lambda: upstream.open_connections == 0)
    assert upstream.transactions == []


def test_content_that_cannot_be_rendered_asks_nothing_of_the_peer(upstream: Upstream) -> None:
    def refuse(extensions: frozenset[str], header_from: Address | None = None) -> Content:
        raise MailerError("no form for this peer")

    delivery = delivery_to()
    provider = provider_for(upstream)
    verdicts = provider.deliver(Delivery(delivery.envelope, delivery.recipients, refuse, delivery.deadline))
    assert verdicts[0] == Verdict(Stage.LOCAL, Reply(451, "4.6.0", "no form for this peer"))
    assert provider.deliver(delivery)[0].is_delivered
    assert upstream.connections == 1, "the connection is as good as before"
    provider.close()


class Permit:
    """A watch that says yes or no, and notes what the server had heard by then."""

    def __init__(self, upstream: Upstream, may_begin: bool) -> None:
        self._upstream = upstream
        self._may_begin = may_begin
        self.heard: list[str] = []

    def dialing(self) -> None:
        pass

    def begin(self) -> bool:
        self.heard = self._upstream.verbs()
        return self._may_begin


def test_leave_to_begin_is_asked_before_mail_is_said(upstream: Upstream) -> None:
    permit = Permit(upstream, True)
    assert deliver(upstream, delivery_to()._replace(watch=permit))[0].is_delivered
    assert permit.heard == ["EHLO"]


def test_without_leave_to_begin_nothing_is_sent_and_the_connection_is_kept(upstream: Upstream) -> None:
    provider = provider_for(upstream)
    refused = provider.deliver(delivery_to("b@x.test", "c@x.test")._replace(watch=Permit(upstream, False)))
    assert [(v.stage, v.reply.code, v.reply.enhanced) for v in refused.values()] == [(Stage.LOCAL, 451, "4.3.2")] * 2
    assert upstream.verbs() == ["EHLO"]
    assert provider.deliver(delivery_to())[0].is_delivered
    assert upstream.connections == 1
    provider.close()


def test_render_is_told_what_the_peer_offers(upstream: Upstream) -> None:
    seen: list[frozenset[str]] = []

    def note(extensions: frozenset[str], header_from: Address | None = None) -> Content:
        seen.append(extensions)
        return MemoryContent(BODY)

    delivery = delivery_to()
    deliver(upstream, Delivery(delivery.envelope, delivery.recipients, note, delivery.deadline))
    assert {"8BITMIME", "SMTPUTF8", "SIZE"} <= seen[0]


def test_a_message_over_the_peers_size_is_not_offered() -> None:
    with Upstream(Behaviour(extensions=("SIZE 20",))) as upstream:
        verdict = deliver(upstream, delivery_to())[0]
        assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.MAIL, 552, "5.3.4")
        assert "MAIL" not in upstream.verbs()


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE many", "SIZE 99999999999999999999999999"])
def test_an_odd_size_is_no_limit(size: str) -> None:
    with Upstream(Behaviour(extensions=(size,))) as upstream:
        assert deliver(upstream, delivery_to())[0].is_delivered


class TestAddressesBeyondAscii:
    def test_are_declared_where_the_peer_takes_them(self, upstream: Upstream) -> None:
        deliver(upstream, delivery_to("jürgen@bücher.test", options=Options(smtputf8=True)))
        [message] = upstream.wait_for(1)
        assert message.recipients == ("jürgen@bücher.test",)
        assert "SMTPUTF8" in message.parameters

    def test_go_to_the_next_way_where_it_does_not_and_the_others_are_delivered(self) -> None:
        with Upstream(Behaviour(extensions=("PIPELINING",))) as upstream:
            verdicts = deliver(upstream, delivery_to("jürgen@x.test", "b@x.test"))
            assert verdicts[0].stage is Stage.MAIL
            assert (verdicts[0].reply.code, verdicts[0].reply.enhanced) == (550, "5.6.7")
            assert verdicts[1].is_delivered
            assert upstream.wait_for(1)[0].recipients == ("b@x.test",)

    def test_a_domain_alone_is_sent_in_its_ascii_form(self) -> None:
        with Upstream(Behaviour(extensions=("PIPELINING",))) as upstream:
            assert deliver(upstream, delivery_to("b@bücher.test"))[0].is_delivered
            assert upstream.wait_for(1)[0].recipients == ("b@xn--bcher-kva.test",)

    @pytest.mark.parametrize(("content", "delivered"), [(BODY, True), ("From: Jürgen <a@b>\r\n\r\n".encode(), False)])
    def test_a_header_counts_only_if_it_needs_it(self, content: bytes, delivered: bool) -> None:
        with Upstream(Behaviour(extensions=())) as upstream:
            verdict = deliver(upstream, delivery_to(content=content, options=Options(smtputf8=True)))[0]
            assert verdict.is_delivered == delivered
            if not delivered:
                assert (verdict.stage, verdict.reply.enhanced) == (Stage.MAIL, "5.6.7")


def test_more_recipients_than_one_write_takes(upstream: Upstream) -> None:
    many = [f"r{i}@x.test" for i in range(2 * GROUP_RECIPIENTS + 7)]
    upstream.on("rcpt", {"r0@x.test": "550 5.1.1 no", f"r{GROUP_RECIPIENTS}@x.test": "550 5.1.1 no"})
    verdicts = deliver(upstream, delivery_to(*many))
    [message] = upstream.wait_for(1)
    assert len(message.recipients) == len(many) - 2
    assert [i for i, v in verdicts.items() if not v.is_delivered] == [0, GROUP_RECIPIENTS]


def test_a_refused_sender_ends_a_long_envelope_early(upstream: Upstream) -> None:
    upstream.on("mail", "550 5.7.1 no")
    many = [f"r{i}@x.test" for i in range(3 * GROUP_RECIPIENTS)]
    verdicts = deliver(upstream, delivery_to(*many))
    assert {v.stage for v in verdicts.values()} == {Stage.MAIL}
    assert len(verdicts) == len(many)
    assert upstream.verbs().count("RCPT") <= GROUP_RECIPIENTS


def test_a_refusal_in_the_middle_of_the_content_is_heard() -> None:
    """A server that says 552 while we send and hangs up: its reply is the verdict, not the broken connection."""
    with Upstream(Behaviour(extensions=("PIPELINING",))) as upstream:
        upstream.on("data", Disconnect("354 go\n552 5.3.4 too much"))
        content = BODY + b"x" * 70 + b"\r\n"
        verdict = deliver(upstream, delivery_to(content=content * 100_000))[0]
        assert not verdict.is_delivered
        assert not verdict.in_doubt
