"""How the listening process comes to be: a fork, while this process has one thread and holds nothing yet.

At that moment a fork is safe, costs a millisecond and shares all code that was loaded. The executable's unpack folder
is the main process's, which the listening one never outlives: the kernel kills it when its parent ends (prctl), and so
does the end of the channel.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Sequence

from mailer.config.schema import Config
from mailer.front.channel import Channel
from mailer.front.hearing import Hearing, Surroundings
from mailer.front.keeper import Front


def fork_front(config: Config, listeners: Sequence[socket.socket], surroundings: Surroundings) -> Front:
    """Make the listening process, which gets ``listeners``; returns the main process's side of it.

    ``surroundings.begin`` runs in the new process before all else.
    """
    if threading.active_count() > 1:
        raise RuntimeError("a process with threads cannot be forked")
    ours, theirs = Channel.pair()
    pid = os.fork()
    if pid:
        theirs.close()
        for listener in listeners:
            listener.close()
        return Front(ours, pid)
    code = os.EX_SOFTWARE
    try:
        ours.close()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a group's signal reaches the main process too, which tells us
        surroundings.begin()
        Hearing(theirs, config, listeners, surroundings).run()
        surroundings.end()
        code = os.EX_OK
    finally:
        os._exit(code)
