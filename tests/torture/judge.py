"""The judgement of a book: what was lost, what was mixed up, what came more than once. Pure: values in, a value out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.torture.book import DEAD, SINK, Book

MAX_EXAMPLES = 3
"""How many messages of one kind of fault are named."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``lost``: promised to a recipient, and never came. ``mixed``: came otherwise than it was sent: other bytes, another's
    envelope or id, or though it was refused. ``duplicates``: copies beyond the first, of which ``allowed`` may be."""

    accepted: int
    arrived: int
    lost: int
    mixed: int
    duplicates: int
    allowed: int
    examples: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        return not self.lost and not self.mixed and self.duplicates <= self.allowed


def judge(book: Book, allowed_duplicates: int) -> Verdict:
    """Judge a book that nobody writes in any more."""
    lost = sorted(f"{token} (id {book.entries[token].id}) to {recipient}, {place}" for token, recipient, place in _missing(book))
    mixed = [*book.faults, *_strangers(book), *_misnamed(book), *_refused(book)]
    again = {key: count - 1 for key, count in book.copies.items() if count > 1 and key[2] == SINK}
    examples = [
        *_examples("lost", lost),
        *_examples("mixed up", mixed),
        *_examples("came again", [f"{token} to {to}, {more + 1} times" for (token, to, _), more in again.items()]),
    ]
    return Verdict(book.promised, book.arrivals, len(lost), len(mixed), sum(again.values()), allowed_duplicates, tuple(examples))


def _missing(book: Book) -> Iterable[tuple[str, str, str]]:
    for token, entry in book.entries.items():
        if entry.id:
            for place, recipients in ((SINK, entry.expected), (DEAD, entry.buried)):
                yield from ((token, r, place) for r in recipients if not book.copies[token, r, place])


def _strangers(book: Book) -> Iterable[str]:
    """Copies for a token or a recipient that nobody sent."""
    for token, recipient, place in book.copies:
        entry = book.entries.get(token)
        if entry is None:
            yield f"{token or '?'} to {recipient}: nobody sent it"
        elif recipient not in (entry.expected if place == SINK else entry.buried):
            yield f"{token} to {recipient}: not for {place}"


def _misnamed(book: Book) -> Iterable[str]:
    by_id: dict[str, str] = {}
    for token, ids in book.ids.items():
        promised = book.entries[token].id if token in book.entries else ""
        if len(ids) > 1:
            yield f"{token} came under the ids {', '.join(sorted(ids))}"
        for id_ in ids:
            if promised and id_ != promised:
                yield f"{token} was promised as {promised} and came as {id_}"
            if by_id.setdefault(id_, token) != token:
                yield f"{id_} came as {by_id[id_]} and as {token}"


def _refused(book: Book) -> Iterable[str]:
    for token in book.ids:
        entry = book.entries.get(token)
        if entry is not None and entry.code:
            yield f"{token} came though it was answered {entry.code}"


def _examples(what: str, texts: list[str]) -> list[str]:
    more = [f"{what}: … {len(texts) - MAX_EXAMPLES} more"] if len(texts) > MAX_EXAMPLES else []
    return [f"{what}: {text}" for text in texts[:MAX_EXAMPLES]] + more
