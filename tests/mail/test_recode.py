"""Re-encoding: what a peer gets is the same message, in a form it can take. Python's email package is the reader here."""

from __future__ import annotations

import email
import email.policy
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.mail.content import CHUNK_BYTES, Content, FileContent, MemoryContent
from mailer.mail.mime import MAX_DEPTH, MAX_PARTS
from mailer.mail.recode import Form, recode

SEVEN_BIT = Form(seven_bit=True)
SHORT = Form(short_lines=True)
BOTH = Form(seven_bit=True, short_lines=True)
UMLAUTS = "Grüße aus Köln\r\n".encode()
LONG = b"x" * 1500 + b" y\r\n"


def read(content: Content) -> bytes:
    return b"".join(content.chunks())


def recoded(data: bytes, form: Form = BOTH) -> bytes:
    return read(recode(MemoryContent(data), form).content)


def left(data: bytes, form: Form = BOTH) -> tuple[str, ...]:
    return recode(MemoryContent(data), form).left


def in_file(folder: Path, data: bytes) -> FileContent:
    path = folder / "content"
    path.write_bytes(data)
    return FileContent(path, len(data))


def longest_line(data: bytes) -> int:
    return max(map(len, data.split(b"\r\n")))


def tree(data: bytes) -> Any:
    """What a reader sees: types, names and decoded payloads."""

    def node(part: Message) -> Any:
        if part.is_multipart():
            children = part.get_payload()
            return part.get_content_type(), tuple(node(child) for child in children)  # type: ignore[arg-type]
            # (typeshed does not know that a multipart's payload is a list of messages)
        return part.get_content_type(), part.get_filename(), part.get_payload(decode=True)

    return node(email.message_from_bytes(data, policy=email.policy.compat32))


def message(body: bytes, *fields: bytes) -> bytes:
    return b"".join(field + b"\r\n" for field in (b"From: a@x.test", *fields)) + b"\r\n" + body


def multipart(*parts: bytes, kind: bytes = b"mixed", boundary: bytes = b"b1") -> bytes:
    header = b'MIME-Version: 1.0\r\nContent-Type: multipart/%s; boundary="%s"\r\n\r\n' % (kind, boundary)
    return header + b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


# What must not change


@pytest.mark.parametrize("form", [Form(), SEVEN_BIT, SHORT, BOTH])
def test_content_that_needs_nothing_is_the_same_object(form: Form) -> None:
    content = MemoryContent(multipart(b"Content-Type: text/plain\r\n\r\nhello\r\n"))
    assert recode(content, form).content is content


def test_eight_bit_text_stays_when_only_long_lines_are_unwelcome() -> None:
    content = MemoryContent(message(UMLAUTS))
    assert recode(content, SHORT).content is content


@pytest.mark.parametrize("kind", [b"signed", b"encrypted"])
def test_what_a_signature_covers_is_left_alone_and_said_so(kind: bytes) -> None:
    sealed = multipart(b"Content-Type: text/plain\r\n\r\n" + UMLAUTS + LONG, kind=kind)
    assert recoded(sealed) == sealed
    assert left(sealed) == (f"multipart/{kind.decode()} must not be changed",)


def test_only_the_part_beside_a_signed_one_is_encoded() -> None:
    signed = multipart(b"Content-Type: text/plain\r\n\r\nsigned " + UMLAUTS, kind=b"signed", boundary=b"inner")
    result = recoded(multipart(signed, b"Content-Type: text/plain\r\n\r\n" + UMLAUTS))
    assert signed in result
    assert b"Gr=C3=BC=C3=9Fe aus K=C3=B6ln" in result


def test_clean_parts_and_structure_are_kept_to_the_byte() -> None:
    clean = b"Content-Type: image/png; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo="
    before = multipart(clean, b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + UMLAUTS)
    after = recoded(before)
    assert after.startswith(before[: before.index(clean) + len(clean)] + b"\r\n--b1\r\n")
    assert after.endswith(b"\r\n--b1--\r\n")


# Bodies


def test_text_becomes_quoted_printable_with_a_charset_that_fits() -> None:
    result = recoded(message(UMLAUTS))
    assert result == (
        b"From: a@x.test\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"MIME-Version: 1.0\r\n\r\nGr=C3=BC=C3=9Fe aus K=C3=B6ln\r\n"
    )


def test_text_that_is_not_utf8_is_labelled_unknown() -> None:
    result = recoded(message(b"Gr\xfc\xdfe\r\n", b"Content-Type: text/plain;"))
    assert b"Content-Type: text/plain; charset=unknown-8bit\r\n" in result
    assert b"Gr=FC=DFe" in result


def test_a_charset_that_is_named_is_believed() -> None:
    result = recoded(message(UMLAUTS, b"content-type: text/plain;\r\n charset=iso-8859-1", b"MIME-Version: 1.0"))
    assert b"utf-8" not in result
    assert result.count(b"MIME-Version") == 1


def test_the_old_encoding_is_replaced_in_its_place() -> None:
    fields = (b"MIME-Version: 1.0", b"content-transfer-encoding: 8bit", b"Subject: x", b"Content-Transfer-Encoding: binary")
    result = recoded(message(UMLAUTS, *fields))
    assert b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nSubject: x\r\nContent-Type" in result
    assert result.lower().count(b"content-transfer-encoding") == 1


def test_what_is_not_text_becomes_base64() -> None:
    part = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n" + bytes(range(14, 256)) * 20
    before = multipart(part, b"\r\nlast")
    result = recoded(before)
    assert tree(result) == tree(before)
    assert b"Content-Transfer-Encoding: base64" in result
    assert longest_line(result) == 76


def test_base64_on_one_endless_line_is_wrapped() -> None:
    before = message(b"QUJD" * 1000 + b"RA==\r\n", b"Content-Type: image/png", b"Content-Transfer-Encoding: BASE64")
    result = recoded(before, SHORT)
    assert tree(result) == tree(before)
    assert longest_line(result) == 76


def test_quoted_printable_that_is_none_is_repaired_without_encoding_it_twice() -> None:
    body = b"=C3=BC" * 300 + b"\xc3\xbc soft=\r\nbreak \r\n"
    before = message(body, b"Content-Type: text/plain; charset=utf-8", b"Content-Transfer-Encoding: quoted-printable")
    result = recoded(before)
    assert tree(result) == (("text/plain"), None, "ü".encode() * 301 + b" softbreak \r\n")
    assert longest_line(result) <= 76


def test_an_encoding_that_nobody_knows_is_left() -> None:
    before = message(LONG, b"Content-Transfer-Encoding: x-uuencode")
    assert recoded(before) == before
    assert left(before) == ("a part with an unknown Content-Transfer-Encoding",)


FRAGILE_LINES = [b"From me to you", b".", b"..", b"trailing blank ", b"tab\t", b"", b"=", b"." * 200, b"From " * 50]


@pytest.mark.parametrize("line", FRAGILE_LINES)
def test_quoted_printable_guards_what_does_not_survive_the_way(line: bytes) -> None:
    before = message(UMLAUTS + line + b"\r\n", b"Content-Type: text/plain; charset=utf-8")
    result = recoded(before)
    assert tree(result) == tree(before)
    body = result.partition(b"\r\n\r\n")[2]
    for sent in body.split(b"\r\n"):
        assert not sent.startswith((b".", b"From "))
        assert not sent.endswith((b" ", b"\t"))
        assert len(sent) <= 76


@pytest.mark.parametrize("shift", range(4))
def test_no_soft_break_splits_an_escape(shift: int) -> None:
    text = b"x" * shift + "ü".encode() * 100 + b"\r\n"
    escaped = b"x" * shift + b"=C3=BC" * 400 + b"\xff\r\n"
    plain = message(text, b"Content-Type: text/plain; charset=utf-8")
    broken = message(escaped, b"Content-Type: text/plain", b"Content-Transfer-Encoding: quoted-printable")
    assert tree(recoded(plain)) == tree(plain)
    assert tree(recoded(broken)) == tree(broken)


@pytest.mark.parametrize("shift", range(4))
def test_a_line_without_end_is_encoded_in_slices(shift: int, tmp_path: Path) -> None:
    text = b"x" * shift + "ü".encode() * 100_000 + b" \r\nend\r\n"
    escaped = b"x" * shift + b"=C3=BC" * 50_000 + b" \r\nend\r\n"
    plain = message(text, b"Content-Type: text/plain; charset=utf-8")
    broken = message(escaped, b"Content-Type: text/plain", b"Content-Transfer-Encoding: quoted-printable")
    for before in (plain, broken):
        after = read(recode(in_file(tmp_path, before), BOTH).content)
        assert tree(after)[2] == tree(before)[2].replace(b"\xbc\r", b"\xbc \r")
        assert longest_line(after.partition(b"\r\n\r\n")[2]) <= 76


def test_a_part_with_nothing_behind_it_ends_in_a_line_end() -> None:
    assert recoded(b"Content-Type: image/png\r\n\r\n\xff").endswith(b"/w==\r\n")
    assert recoded(b"\r\n\xff").endswith(b"=FF\r\n")


# Structure


def test_a_forwarded_message_is_encoded_within_and_never_itself() -> None:
    inner = message(UMLAUTS, b"Subject: inner")
    before = multipart(b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + inner)
    result = recoded(before)
    assert b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nFrom: a@x.test\r\n" in result
    assert result.count(b"MIME-Version: 1.0") == 2
    assert tree(result) == tree(before)


def test_parts_of_a_digest_are_messages() -> None:
    before = multipart(b"\r\n" + message(UMLAUTS), kind=b"digest")
    result = recoded(before)
    assert tree(result) == tree(before)
    assert result.index(b"quoted-printable") > result.index(b"From: a@x.test")


def test_an_outer_delimiter_ends_all_that_is_within() -> None:
    inner = multipart(b"Content-Type: text/plain\r\n\r\n" + UMLAUTS, boundary=b"b2").replace(b"--b2--\r\n", b"")
    before = multipart(inner, b"\r\nsecond " + UMLAUTS)
    result = recoded(before)
    assert tree(result) == tree(before)
    assert result.isascii()


def test_a_delimiter_of_a_multipart_that_is_over_is_text() -> None:
    inner = multipart(b"\r\nfirst", boundary=b"b2").replace(b"--b2--\r\n", b"")
    before = multipart(inner, b"\r\nsecond\r\n--b2\r\n" + UMLAUTS)
    result = recoded(before)
    assert tree(result) == tree(before)
    assert b"Content-Transfer-Encoding: quoted-printable\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nsecond" in result


def test_text_around_the_parts_is_made_fit_and_not_lost() -> None:
    before = multipart(b"\r\nplain").replace(b"\r\n\r\n--b1", b"\r\n\r\nPreamble \xff" + b"p" * 1200 + b"\r\n--b1", 1) + UMLAUTS
    result = recoded(before)
    assert result.isascii()
    assert longest_line(result) <= 998
    assert b"Preamble ?ppp" in result
    assert result.endswith(b"--b1--\r\nGr????e aus K??ln\r\n")


@pytest.mark.parametrize(
    "value",
    [
        b"multipart/mixed",
        b"multipart/mixed; boundary=",
        b'multipart/mixed; boundary=""',
        b'multipart/mixed; boundary="ends in a blank "',
        b"multipart/mixed; boundary=" + b"b" * 71,
        b"multipart/mixed; boundary=b1; boundary=b2",
        b'multipart/mixed; boundary="b\xff"',
        b'multipart/mixed; x="; boundary=b1"',
    ],
)
def test_a_multipart_without_a_usable_boundary_is_left(value: bytes) -> None:
    before = message(b"--b1\r\n\r\n" + UMLAUTS + b"--b1--\r\n", b"Content-Type: " + value)
    assert before.endswith(recoded(before).partition(b"\r\n\r\n")[2])
    assert "a multipart without a usable boundary" in left(before)


def test_a_multipart_whose_boundary_never_comes_is_left() -> None:
    before = message(UMLAUTS, b"Content-Type: multipart/mixed; boundary=b1")
    assert recoded(before) == before
    assert left(before) == ("a multipart whose boundary never comes",)


@pytest.mark.parametrize("quoted", [b'"a=b/c"', b"a=b/c", b'"a\\=b/c"', b'a=b/c (a comment); x=y'])
def test_boundaries_are_found_quoted_and_not(quoted: bytes) -> None:
    body = b"--a=b/c \t\r\n\r\n" + UMLAUTS + b"--a=b/c--\r\n"
    result = recoded(message(body, b"Content-Type: multipart/mixed;\r\n\tboundary=" + quoted))
    assert result.isascii()
    assert b"--a=b/c \t\r\nContent-Transfer-Encoding: quoted-printable\r\n" in result


def test_nesting_that_is_made_to_hurt_ends_in_a_sealed_part() -> None:
    before = b"Content-Type: message/rfc822\r\n\r\n" * 5000 + b"\r\n" + UMLAUTS
    assert recoded(before).endswith(UMLAUTS)
    assert left(before) == (f"nested deeper than {MAX_DEPTH}",)


def test_endlessly_many_parts_end_in_a_sealed_part() -> None:
    before = multipart(*[b"\r\nx"] * (MAX_PARTS + 10), b"\r\n" + UMLAUTS)
    assert recoded(before) == before
    assert left(before) == (f"more than {MAX_PARTS} parts",)


# Header fields


def test_long_fields_are_folded_at_white_space() -> None:
    references = b"References:" + b" <0123456789@x.test>" * 200
    before = message(b"hello\r\n", references)
    result = recoded(before, SHORT)
    assert longest_line(result) <= 998
    assert result.replace(b"\r\n <", b" <") == before
    assert email.message_from_bytes(result).get_payload() == "hello\r\n"


@pytest.mark.parametrize("field", [b"X-A: " + b"y" * 2000, b"X-A:" + b" " * 2500 + b"y"])
def test_a_field_without_a_place_to_fold_is_left(field: bytes) -> None:
    before = message(b"hello\r\n", field, b"Subject: x")
    result = email.message_from_bytes(recoded(before, SHORT), policy=email.policy.compat32)
    assert result["Subject"] == "x"
    assert result.get_payload() == "hello\r\n"


@pytest.mark.parametrize(
    ("field", "meaning"),
    [
        ("Subject: héllo wörld plain ünd", "héllo wörld plain ünd"),
        ("Subject: =?utf-8?q?a?= ü =?utf-8?q?b?=", "a ü b"),
        ("Subject: " + "中文" * 100, "中文" * 100),
        ('From: José García <j@x.test>, "Müller, \\"J\\"" <m@x.test>', 'José García <j@x.test>, "Müller, \\"J\\"" <m@x.test>'),
        ("To: a@x.test (Köln), Plain Ö <o@x.test>", "a@x.test, Plain Ö <o@x.test>"),
    ],
)
def test_header_text_beyond_ascii_becomes_encoded_words(field: str, meaning: str) -> None:
    result = recoded(message(b"hello\r\n" + UMLAUTS, field.encode()))
    assert result.isascii()
    assert longest_line(result.partition(b"\r\n\r\n")[0]) <= 120
    name = field.partition(":")[0]
    parsed = email.message_from_bytes(result.replace(b"From: a@x.test\r\n", b"", 1), policy=email.policy.default)
    assert str(parsed[name]) == meaning


def test_a_file_name_beyond_ascii_becomes_an_extended_parameter() -> None:
    field = 'Content-Disposition: attachment; filename="Grüße \\"x\\".pdf"; size=3'.encode()
    result = recoded(message(UMLAUTS, field))
    parsed = email.message_from_bytes(result, policy=email.policy.default)
    assert parsed.get_filename() == 'Grüße "x".pdf'
    assert result.isascii()


def test_an_address_beyond_ascii_cannot_be_encoded_and_is_left() -> None:
    before = message(UMLAUTS, "To: jösé@x.test".encode())
    assert "To: jösé@x.test\r\n".encode() in recoded(before)
    assert left(before) == ("a header field with characters beyond ASCII where none can be encoded",)


def test_header_fields_of_an_smtputf8_message_keep_their_characters() -> None:
    subject = "Subject: Grüße".encode()
    result = recoded(message(UMLAUTS, subject), Form(seven_bit=True, smtputf8=True))
    assert subject in result
    assert result.partition(b"\r\n\r\n")[2].isascii()


# What holds for every message

NAMES = st.sampled_from(["a", "b", "b2", "=_x", "long'()+_,-./:=? one"])
ODD_LINES = [b"hello", b"", b"--", b"From x", b".", b"=3D", b"x" * 998, b"x" * 999, b"w " * 700, b"\xc3\xbc" * 600, b"\xff "]
ANY_LINES = st.binary(max_size=120).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b""))
LINES = st.lists(st.one_of(st.sampled_from(ODD_LINES), ANY_LINES.map(lambda line: line.lstrip(b"-"))), max_size=5)
BODIES = LINES.map(b"\r\n".join)
TYPES = st.sampled_from([b"", b"text/plain", b"text/html; charset=latin1", b"image/x-y"]).map(
    lambda value: b"Content-Type: " + value + b"\r\n" if value else b""
)
ENCODINGS = st.sampled_from([b"", b"Content-Transfer-Encoding: 8bit\r\n", b"content-transfer-encoding:\r\n\tBinary \r\n"])


@st.composite
def leaves(draw: st.DrawFn) -> bytes:
    return draw(TYPES) + draw(ENCODINGS) + b"\r\n" + draw(BODIES)


@st.composite
def multiparts(draw: st.DrawFn, children: st.SearchStrategy[bytes]) -> bytes:
    parts = draw(st.lists(children, min_size=1, max_size=3))
    # The boundary of a multipart may occur nowhere in its parts (RFC 2046 5.1.1), so it says how large they are.
    boundary = f"{draw(NAMES)}{sum(map(len, parts))}".encode()
    preamble, epilogue = draw(BODIES), draw(BODIES)
    head = draw(ENCODINGS) + b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n\r\n'
    body = (preamble + b"\r\n" if preamble else b"") + b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return head + body + b"--" + boundary + b"--" + (b"\r\n" + epilogue if epilogue else b"")


@st.composite
def forwarded(draw: st.DrawFn, children: st.SearchStrategy[bytes]) -> bytes:
    return b"Content-Type: message/rfc822\r\n" + draw(ENCODINGS) + b"\r\nSubject: inner\r\n" + draw(children)


ENTITIES = st.recursive(leaves(), lambda children: st.one_of(multiparts(children), forwarded(children)), max_leaves=6)
MESSAGES = ENTITIES.map(lambda entity: b"Subject: test\r\n" + entity + b"\r\n")
FORMS = st.builds(Form, seven_bit=st.booleans(), short_lines=st.booleans())


@settings(max_examples=300, deadline=None)
@given(MESSAGES, FORMS)
def test_every_reader_sees_the_same_message(data: bytes, form: Form) -> None:
    result = recode(MemoryContent(data), form)
    after = read(result.content)
    assert tree(after) == tree(data)
    assert not result.left
    assert not form.short_lines or longest_line(after) <= 998
    assert not form.seven_bit or after.isascii()
    assert after.endswith(b"\r\n")
    again = recode(MemoryContent(after), form)
    assert read(again.content) == after


PIECES = [b"--b", b"--b--", b"--c", b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: multipart/x; boundary=c", b""]
PIECES += [b"Content-Type: message/rfc822", b"Content-Transfer-Encoding: base64", b"A: b", b" folded", b"\xff", b"z" * 999]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(PIECES), ANY_LINES), max_size=25),
    FORMS,
    st.booleans(),
)
def test_no_input_is_refused_and_clean_input_is_never_touched(pieces: list[bytes], form: Form, ends: bool) -> None:
    data = b"\r\n".join(pieces) + (b"\r\n" if ends else b"")
    result = recode(MemoryContent(data), form)
    after = read(result.content)
    if (data.isascii() or not form.seven_bit) and (longest_line(data) <= 998 or not form.short_lines):
        assert after == data
    if not result.left and form.seven_bit:
        assert after.isascii()
    assert b"\n" not in after.replace(b"\r\n", b"")
    assert b"\r" not in after.replace(b"\r\n", b"") or b"\r" in data.replace(b"\r\n", b"")


# Content in files, and render


def test_large_content_in_a_file_gives_the_same_bytes_as_in_memory(tmp_path: Path) -> None:
    big = b"Content-Type: application/pdf\r\n\r\n" + bytes(range(14, 256)) * 4000
    data = multipart(b"Content-Type: text/plain\r\n\r\n" + UMLAUTS * 9000 + LONG, big, b"\r\nend")
    result = recode(in_file(tmp_path, data), BOTH).content
    assert all(len(piece) <= CHUNK_BYTES for piece in result.chunks())
    assert read(result) == read(result) == recoded(data)
    assert result.size == len(recoded(data))
    assert [path.name for path in tmp_path.iterdir()] == ["content"]
