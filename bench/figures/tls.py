"""The relay rate with TLS and a login upstream, over connections that are kept on both sides of the relay.

Timed as ``rate`` is, but the upstream is ``bench/receiver.py``, which takes any login: smtp-sink speaks no TLS and answers
AUTH with 250 (RFC 4954 4 wants 235), and a second Postfix would take more of the machine than what is measured. It is
the same for both relays. Both speak TLS from the first byte, verify the certificate and the name in it, log in once a
connection, and keep their connections: Postfix is told to (``smtp_tls_connection_reuse``,
``smtp_connection_cache_destinations``), mailer always does.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.call import Call, say
from bench.figures.rate import LOAD, rates
from bench.peers import PostfixRelay
from bench.receiver import Receiver
from bench.run import Line, runs
from bench.subjects import Mailer, Relay, provider
from bench.table import Row, at_least
from tests.support.certificates import Certificate, issue, make_ca

_USER, _PASSWORD = "bench", "a-password"


def measure(call: Call) -> list[Row]:
    say("tls")
    with ExitStack() as stack:
        folder = stack.enter_context(call.room("tls"))
        authority = make_ca(folder / "authority")
        certificate = issue(authority, "127.0.0.1", "localhost")
        upstreams = [stack.enter_context(Receiver(certificate)) for _ in range(2)]
        login: dict[str, object] = {"ssl": True, "username": _USER, "password": _PASSWORD}
        mailer = Mailer(call.program, folder, [provider(upstreams[0].port, **login)])
        mailer.environment = {"SSL_CERT_FILE": str(authority.cert_file)}
        postfix = PostfixRelay(upstreams[1].port, "Postfix, TLS and login", _postfix_settings(upstreams[1].port, authority))
        relays: tuple[Relay, ...] = (stack.enter_context(mailer), stack.enter_context(postfix))
        lines = [Line(relay, upstream) for relay, upstream in zip(relays, upstreams, strict=True)]
        ours, theirs = runs(call, lines, LOAD.of(call.size(LOAD.messages, 200)))
    return [Row("rate, TLS and login upstream", "msg/s", rates(ours), postfix.name, rates(theirs), at_least(2.5))]


def _postfix_settings(port: int, authority: Certificate) -> dict[str, str]:
    destination = f"[localhost]:{port}"  # a name: Postfix matches names in certificates, no addresses
    return {
        "relayhost": destination,
        "smtp_host_lookup": "native",
        "smtp_tls_wrappermode": "yes",
        "smtp_tls_security_level": "secure",
        "smtp_tls_secure_cert_match": "nexthop",
        "smtp_tls_CAfile": str(authority.cert_file),
        "smtp_tls_connection_reuse": "yes",
        "smtp_connection_cache_destinations": destination,
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_password_maps": f"static:{_USER}:{_PASSWORD}",
        "smtp_sasl_security_options": "noanonymous",
    }
