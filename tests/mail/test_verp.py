"""The envelope sender that names the recipient."""

from __future__ import annotations

import pytest

from mailer.mail.address import NULL_SENDER, Address
from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.verp import verp_sender, with_verp


@pytest.mark.parametrize(
    ("sender", "recipient", "named"),
    [
        ("news@example.com", "user@example.org", "news+user=example.org@example.com"),
        ("news@example.com", "a+b@Example.ORG", "news+a+b=example.org@example.com"),
        ("news@example.com", "user@例子.example", "news+user=xn--fsqu00a.example@example.com"),
        ("news@example.com", '"a b"@example.org', "news@example.com"),
        ('"a b"@example.com', "user@example.org", '"a b"@example.com'),
        ("news@example.com", "user@[127.0.0.1]", "news@example.com"),
        ("news@example.com", f"{'u' * 50}@example.org", "news@example.com"),
    ],
)
def test_the_sender_names_the_recipient_where_that_is_an_address(sender: str, recipient: str, named: str) -> None:
    assert str(verp_sender(Address.parse(sender), Address.parse(recipient, smtputf8=True))) == named


def test_nobody_stays_nobody_and_several_are_not_named() -> None:
    one, other = (Recipient(i, Address.parse(f"user{i}@example.org")) for i in range(2))
    envelope = Envelope("id", Address.parse("news@example.com"), (one, other), 1, 0.0)
    nobody = Envelope("id", NULL_SENDER, (one,), 1, 0.0)
    assert with_verp(nobody, (one,)) is nobody
    assert with_verp(envelope, (one, other)) is envelope
    assert str(with_verp(envelope, (one,)).sender) == "news+user0=example.org@example.com"
