"""The process among others: a second instance, a damaged database, the end on request, reload, and counts across a crash."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
from pathlib import Path

from tests.flows.parking import counts, in_failed, retry_until
from tests.support.relay import Relay, eventually, submit
from tests.support.upstream import Stall, Upstream

TAKEN = "250 2.0.0 taken"


def test_second_instance_on_the_same_data_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with Upstream() as upstream, Relay(tmp_path, [upstream]) as first:
        second = Relay(tmp_path, [upstream])
        second.launch()
        assert second.wait() == os.EX_TEMPFAIL
        [line] = [line for line in second.lines if line.startswith("mailer: ")]
        assert f"in use by process {first.pid}" in line
        assert str(tmp_path / "data" / "spool") in line
        assert " ready " not in second.output
        first.send("still here")
        assert b"still here\r\n" in upstream.wait_for(1)[0].data


def test_damaged_database_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", "450 4.2.1 busy")
        relay = Relay(tmp_path, [upstream])
        with relay:
            parked = relay.send("in a file of its own")
            relay.wait_for_line(f"message.parked id={parked}")
            eventually(lambda: in_failed(relay) == [f"{parked}.json"], "the parked file")
            relay.kill()
        database = relay.data / "spool" / "mailer.db"
        size = database.stat().st_size
        database.write_bytes(b"garbage " * (size // 8))
        for suffix in ("-wal", "-shm"):
            database.with_name(f"mailer.db{suffix}").write_bytes(b"garbage too")
        upstream.on("rcpt")
        with relay:
            relay.wait_for_line("ERROR spool.recovering path=.*mailer.db reason=")
            assert any(p.name.startswith("mailer-") for p in relay.files("quarantine"))
            relay.send("after the damage")
            retry_until(relay, lambda: in_failed(relay) == [], "the end of the parked file")
            texts = {m.data.strip().split(b"\r\n")[-1] for m in upstream.messages}
            assert texts == {b"in a file of its own", b"after the damage"}
            assert relay.health()["status"] == "ok" or "disk" in str(relay.health()["reasons"])
            assert relay.terminate() == 0


def test_drain_finishes_what_is_in_flight_refuses_new_connections_and_keeps_the_rest(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("dot", Stall(TAKEN))
        relay = Relay(tmp_path, [upstream], workerCount=1)
        with relay:
            first = relay.send("in flight")
            upstream.wait_until(lambda: upstream.transactions != [])
            for n in range(20):
                relay.send(f"waiting {n}")
            client = relay.connect()
            relay.signal(signal.SIGTERM)
            relay.wait_for_line("stop.begun signal=SIGTERM")
            eventually(lambda: not connects(relay), "the refusal of new connections")
            assert client.sock is not None
            assert client.getreply()[0] == 421
            upstream.on("dot")
            upstream.release()
            assert relay.wait() == 0
            assert "stop.unfinished" not in relay.output
            delivered = len(upstream.messages)
            assert first.encode() in upstream.messages[0].data
            relay.start()
            upstream.wait_for(21)
            eventually(lambda: counts(relay) == (21, 0, 0), "an empty spool")
        assert len(upstream.messages) == 21, f"{delivered} before the end, none of them again"


def connects(relay: Relay) -> bool:
    try:
        socket.create_connection(("127.0.0.1", relay.smtp_port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_second_sigterm_ends_at_once_and_loses_nothing(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("dot", Stall(TAKEN))
        relay = Relay(tmp_path, [upstream])
        with relay:
            relay.send("in flight")
            upstream.wait_until(lambda: upstream.transactions != [])
            relay.signal(signal.SIGTERM)
            relay.signal(signal.SIGTERM)  # an echo: says nothing new
            relay.wait_for_line("stop.begun")
            eventually(lambda: ended_after(relay, signal.SIGTERM), "the end at once")
            assert relay.wait() == -signal.SIGTERM
            relay.wait_for_line("stop.at_once signal=SIGTERM")
            upstream.on("dot")
            upstream.release()
            upstream.hang_up()
            relay.start()
            eventually(lambda: counts(relay) == (1, 0, 0), "the delivery after the restart")


def ended_after(relay: Relay, number: int) -> bool:
    """Whether it has ended; insists if not. What comes within the first second has no effect."""
    if relay.ended:
        return True
    relay.signal(number)
    return False


def test_reload_takes_new_providers_and_limits_and_refuses_an_invalid_file_whole(tmp_path: Path) -> None:
    with Upstream() as first, Upstream() as second, Relay(tmp_path, [first]) as relay:
        relay.send("one")
        first.wait_for(1)
        relay.configure(
            forwardProviders=[{"host": second.host, "port": second.port}],
            rateLimits={"enabled": True, "maxPerHour": 3},
            maxMessageSize=2000,
        )
        relay.signal(signal.SIGHUP)
        relay.wait_for_line("reload.done")
        relay.send("two")
        second.wait_for(1)
        with relay.connect() as client:
            client.ehlo()
            assert client.esmtp_features["size"] == "2000"
        text = relay.config_path.read_text()
        relay.config_path.write_text(text.replace('"host"', '"hots"').replace("2000", '"two"'))
        relay.signal(signal.SIGHUP)
        relay.wait_for_line("ERROR reload.rejected .*hots")
        relay.wait_for_line("ERROR reload.rejected .*maxMessageSize")
        relay.send("three")
        assert len(second.wait_for(2)) == 2
        relay.config_path.write_text(json.dumps({**relay.settings, "smtpPort": 2526}))
        relay.signal(signal.SIGHUP)
        relay.wait_for_line("reload.needs_restart setting=smtpPort")
        assert len(first.messages) == 1


def saved_counts(relay: Relay) -> set[tuple[str, int]]:
    """What the database holds of sliding windows, as whoever looks into it beside the running program sees it."""
    with contextlib.closing(sqlite3.connect(f"file:{relay.data}/spool/mailer.db?mode=ro", uri=True)) as connection:
        return set(connection.execute("SELECT name, sum(count) FROM usage GROUP BY name, span"))


def test_rate_limits_and_quotas_survive_a_kill(tmp_path: Path) -> None:
    with Upstream() as first, Upstream() as second:
        providers = [
            {"host": first.host, "port": first.port, "name": "first", "maxPerDay": 3},
            {"host": second.host, "port": second.port, "name": "second"},
        ]
        relay = Relay(tmp_path, providers, rateLimits={"enabled": True, "maxPerHour": 5})
        with relay:
            for n in range(4):
                relay.send(f"number {n}")
            first.wait_for(3)
            second.wait_for(1)
            used = {("provider:first", 3), ("sender:from@example.com", 4)}
            eventually(lambda: used <= saved_counts(relay), "the counts on disk")
            relay.kill()
            relay.start()
            relay.send("number 4")
            second.wait_for(2)
            with relay.connect() as client:
                client.ehlo()
                assert client.mail("from@example.com")[0] == 451
                client.rset()
                submit(client, sender="another@example.com")
        assert len(first.messages) == 3, "the quota is spent, before the kill and after"
