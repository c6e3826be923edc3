"""A real token endpoint on loopback, over HTTP or HTTPS, that answers as the test says and notes what it was asked."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Form = dict[str, str]
Answerer = Callable[[Form], tuple[int, bytes]]


def tokens(*fields: dict[str, object]) -> Answerer:
    """Answers each request with the next of these JSON objects; the last one stays."""
    queue = list(fields)
    lock = threading.Lock()

    def answer(_form: Form) -> tuple[int, bytes]:
        with lock:
            return 200, json.dumps(queue.pop(0) if len(queue) > 1 else queue[0]).encode()

    return answer


class TokenServer:
    """``answer`` may be exchanged at any time; ``forms`` are the requests seen."""

    def __init__(self, answer: Answerer, context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.forms: list[Form] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = dict(urllib.parse.parse_qsl(body))
                outer.forms.append(form)
                status, answered = outer.answer(form)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", answered.decode())
                self.end_headers()
                self.wfile.write(answered)

            do_GET = do_POST  # noqa: N815 - the name is http.server's

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> TokenServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
