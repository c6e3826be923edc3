"""Serving: owns the life of the process from reading the configuration to the exit code.

The main thread does all of it: it starts the application, then waits in the signal pipe; only a drain runs in a thread
of its own, so that a second request to stop is heard meanwhile. No locks: what the drain found is read after its end.

It fails with an exit code of sysexits.h and a line on standard error (``cli/failure.py``) while starting; once it
serves, only a signal ends it. An invalid configuration at SIGHUP is logged and the old one stays.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from mailer import __version__, process
from mailer.app import App
from mailer.cli import background, failure, interpreter, systemd
from mailer.cli.pidfile import Pidfile
from mailer.cli.signals import STOPPING, SignalPipe, Stop, StopRequests, Terminal, die_of
from mailer.config.load import Loaded, load
from mailer.config.problems import ConfigError
from mailer.config.schema import Config
from mailer.config.setting import settings_of
from mailer.front.fork import fork_front
from mailer.front.keeper import Front
from mailer.mail.outcome import MailerError
from mailer.observe import log as logs

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
"""Spec 4: what is in flight at SIGTERM has so long to finish. Service managers wait longer: deploy/mailer.service."""

OWN_FILES = 200
"""Open files beside the clients' and providers' connections: spool, logs, bodies of large messages, libraries."""

_IDLE_SECONDS = 3600.0
"""The longest wait of the main thread: it has only the unpack folder to look after."""


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit code."""
    process.tie_to_launcher()
    processors = os.sched_getaffinity(0)
    chosen = process.share_one_processor()  # before there are threads: each inherits it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until we serve there is nothing to finish: just end
    try:
        if arguments.output:
            background.redirect(arguments.output)
        faulthandler.enable()
        loaded = load(arguments.config, os.environ)
    except (MailerError, OSError) as fault:
        return failure.report(fault)
    listeners = systemd.take_listeners(os.environ)
    front = None
    if (loaded.config.processes or min(len(processors), 2)) > 1:
        front = fork_front(loaded.config, listeners, _FrontProcess(arguments, loaded.config, os.getpid(), processors, chosen))
        listeners = []
    with contextlib.ExitStack() as at_exit:
        try:
            serving = _Serving(arguments, loaded, listeners, front, at_exit)
            serving.start(() if chosen is None else processors)
        except (MailerError, OSError) as fault:
            if loaded.config.logging.file:  # else the log is what the next line is read beside
                log.critical("start.failed error=%r", str(fault))
            return failure.report(fault)
        return serving.wait()


class _FrontProcess:
    """What surrounds the SMTP sessions where they have a process of their own (``front.fork.Surroundings``)."""

    def __init__(
        self, arguments: argparse.Namespace, config: Config, parent: int, processors: Collection[int], neighbour: int | None
    ) -> None:
        self._output_path: Path | None = arguments.output
        self._config = config
        self._parent = parent
        self._processors = processors
        self._neighbour = neighbour

    def begin(self) -> None:
        process.tie_to_parent(self._parent)
        if self._neighbour is not None:
            process.share_one_processor(self._processors, self._neighbour)
        threading.excepthook = _log_thread_death
        self._log_output = logs.configure(self._config.logging)
        process.raise_open_files_limit(files_wanted(self._config))
        process.preload(Config())  # which libraries the other process needs is nothing to this one

    def configure(self, config: Config) -> None:
        self._log_output.configure(config.logging)

    def reopen_log(self) -> None:
        if self._output_path:
            background.redirect(self._output_path)
        self._log_output.reopen()

    def end(self) -> None:
        self._log_output.close()


class _Serving:
    """The application and what surrounds it in this process: signals, log output, pidfile, unpack folder."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        loaded: Loaded,
        listeners: Sequence[socket.socket],
        front: Front | None,
        at_exit: contextlib.ExitStack,
    ) -> None:
        self._config_path: Path = arguments.config
        self._output_path: Path | None = arguments.output
        self._ready_fd: int | None = arguments.ready_fd
        self._at_exit = at_exit
        self._log_output = logs.configure(loaded.config.logging)
        at_exit.callback(self._log_output.close)
        if arguments.pidfile:
            at_exit.callback(Pidfile.claim(arguments.pidfile, process.main_pid()).release)
        self._terminal = Terminal()
        self._signals = SignalPipe()
        self._stop_requests = StopRequests()
        self._unpacked = process.UnpackFolder.of_this_process()
        self._loaded = loaded
        self._app = App(loaded.config, lambda: self._log_output.lines_dropped, listeners, front)
        self._drain: threading.Thread | None = None
        self._drained = threading.Event()
        self._exit_code = os.EX_SOFTWARE  # unless the drain ends as it should
        self._front = front
        self._is_front_lost = threading.Event()
        if front is not None:
            at_exit.callback(front.end)
            front.on_lost = self._note_lost_front

    def start(self, processors: Collection[int]) -> None:
        """Serve; signatures are made on any of ``processors``. Raises MailerError or OSError when that cannot be."""
        self._app.processors = processors
        self._signals.install(signal.SIGHUP)  # one that arrives early must not end us
        threading.excepthook = _log_thread_death
        log.info("start version=%s pid=%d python=%r", __version__, process.main_pid(), interpreter())
        _log_warnings(self._loaded)
        process.raise_open_files_limit(files_wanted(self._loaded.config))
        if self._unpacked:
            self._unpacked.lock()
            self._unpacked.sweep_stale(time.time())
        process.preload(self._loaded.config)
        # Mail may be accepted before all is started: from then on a request to stop must drain, not just end us.
        self._app.start(before_serving=lambda: self._signals.install(*STOPPING))
        self._tell_ready()

    def wait(self) -> int:
        """Do what signals ask until the application has stopped; returns the exit code."""
        while True:
            if self._unpacked:
                self._unpacked.refresh(time.time())
            for number in self._signals.wait(_IDLE_SECONDS):
                if number in STOPPING or self._terminal.has_closed():
                    self._stop(number)
                else:
                    self._reload()
            if self._is_front_lost.is_set() and self._drain is None:
                self._begin_drain()
            if self._drained.is_set():
                log.info("stop.done code=%d", self._exit_code)
                return self._exit_code

    def _tell_ready(self) -> None:
        log.info("ready smtp=%s http=%s", self._app.smtp_port, self._app.http_port)
        systemd.notify("READY=1", os.environ)
        if self._ready_fd is not None:
            with contextlib.suppress(BrokenPipeError):  # the starter was ended: we serve all the same
                os.write(self._ready_fd, background.READY)
            os.close(self._ready_fd)

    def _stop(self, number: int) -> None:
        match self._stop_requests.ask(time.monotonic()):
            case Stop.DRAIN:
                log.info("stop.begun signal=%s limit=%gs", signal.Signals(number).name, DRAIN_SECONDS)
                self._begin_drain()
            case Stop.AT_ONCE:
                log.warning("stop.at_once signal=%s", signal.Signals(number).name)
                self._at_exit.close()
                die_of(number)
            case Stop.SAME:
                pass

    def _begin_drain(self) -> None:
        systemd.notify("STOPPING=1", os.environ)
        self._drain = threading.Thread(target=self._drain_and_stop, name="drain", daemon=True)
        self._drain.start()

    def _note_lost_front(self) -> None:
        """Without the listening process there is nothing to serve: deliver what is in flight, and let whoever started us
        start us again."""
        self._is_front_lost.set()
        self._signals.wake()

    def _drain_and_stop(self) -> None:
        try:
            finished = self._app.drain(DRAIN_SECONDS)
            if not finished:
                log.warning("stop.unfinished limit=%gs effect=%r", DRAIN_SECONDS, "kept in the spool, tried at the next start")
            self._app.stop()
            self._exit_code = os.EX_SOFTWARE if self._is_front_lost.is_set() else os.EX_OK
        finally:
            self._drained.set()  # before the wake: whoever it wakes looks at this, not at whether the thread has ended yet
            self._signals.wake()

    def _reload(self) -> None:
        """SIGHUP: a new log file, and the configuration as it is now; an invalid one changes nothing else."""
        if self._drain:
            return
        try:
            if self._output_path:
                background.redirect(self._output_path)
            self._log_output.reopen()
            if self._front is not None:
                self._front.reopen_log()
            loaded = load(self._config_path, os.environ)
            process.preload(loaded.config)
            self._log_output.configure(loaded.config.logging)
            _log_warnings(loaded)
            for name in self._app.reload(loaded.config):
                log.warning("reload.needs_restart setting=%s", _json_key(name))
        except ConfigError as fault:
            for problem in fault.problems:
                log.error("reload.rejected problem=%r effect=%r", problem, "the old configuration stays")
        except (MailerError, OSError) as fault:
            log.error("reload.failed error=%r", str(fault))
        else:
            self._loaded = loaded
            log.info("reload.done file=%r", str(self._config_path))


def files_wanted(config: Config) -> int:
    """How many files may be open at once under ``config``."""
    upstream = sum(provider.max_connections or config.worker_count for provider in config.forward_providers)
    return config.max_connections + upstream + OWN_FILES


def _json_key(name: str) -> str:
    """A setting's attribute, such as ``data_dir``, by the name that it has in the file."""
    return next((setting.key for setting in settings_of(Config) if setting.attribute == name), name)


def _log_warnings(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        log.warning("config.warning text=%r", warning)


def _log_thread_death(death: threading.ExceptHookArgs) -> None:
    """A thread that dies of an error says so; the process lives on, and /readyz tells what no longer makes progress."""
    if death.exc_type is SystemExit:
        return
    name = death.thread.name if death.thread else "?"
    log.critical("thread.died name=%s error=%r", name, f"{death.exc_type.__name__}: {death.exc_value}", exc_info=death.exc_value)
