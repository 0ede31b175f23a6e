"""Finding jobs: lists by what heads show, ids by their ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from compliance.log_case import LogCase

from steplog.eventstore.store import HeadQuery
from steplog.testing.clock import VirtualClock


class ListingCompliance(LogCase):
    def test_no_jobs_are_an_empty_list(self) -> None:
        assert self.store.heads(HeadQuery()) == []

    def test_jobs_are_counted_by_workflow_and_status(self) -> None:
        assert self.store.counts() == {}
        for columns in ({}, {"status": "failed"}, {"status": "failed"}, {"workflow": "import", "status": "failed"}):
            self.new_job(**columns)
        row = self.store.heads(HeadQuery())[-1].columns
        assert self.store.counts() == {row.workflow: {row.status: 1, "failed": 2}, "import": {"failed": 1}}

    def test_heads_are_listed_newest_first(self) -> None:
        jobs = [self.new_job() for _ in range(3)]
        assert self.store.heads(HeadQuery()) == [self.store.head(job_id) for job_id in reversed(jobs)]

    def test_a_look_at_a_job_shows_its_owner_too(self) -> None:
        free, (owned, claim) = self.new_job(tags={"city": "Bern"}), self.owned_job()
        worker = next(each for each in self.store.workers() if each.identity.worker_id == claim.worker_id)
        for job_id, owner in ((free, None), (owned, worker)):
            look = self.store.look_at(job_id)
            assert (look.head, look.owner) == (self.store.head(job_id), owner)
            assert look.now <= self.store.now()

    @pytest.mark.parametrize(
        ("query", "columns"),
        [
            ({"workflow": "import"}, {"workflow": "import"}),
            ({"status": "failed"}, {"status": "failed"}),
            ({"phase": "phase2"}, {"phase": "phase2"}),
            ({"key": "r42"}, {"key": "r42"}),
            ({"failed_sub_step": "menu_import"}, {"failed_sub_step": "menu_import"}),
            ({"tags": {"city": "Bern"}}, {"tags": {"city": "Bern", "size": "small"}}),
            ({"tags": {"city": "Bern", "size": "small"}}, {"tags": {"city": "Bern", "size": "small"}}),
            ({"status": "failed", "phase": "phase2"}, {"status": "failed", "phase": "phase2"}),
            ({"workflow": "it's; drop table jobs --"}, {"workflow": "it's; drop table jobs --"}),
        ],
        ids=str,
    )
    def test_filter_lists_the_jobs_that_match_and_no_others(
        self, query: dict[str, Any], columns: dict[str, Any]
    ) -> None:
        self.new_job()
        self.new_job(status="running", phase="phase1", key="r43", tags={"city": "Basel", "size": "small"})
        self.new_job(status="failed", tags={"city": "Genf"})
        wanted = self.new_job(**columns)
        found = [head.job_id for head in self.store.heads(HeadQuery(**query))]
        expected = [
            head.job_id
            for head in self.store.heads(HeadQuery())
            if all(
                value.items() <= head.columns.tags.items() if name == "tags" else getattr(head.columns, name) == value
                for name, value in query.items()
            )
        ]
        assert wanted in found
        assert found == expected
        assert len(found) < 4

    def test_since_lists_jobs_created_then_or_later(self) -> None:
        clock = self.build.clock
        assert isinstance(clock, VirtualClock)
        self.new_job()
        clock.advance(60)
        since, jobs = clock.now(), [self.new_job()]
        clock.advance(60)
        jobs.append(self.new_job())
        assert [head.job_id for head in self.store.heads(HeadQuery(since=since))] == jobs[::-1]

    def test_pages_follow_one_another_without_gap_or_overlap(self) -> None:
        jobs = [self.new_job(status=status) for status in ["queued", "failed"] * 5]
        query, seen = HeadQuery(status="failed", limit=2), list[str]()
        while page := self.store.heads(query):
            assert len(page) <= 2
            seen += [head.job_id for head in page]
            self.new_job(status="failed")
            query = replace(query, before=seen[-1])
        assert seen == jobs[1::2][::-1]

    def test_job_is_found_by_the_end_of_its_id(self) -> None:
        jobs = [self.new_job() for _ in range(3)]
        for job_id in jobs:
            assert self.store.find(job_id) == [job_id]
            assert self.store.find(job_id[-12:]) == [job_id]
        assert self.store.find("00000") == []
        assert self.store.find("%") == []
        assert self.store.find("_" * 4) == []

    def test_ambiguous_end_of_an_id_lists_its_jobs_newest_first(self) -> None:
        jobs = [self.new_job() for _ in range(33)]
        end = jobs[0][-1]
        found = [job_id for job_id in reversed(jobs) if job_id.endswith(end)]
        assert len(found) > 1
        assert self.store.find(end) == found
        assert self.store.find(end, limit=1) == found[:1]
