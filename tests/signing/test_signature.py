"""One signature is what plain dkimpy would make of the same message, byte for byte; and what a reader of RFC 6376 expects."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re

import dkim  # type: ignore[import-untyped]
import pytest
from dkim.canonicalization import CanonicalizationPolicy  # type: ignore[import-untyped]
from dkim.crypto import parse_pem_private_key  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.fields import split_header
from mailer.signing.canonical import BodyHash
from mailer.signing.keys import RSA, PrivateKey, make_key
from mailer.signing.signature import MAX_TIMES_SIGNED, Tags, signature_field
from tests.support.relay import ROOT

NOW = 1_795_000_000.5
NAMES = (b"from", b"to", b"subject", b"x-a")
TAGS = Tags("example.com", "mail", NAMES, 604800)
KEY = make_key(RSA, 1024)  # small, since dkimpy signs with it in Python

blanks = st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"  "])
words = st.sampled_from([b"a", b"b;", b"=", b":", b"<a@b.test>", b"\xff", b"x" * 80, b"b=1"])
values = st.lists(blanks | words, max_size=8).map(b"".join)
names = st.sampled_from([b"From", b"FROM", b"To", b"Subject", b"X-A", b"X-B", b"Message-ID"])
headers = st.lists(st.tuples(names, values), max_size=8).map(
    lambda fields: b"".join(name + b":" + value + b"\r\n" for name, value in fields)
)
bodies = st.lists(st.lists(blanks | words, max_size=4).map(b"".join), max_size=4).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


def made(header: bytes, body: bytes = b"", tags: Tags = TAGS, key: PrivateKey = KEY) -> bytes:
    hashed = BodyHash()
    hashed.update(body)
    return signature_field(key, tags, split_header(header), hashed.digest(), NOW)


def tag(field: bytes, name: str) -> str:
    text = re.sub(r"\r\n ", " ", field.decode())
    match = re.search(rf"[:;] {name}=([^;]*)", text)
    assert match is not None, (name, text)
    return match[1].strip()


class Plain(dkim.DKIM):  # type: ignore[misc]
    """dkimpy as it is, but for the time, and with ``x=``, which its ``sign`` does not know."""

    def signed(self, include: list[bytes]) -> bytes:
        policy = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
        self.hasher = hashlib.sha256
        bh = base64.b64encode(hashlib.sha256(policy.canonicalize_body(self.body or b"")).digest())
        fields = [
            (b"v", b"1"),
            (b"a", self.signature_algorithm),
            (b"c", policy.to_c_value()),
            (b"d", b"example.com"),
            (b"s", b"mail"),
            (b"t", b"%d" % NOW),
            (b"x", b"%d" % (NOW + 604800)),
            (b"h", b" : ".join(include)),
            (b"bh", bh),
            (b"b", b"0" * 60),
        ]
        value = self.gen_header(fields, include, policy, b"DKIM-Signature", parse_pem_private_key(KEY_PEM))
        return b"DKIM-Signature: " + bytes(value)


KEY_PEM = KEY.pem


@given(headers, bodies)
def test_it_is_what_plain_dkimpy_makes(header: bytes, body: bytes) -> None:
    message = b"X-First: 1\r\n" + header + b"\r\n" + body
    listed = [name for name in NAMES for found in dkim.rfc822_parse(message)[0] + [[b"From"]] if found[0].lower() == name]
    assert made(b"X-First: 1\r\n" + header, body) == Plain(message).signed(listed)


def test_the_version_of_dkimpy_is_the_one_that_the_seam_was_made_for() -> None:
    """A newer one may build otherwise: look at signature.py and at what these tests compare, then change both."""
    assert importlib.metadata.version("dkimpy") == "1.1.8"
    assert "dkimpy==1.1.8 " in (ROOT / "requirements.in").read_text()


def test_from_is_listed_once_more_than_it_occurs_and_others_as_often_as_they_do() -> None:
    field = made(b"From: a\r\nTo: b\r\nTo: c\r\nX-B: d\r\n")
    assert tag(field, "h") == "from : from : to : to"
    assert tag(made(b"FROM: a\r\nFrom : b\r\nSubject: s\r\n"), "h") == "from : from : from : subject"
    assert tag(made(b"To: b\r\n"), "h") == "from : to"


def test_a_field_that_is_repeated_without_end_is_listed_so_often_and_no_more() -> None:
    assert tag(made(b"To: b\r\n" * 1000), "h").count("to") == MAX_TIMES_SIGNED


def test_time_and_expiry() -> None:
    field = made(b"From: a\r\n")
    assert (tag(field, "t"), tag(field, "x")) == ("1795000000", "1795604800")
    field = made(b"From: a\r\n", tags=Tags("example.com", "mail", NAMES, 0))
    assert (tag(field, "t"), "x=" in field.decode(), "l=" in field.decode()) == ("1795000000", False, False)
    assert tag(field, "c") == "relaxed/relaxed"


@pytest.mark.parametrize("domain", ["a.test", "b" * 62 + ".test", "example.com"])
@pytest.mark.parametrize("selector", ["mail", "s" * 63])
def test_lines_are_short_and_no_name_is_folded_within(domain: str, selector: str) -> None:
    names = (b"from", b"x-" + b"n" * 58, b"content-transfer-encoding")
    header = b"From: a\r\n" + names[1] + b": 1\r\nContent-Transfer-Encoding: 8bit\r\n"
    field = made(header, tags=Tags(domain, selector, names, 60))
    assert max(map(len, field.split(b"\r\n"))) <= 78
    assert (tag(field, "d"), tag(field, "s")) == (domain, selector)
    assert tag(field, "h").split(" : ") == ["from", "from", "x-" + "n" * 58, "content-transfer-encoding"]
