from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.address import Address
from mailer.mail.idna import MAX_LABEL_OCTETS, to_ascii


@pytest.mark.parametrize(
    ("domain", "ascii_form"),
    [
        ("Example.TEST", "example.test"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),  # decomposed
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),  # the full stop of a Japanese keyboard
        ("ｅｘａｍｐｌｅ.test", "example.test"),
        ("почта.рф", "xn--80a1acny.xn--p1ai"),
        ("i❤.ws", "xn--i-7iq.ws"),
    ],
)
def test_a_domain_has_one_ascii_form(domain: str, ascii_form: str) -> None:
    assert to_ascii(domain) == ascii_form


@pytest.mark.parametrize(
    ("domain", "ascii_form"),
    [("straße.example", "xn--strae-oqa.example"), ("faß.de", "xn--fa-hia.de"), ("βόλος.com", "xn--nxasmm1c.com")],
)
def test_letters_that_idna_2003_gave_away_to_another_domain_stay(domain: str, ascii_form: str) -> None:
    assert to_ascii(domain) == ascii_form
    assert Address("a", domain).domain_key == ascii_form


@pytest.mark.parametrize(
    "domain",
    [
        "ü..example",
        "ü\u200bx.example",
        "ü x.example",
        "\u0301ü.example",  # begins with a mark
        "ü\u2100.example",  # a/c in one character
        "-ü.example ü-",
        "ü" * 60 + ".example",
        "\ue000.example",
        "ü.exa\u00admple",
    ],
)
def test_what_is_no_domain_name_is_refused(domain: str) -> None:
    with pytest.raises(ValueError, match="not a label"):
        to_ascii(domain)


@given(st.text(min_size=1, max_size=70))
def test_whatever_comes_is_made_into_bounded_labels_or_refused(text: str) -> None:
    try:
        made = to_ascii(text)
    except ValueError:
        return
    assert made.isascii()
    assert text.isascii() or all(0 < len(label) <= MAX_LABEL_OCTETS for label in made.split("."))
    assert to_ascii(made) == made
