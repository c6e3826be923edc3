"""mailer: a local SMTP relay that answers once a message is safe on disk and then delivers it.

The map, in the order a message travels (imports go down the floors only; ``tests/test_floors.py`` holds this true):

    0  mail/       the words every part speaks: address, envelope, content, headers, outcome
    1  config/     every setting (schema) and how it is read (load)
    2  events.py   what happens and who is told · service.py how threads live · window.py, waits.py: counts, time-outs
       dns/        ask DNS, and remember
    3  policy/     may you?   spool/ keep it safe   routing.py which way   signing/ DKIM   transport/ send it
    4  smtp/       hear it          dispatch/ move it: schedule, queue, round, worker; tell the sender
    5  observe/    tell it: log, metrics
    6  web/        show it: health, metrics, admin over HTTP     front/ hear it in a process of its own (processes 2)
                   doctor/ look at what stands between this machine and mail that arrives
    7  app.py      builds, starts and stops everything in one visible order · cli/ one file a command
"""

__version__ = "0.1.0"
