"""Whether servers can be reached: port 25 of recipients' servers, and the providers with their logins.

Connects, says EHLO (or logs in) and takes its leave. Servers that were named are tried side by side (examination.py); no locks.
Fails for no word or silence of a server.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import time
from functools import partial

from mailer.config.schema import ProviderConfig, Secret
from mailer.doctor.case import Case, Target
from mailer.doctor.examination import Check, examine
from mailer.doctor.finding import Finding, Status, failed, ok, skipped, warning, worst_of
from mailer.doctor.names import addresses_of
from mailer.events import Hub
from mailer.mail.outcome import Stage
from mailer.transport.client import Conversation, received
from mailer.transport.dial import SocketAddress
from mailer.transport.faults import FOREIGN, Fault, reply_for
from mailer.transport.peer import Surroundings
from mailer.transport.provider import Provider
from mailer.transport.providers import advice
from mailer.window import Windows

STEP_SECONDS = 6  # a connection, a reply: who takes longer is of no use to find out something
SERVER_SECONDS = 3.0 * STEP_SECONDS  # for one server in all
TARGETS_SECONDS = 40.0  # for all that were named, side by side; the examination waits a little longer
MAX_SERVERS = 3  # of the domain that are tried before giving up
BLOCKED = "ask the hosting provider to open outgoing port 25, or deliver through forwardProviders"


def egress(case: Case) -> Finding:
    """Whether this machine may connect to mail servers at all. One that answers is enough, unless certain ones were named."""
    if case.targets:
        checks = [Check(str(target), partial(_try, case, target)) for target in case.targets]
        return worst_of(examine(checks, TARGETS_SECONDS).values())
    hosts = [host for _, host in sorted(case.dns.mx(case.domain).records) if host] or [case.domain]
    ours = {str(address) for address in case.addresses}
    elsewhere = [host for host in hosts if not _is_here(addresses_of(case.dns, host), ours)]
    if not elsewhere:
        return skipped(f"the mail servers of {case.domain} are this machine: name one with --target HOST")
    found = []
    for host in elsewhere[:MAX_SERVERS]:
        found.append(_try(case, Target(host, case.config.direct_delivery.port)))
        if found[-1].status is not Status.FAILED:
            return found[-1]
    return worst_of(found)


def _is_here(addresses: tuple[str, ...], ours: set[str]) -> bool:
    return bool(addresses) and all(a in ours or ipaddress.ip_address(a).is_loopback for a in addresses)


def _try(case: Case, target: Target) -> Finding:
    addresses = _socket_addresses(case, target)
    if not addresses:
        return failed(f"{target.host} has no address that can be tried", "name another with --target HOST")
    conversation = Conversation(case.ehlo_name, STEP_SECONDS)
    conversation.deadline = time.monotonic() + SERVER_SECONDS
    try:
        conversation.dial(addresses)
        code, greeting = conversation.getreply()
        case.sightings.note(target.host, greeting.decode("latin-1"), case.clock())
        if code != 220:
            raise Fault(received(code, greeting))
        conversation.introduce()
    except FOREIGN as fault:
        conversation.close()
        return _unreached(target, conversation.stage, fault)
    tls = "offers STARTTLS" if "STARTTLS" in conversation.extensions else "without STARTTLS"
    conversation.leave()
    return ok(f"{target} answers, {tls}")


def _unreached(target: Target, stage: Stage, fault: BaseException) -> Finding:
    reply = reply_for(fault)
    if isinstance(fault, Fault) and not fault.is_lost:
        return warning(f"{target} answers, but with {reply}", "see what it says: mostly the address's reputation or name")
    if stage is Stage.CONNECT and isinstance(fault, OSError) and not isinstance(fault, ConnectionRefusedError):
        return failed(f"{target}: {reply}", BLOCKED)
    return failed(f"{target}: {reply}", "try another with --target HOST; if none answers, " + BLOCKED)


def _socket_addresses(case: Case, target: Target) -> list[SocketAddress]:
    """Where to connect to; IPv6 only where this machine has it."""
    try:
        found: tuple[str, ...] = (str(ipaddress.ip_address(target.host)),)
    except ValueError:
        has_ipv6 = any(address.version == 6 for address in case.addresses)
        found = tuple(a for a in addresses_of(case.dns, target.host) if ":" not in a or has_ipv6)
    return [
        (socket.AF_INET6, (address, target.port, 0, 0)) if ":" in address else (socket.AF_INET, (address, target.port))
        for address in found
    ]


def provider(case: Case, config: ProviderConfig) -> Finding:
    """Whether a provider answers, can be trusted, and takes the login."""
    may_log_in = _may_log_in(config)
    tried = dataclasses.replace(config, timeout=min(config.timeout, STEP_SECONDS))
    if not may_log_in:
        tried = dataclasses.replace(tried, username="", password=Secret(), oauth2=None, auth="auto")
    surroundings = Surroundings(clock=case.clock, trust_store=case.trust_store)
    reply = Provider(tried, case.config.hostname, Windows(lambda _name: ()), Hub(), surroundings).check_login()
    if not reply.is_success:
        return failed(str(reply), advice(config, reply))
    if not may_log_in:
        why = "no login tried, since a token bought here could end the one that a running mailer holds: see its log"
        return skipped(f"{reply.text}; {why}")
    return ok(reply.text)


def _may_log_in(config: ProviderConfig) -> bool:
    """A refresh token may be good for one use only, and the next one is for whoever keeps it: the running mailer."""
    return not (config.oauth2 is not None and config.oauth2.token_url and config.oauth2.refresh_token)
