"""The whole program as a process of its own, for tests that tell a story: start, send, kill, start again.

    with Relay(tmp_path, providers=[upstream]) as relay:
        relay.send("hello")
        upstream.wait_for(1)

It drives the program only through what users have: the configuration, ports, signals, files and the log. Runs
``python mailer.py`` from the checkout, or the executable that ``MAILER_EXECUTABLE`` names.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.upstream import Upstream

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 30.0
"""How long a condition may take: generous, because the machine is shared."""
POLL_SECONDS = 0.02
"""Between two looks at what sends no signal: a file, an HTTP answer."""

FAST_RETRIES = {"attemptsPerProvider": 2, "baseDelay": 20, "maxDelay": 100}
"""Back-offs short enough for a test to see their end."""


class Relay:
    """One relay with its data folder; ``start`` and ``kill`` any number of times."""

    def __init__(self, folder: Path, providers: Sequence[Upstream | Mapping[str, Any]] = (), **settings: Any) -> None:
        self.data = folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.config_path = folder / "config.json"
        self.settings: dict[str, Any] = {
            "smtpHost": "127.0.0.1",
            "smtpPort": 0,
            "hostname": "relay.test",
            "healthCheckPort": 0,
            "dataDir": str(self.data),
            "security": {"requireAuth": False, "logAllEmails": False},
            "retry": FAST_RETRIES,
            "batchDelay": 0,
            "bounce": {"enabled": False},  # reports are mail too: tests of other things count without them
        }
        if providers:
            self.settings["forwardSMTP"] = True
            self.settings["forwardProviders"] = [provider_of(p) for p in providers]
        self.settings.update(settings)
        self.lines: list[str] = []
        self._news = threading.Condition()  # guards lines
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.smtp_port = 0
        self.http_port = 0

    def __enter__(self) -> Relay:
        return self if self._process is not None and self._process.poll() is None else self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended, or was never started."""
        return self._process is None or self._process.poll() is not None

    # its life

    def configure(self, **settings: Any) -> None:
        """Change the configuration file; it takes effect at the next start or reload."""
        self.settings.update(settings)
        self.write_config()

    def write_config(self) -> None:
        self.config_path.write_text(json.dumps(self.settings))

    def launch(self, environ: Mapping[str, str] | None = None, dies: str = "") -> None:
        """Start the process without waiting for it to serve. ``dies``: the step at which it does, see ``dying.py``."""
        self.write_config()
        executable = os.environ.get("MAILER_EXECUTABLE")
        program = [executable] if executable else [sys.executable, str(ROOT / "mailer.py")]
        if dies:
            program = [sys.executable, "-m", "tests.support.dying", dies]
        self._process = subprocess.Popen(
            [*program, "-config", str(self.config_path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def start(self, environ: Mapping[str, str] | None = None, dies: str = "") -> Relay:
        """Start and wait until it serves."""
        seen = len(self.lines)
        self.launch(environ, dies)
        line = self.wait_for_line(r" ready smtp=", since=seen)
        ports = dict(re.findall(r"(smtp|http)=(\d+)", line))
        self.smtp_port, self.http_port = int(ports["smtp"]), int(ports.get("http", 0))
        return self

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the process; its exit code."""
        if self._process is None:
            return 0
        code = self._process.wait(WAIT_SECONDS)
        if self._reader is not None:
            self._reader.join(WAIT_SECONDS)
        return code

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    # what it says

    @property
    def output(self) -> str:
        with self._news:
            return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, since: int = 0, count: int = 1) -> str:
        """The ``count``-th log line from ``since`` that matches, as soon as it is there."""
        expression = re.compile(pattern)
        deadline = time.monotonic() + WAIT_SECONDS
        with self._news:
            while True:
                found = [line for line in self.lines[since:] if expression.search(line)]
                if len(found) >= count:
                    return found[count - 1]
                ended = self._process is None or self._process.poll() is not None
                if (ended and not self._reader_is_busy()) or not self._news.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"no line {count} that matches {pattern!r} in:\n" + "\n".join(self.lines[since:]))

    def _reader_is_busy(self) -> bool:
        return self._reader is not None and self._reader.is_alive()

    def http(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """An HTTP call: the status and the body, JSON decoded where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=WAIT_SECONDS)
        try:
            connection.request(method, path, headers=dict(headers or {}))
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        is_json = (response.headers.get("Content-Type") or "").startswith("application/json")
        return response.status, json.loads(body) if is_json else body.decode()

    def health(self) -> dict[str, Any]:
        """The details of /health, with its status among them."""
        _, body = self.http("/health")
        return {"status": body["status"], **body["details"]}

    def metrics(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.http("/metrics")[1]
        return answer

    # mail

    def connect(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.smtp_port, local_hostname="app.test", timeout=WAIT_SECONDS)

    def send(self, text: str = "hello", to: str | Iterable[str] = "to@example.org", sender: str = "from@example.com") -> str:
        """Submit one message over a connection of its own; the id that the 250 named."""
        with self.connect() as client:
            return submit(client, text, to, sender)

    # files

    def files(self, folder: str, pattern: str = "*") -> list[Path]:
        """Files of ``emails/<folder>``, hidden ones left out."""
        return sorted(p for p in (self.data / "emails" / folder).glob(pattern) if p.is_file() and not p.name.startswith("."))

    def parked(self) -> list[dict[str, Any]]:
        """The messages in ``emails/failed``."""
        messages = []
        for path in self.files("failed", "*.json"):
            with contextlib.suppress(FileNotFoundError):  # delivered at this moment
                messages.append(json.loads(path.read_text()))
        return messages


def provider_of(provider: Upstream | Mapping[str, Any]) -> dict[str, Any]:
    """A provider's configuration: an upstream in clear text, or what is given."""
    if isinstance(provider, Upstream):
        return {"host": provider.host, "port": provider.port, "timeout": 10}
    return dict(provider)


def submit(
    client: smtplib.SMTP, text: str = "hello", to: str | Iterable[str] = "to@example.org", sender: str = "from@example.com"
) -> str:
    """Submit one message on an open connection; the id that the 250 named."""
    recipients = [to] if isinstance(to, str) else list(to)
    client.ehlo_or_helo_if_needed()
    for code, reply in (client.mail(sender), *(client.rcpt(r) for r in recipients), client.data(message(text))):
        if not 200 <= code <= 299:
            raise smtplib.SMTPResponseException(code, reply)
    return reply.decode().split()[-1]


def message(text: str) -> bytes:
    return f"From: from@example.com\r\nTo: to@example.org\r\nSubject: test\r\n\r\n{text}\r\n".encode()


def eventually(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait for something that sends no signal: a file, an HTTP answer."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {WAIT_SECONDS:g} s")
        time.sleep(POLL_SECONDS)
