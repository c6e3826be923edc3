"""Checks side by side: their order, their time, and what a broken one does to the others."""

from __future__ import annotations

import errno
import threading

import pytest

from mailer.config.schema import Config, ProviderConfig, Secret
from mailer.doctor.examination import THREADS, Check, examine
from mailer.doctor.finding import MAX_TEXT_CHARS, Finding, Status, failed, harmless, ok, skipped, warning, worst_of
from mailer.doctor.secrecy import secrets_of, without
from mailer.mail.outcome import MailerError

WAIT_SECONDS = 20.0


def test_findings_come_in_the_order_of_the_checks_not_of_their_ends() -> None:
    later_is_done = threading.Event()

    def first() -> Finding:
        assert later_is_done.wait(WAIT_SECONDS)
        return ok("first")

    def second() -> Finding:
        later_is_done.set()
        return ok("second")

    found = examine([Check("a", first), Check("b", second)], WAIT_SECONDS)
    assert [(name, finding.text) for name, finding in found.items()] == [("a", "first"), ("b", "second")]


def test_a_check_that_hangs_is_told_and_holds_up_nobody() -> None:
    hung = threading.Event()
    try:
        checks = [Check("hangs", lambda: ok(str(hung.wait(WAIT_SECONDS)))), Check("works", lambda: ok("done"))]
        found = examine(checks, 1.0)
    finally:
        hung.set()
    assert (found["hangs"].status, found["works"].status) == (Status.WARNING, Status.OK)
    assert "not finished" in found["hangs"].text


def test_no_more_run_at_once_than_there_are_threads() -> None:
    lock = threading.Lock()
    running, most = 0, 0
    full = threading.Barrier(THREADS)

    def look() -> Finding:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait(WAIT_SECONDS)
        with lock:
            running -= 1
        return ok("done")

    found = examine([Check(str(number), look) for number in range(2 * THREADS)], WAIT_SECONDS)
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert most == THREADS


@pytest.mark.parametrize("fault", [PermissionError(errno.EACCES, "Permission denied", "/secret"), MailerError("no store found")])
def test_a_fault_of_a_check_is_its_finding(fault: Exception) -> None:
    def look() -> Finding:
        raise fault

    found = examine([Check("broken", look), Check("works", lambda: ok("done"))], WAIT_SECONDS)
    assert (found["broken"].status, found["works"].status) == (Status.FAILED, Status.OK)


def test_a_check_that_dies_is_told_as_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", deaths.append)

    def look() -> Finding:
        raise ValueError("ours")

    found = examine([Check("dies", look)], WAIT_SECONDS)
    for thread in [thread for thread in threading.enumerate() if thread.name.startswith("doctor-")]:
        thread.join(WAIT_SECONDS)
    assert "the check itself failed" in found["dies"].text
    assert [death.exc_type for death in deaths] == [ValueError]


def test_the_worst_finding_stands_for_all_and_what_is_in_order_is_left_out() -> None:
    found = worst_of([ok("good"), warning("odd", "look"), failed("bad", "mend"), skipped("not done")])
    assert found == failed("bad; odd", "mend; look")
    assert worst_of([skipped("not done"), ok("good")]).status is Status.OK


@pytest.mark.parametrize("text", ["\x1b[2J", "a\rb", "a\nb", "\x9b1m", "\u202eexe", "\x00", "\ud800", "\u2028"])
def test_what_a_terminal_obeys_is_escaped(text: str) -> None:
    assert harmless(text).isprintable()
    assert failed(text, text).text == harmless(text)


def test_endless_text_is_cut() -> None:
    assert len(harmless("x" * 100_000)) == MAX_TEXT_CHARS + 1


def test_secrets_are_masked_in_every_form_that_a_login_sends() -> None:
    provider = ProviderConfig(host="smtp.test", port=587, username="user", password=Secret("hunter2!"))
    secrets = secrets_of(Config(default_password=Secret("swordfish"), forward_providers=(provider,)))
    plain, word = "AHVzZXIAaHVudGVyMiE=", "aHVudGVyMiE="
    found = without(secrets, failed(f"hunter2! {plain} {word} swordfish", "not hunter2!"))
    assert found == failed("*** *** *** ***", "not ***")
