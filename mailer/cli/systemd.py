"""The service manager: owns what systemd is told (sd_notify) and the sockets it hands over (socket activation).

Both protocols are a few bytes over the environment and a socket, so no library is needed: sd_notify(3) and
sd_listen_fds(3). No threads, no locks. Without systemd everything here does nothing and nothing here fails.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

from mailer import process

log = logging.getLogger(__name__)

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
MAX_DESCRIPTORS = 16  # our unit hands over one; more than a few is a mistake


def notify(state: str, environ: MutableMapping[str, str]) -> None:
    """Tell the service manager, such as ``READY=1``. In the executable the unit needs ``NotifyAccess=all``: the child
    tells, not the launcher that systemd started."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError as fault:
        log.warning("systemd.notify state=%r error=%r", state, fault.strerror)


def take_listeners(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets handed over to this process; empty without socket activation.

    LISTEN_PID names the process that systemd started: in the executable that is the launcher, our parent. The variables
    are taken out of ``environ``, so that no child of ours believes the sockets to be its own.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if not (count.isdigit() and pid == str(process.main_pid())):
        return []
    listeners = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + min(int(count), MAX_DESCRIPTORS)):
        os.set_inheritable(descriptor, False)
        listeners.append(socket.socket(fileno=descriptor))
    return listeners
