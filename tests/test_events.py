"""The Hub tells everyone everything, in the publisher's thread."""

from __future__ import annotations

import threading

from mailer.events import Event, Hub, MessageParked, SubmissionRefused


def test_every_subscriber_hears_every_event_in_order() -> None:
    hub = Hub()
    first: list[Event] = []
    second: list[Event] = []
    hub.subscribe(first.append)
    hub.subscribe(second.append)
    events: list[Event] = [MessageParked("a"), SubmissionRefused("rate"), MessageParked("b")]
    for event in events:
        hub.publish(event)
    assert first == second == events


def test_publishing_to_nobody_is_fine() -> None:
    heard: list[Event] = []
    hub = Hub()
    hub.publish(MessageParked("a"))
    hub.subscribe(heard.append)
    assert heard == []


def test_subscribers_are_told_in_the_publishers_thread() -> None:
    hub = Hub()
    threads: list[int] = []
    hub.subscribe(lambda event: threads.append(threading.get_ident()))
    hub.publish(MessageParked("a"))
    assert threads == [threading.get_ident()]


def test_nothing_is_lost_when_many_threads_publish() -> None:
    hub = Hub()
    heard: list[Event] = []
    hub.subscribe(heard.append)

    def publish() -> None:
        for _ in range(500):
            hub.publish(MessageParked("a"))

    publishers = [threading.Thread(target=publish) for _ in range(8)]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    assert len(heard) == 4000
