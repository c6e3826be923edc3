"""A free-threaded interpreter stays one: nothing that mailer imports, at its start or later, enables the lock again."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.certificates import issue, make_ca
from tests.support.relay import ROOT, Relay
from tests.support.upstream import Behaviour, Upstream

free_threaded = pytest.mark.skipif("t" not in sys.abiflags, reason="this interpreter is not a free-threaded one")

IMPORT_ALL = """
import importlib, pkgutil, sys
import mailer
from mailer import process
from mailer.config.schema import Config, DirectDeliveryConfig
for found in pkgutil.walk_packages(mailer.__path__, "mailer."):
    importlib.import_module(found.name)
process.is_frozen = lambda: True
process._is_executable_in_place = lambda: True
process.preload(Config(direct_delivery=DirectDeliveryConfig(enabled=True)))
print(sys._is_gil_enabled())
"""


@free_threaded
def test_no_module_enables_the_lock() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("False\n", "")


@free_threaded
def test_serving_process_has_no_lock_after_a_message_over_tls(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    own, theirs = issue(ca, "127.0.0.1"), issue(ca, "localhost")
    tls = {"certFile": str(own.cert_file), "keyFile": str(own.key_file)}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs.cert_file, theirs.key_file)
    with Upstream(Behaviour(tls=context)) as upstream:
        provider = {"host": "localhost", "port": upstream.port, "tls": "required", "insecureSkipVerify": True}
        with Relay(tmp_path, [provider], tls=tls) as relay:
            with relay.connect() as client:
                client.starttls(context=ssl._create_unverified_context())
                client.sendmail("from@example.com", "to@example.org", "Subject: test\r\n\r\nhello\r\n")
            upstream.wait_for(1)
            assert relay.http("/metrics", headers={"Accept": "text/plain"})[0] == 200
            assert relay.terminate() == 0
            assert 'free-threaded"' in relay.wait_for_line(r" start version=")
            assert "global interpreter lock" not in relay.output, "what the interpreter says when it enables it"
