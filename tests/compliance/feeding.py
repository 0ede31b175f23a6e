"""The feed: every event of every job once, whoever stored it when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from compliance.in_parallel import in_parallel
from compliance.log_case import LogCase

from steplog.eventstore.errors import CursorRefused
from steplog.eventstore.feed import FeedEntry
from steplog.eventstore.store import Code, Store


class FeedingCompliance(LogCase):
    def test_feed_of_an_empty_log_is_empty(self) -> None:
        page = self.store.feed()
        assert page.entries == []
        assert self.store.feed(page.cursor).entries == []
        assert self.store.feed(self.store.feed_end()).entries == []

    def test_feed_has_every_event_of_every_job_once(self) -> None:
        jobs = [self.long_job(3)[0] for _ in range(4)]
        seen = list(_entries(self.store, None))
        assert sorted((entry.job_id, entry.version) for entry in seen) == [
            (job_id, version) for job_id in sorted(jobs) for version in range(1, 6)
        ]

    def test_entries_say_what_the_log_says(self) -> None:
        job_id, _ = self.long_job(2)
        events = self.log(job_id)
        assert list(_entries(self.store, None)) == [
            FeedEntry(job_id, event.version, event.type, event.recorded_at) for event in events
        ]

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    def test_pages_of_the_feed_follow_one_another_without_gap_or_overlap(self, limit: int) -> None:
        jobs = [self.long_job(2)[0] for _ in range(3)]
        seen: list[FeedEntry] = []
        page = self.store.feed(limit=limit)
        while page.entries:
            assert len(page.entries) <= limit
            seen += page.entries
            if len(jobs) < 6:
                jobs.append(self.new_job())
            page = self.store.feed(page.cursor, limit)
        assert sorted(_places(seen)) == sorted((job_id, event.version) for job_id in jobs for event in self.log(job_id))

    def test_mark_is_another_one_after_every_commit_and_the_same_without(self) -> None:
        elsewhere = self.harness.reopen()
        marks = []
        for _ in range(3):
            self.new_job()
            marks += [self.store.commit_mark(), self.store.commit_mark()]
        assert elsewhere.commit_mark() == elsewhere.commit_mark()
        assert marks[::2] == marks[1::2]
        assert len(set(marks)) == 3 or set(marks) == {None}

    def test_cursor_leads_on_from_where_it_was_taken(self) -> None:
        self.long_job()
        cursor = self.store.feed_end()
        job_id = self.new_job()
        assert _places(_entries(self.store, cursor)) == [(job_id, 1)]
        assert _places(_entries(self.store, cursor)) == [(job_id, 1)]

    def test_versions_of_one_job_come_in_order(self) -> None:
        job_id, claim = self.owned_job()
        for value in range(20):
            self.stored(self.build.append(job_id, self.position(job_id), claim, value))
        assert [entry.version for entry in _entries(self.store, None, limit=3)] == list(range(1, 23))

    def test_another_opening_of_the_log_goes_on_from_the_cursor(self) -> None:
        self.long_job()
        cursor = self.store.feed_end()
        other = self.harness.reopen()
        job_id = self.new_job()
        assert _places(_entries(other, cursor)) == [(job_id, 1)]

    def test_append_under_way_is_seen_once_it_is_committed_and_holds_up_nobody(self) -> None:
        if self.store.stops_writers:
            pytest.skip("nobody else writes meanwhile")
        slow, claim = self.owned_job()
        cursor = self.store.feed_end()
        transaction = self.store.begin()
        try:
            item = self.build.append(slow, self.position(slow), claim, "slow")
            assert transaction.append(item).code is Code.STORED
            quick = [self.new_job() for _ in range(3)]
            page = self.store.feed(cursor)
            assert sorted(_places(page.entries)) == sorted((job_id, 1) for job_id in quick)
            page = self.store.feed(page.cursor)
            assert page.entries == []
            transaction.commit()
        finally:
            transaction.roll_back()
        last = self.new_job()
        assert sorted(_places(_entries(self.store, page.cursor))) == sorted([(slow, 3), (last, 1)])

    def test_what_was_rolled_back_is_never_seen(self) -> None:
        job_id, claim = self.owned_job()
        cursor = self.store.feed_end()
        transaction = self.store.begin()
        transaction.append(self.build.append(job_id, self.position(job_id), claim, "undone"))
        transaction.roll_back()
        assert list(_entries(self.store, cursor)) == []

    def test_reader_beside_many_writers_misses_nothing_and_sees_nothing_twice(self) -> None:
        jobs = [self.owned_job() for _ in range(4)]
        cursor, seen = self.store.feed_end(), list[FeedEntry]()

        def write(number: int) -> None:
            job_id, claim = jobs[number]
            for value in range(10):
                self.stored(self.build.append(job_id, self.position(job_id), claim, value))

        def read() -> None:
            nonlocal cursor
            while len(seen) < 40:
                page = self.store.feed(cursor, limit=7)
                seen.extend(page.entries)
                cursor = page.cursor

        in_parallel(5, lambda number: write(number) if number < 4 else read())
        seen += _entries(self.store, cursor)
        assert sorted(_places(seen)) == sorted((job_id, version) for job_id, _ in jobs for version in range(3, 13))

    @pytest.mark.parametrize("cursor", ["", "nonsense", "é", "WyJvdGhlciIsMV0", "0", "bnVsbA"])
    def test_what_is_no_cursor_is_refused(self, cursor: str) -> None:
        with pytest.raises(CursorRefused):
            self.store.feed(cursor)


def _entries(store: Store, after: str | None, limit: int = 100) -> Iterator[FeedEntry]:
    """Everything behind the cursor."""
    page = store.feed(after, limit)
    while page.entries:
        yield from page.entries
        page = store.feed(page.cursor, limit)


def _places(entries: Iterator[FeedEntry] | list[FeedEntry]) -> list[tuple[str, int]]:
    return [(entry.job_id, entry.version) for entry in entries]
