"""Which form of the metrics a client is given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.web.negotiation import Form, metrics_form

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROTOBUF_FIRST = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5,"
    "text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form.JSON),
        ("*/*", Form.JSON),
        (BROWSER, Form.JSON),
        ("application/json", Form.JSON),
        ("application/*", Form.JSON),
        ("image/png", Form.JSON),
        ("application/json;q=0.9, text/plain;q=0.8", Form.JSON),
        ("text/plain;q=0.8, application/json;q=0.9", Form.JSON),
        ("application/json, text/plain, */*", Form.JSON),
        ("text/plain", Form.PROMETHEUS),
        ("TEXT/Plain; Version=0.0.4", Form.PROMETHEUS),
        ("text/*", Form.PROMETHEUS),
        ("*/*, text/plain", Form.PROMETHEUS),
        (PROTOBUF_FIRST, Form.PROMETHEUS),
        ("text/plain;q=0, */*", Form.JSON),
        ("text/plain;q=nonsense", Form.JSON),
        ("application/openmetrics-text;q=0,text/plain;q=0.001", Form.PROMETHEUS),
        ("application/openmetrics-text", Form.OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', Form.OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Form.PROMETHEUS),
        (PROMETHEUS_2, Form.OPENMETRICS),
        (PROMETHEUS_3, Form.OPENMETRICS),
    ],
)
def test_form_is_the_one_most_wanted(accept: str, form: Form) -> None:
    assert metrics_form(accept) is form


@given(st.text(alphabet="ab/*;q=0.15, tex plin", max_size=200))
def test_any_accept_has_an_answer(accept: str) -> None:
    assert metrics_form(accept) in Form
