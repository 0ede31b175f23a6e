"""What a store keeps of projections: all of a change or nothing, and only behind the checkpoint it was made from."""

from __future__ import annotations

import pytest
from compliance.in_parallel import in_parallel
from compliance.log_case import LogCase

from steplog.eventstore.projected import Change, Document, JobVersion, Move, Projected, Quarantined, StepRow

ROW = StepRow("r42", 6, "in_progress", '{"phases": {}}', None, "2026-11-23T12:00:00.000000Z")


class ProjectingCompliance(LogCase):
    @property
    def kept(self) -> Projected:
        return self.store.projected

    def test_checkpoint_begins_goes_on_and_ends(self) -> None:
        assert self.kept.checkpoints() == {}
        assert self.kept.store(Change("p", [Move("p", None, {"cursor": "é", "at": 1})]))
        assert self.kept.checkpoints() == {"p": {"cursor": "é", "at": 1}}
        assert self.kept.store(Change("p", [Move("p", {"at": 1, "cursor": "é"}, {"at": 2})]))
        assert self.harness.reopen().projected.checkpoints() == {"p": {"at": 2}}
        assert self.kept.store(Change("p", [Move("p", {"at": 2}, None)]))
        assert self.kept.checkpoints() == {}

    @pytest.mark.parametrize("before", [None, {"at": 0}, {"at": 1, "more": None}])
    def test_change_behind_another_checkpoint_stores_nothing(self, before: dict[str, int] | None) -> None:
        self.kept.store(Change("p", [Move("p", None, {"at": 1}), Move("q", None, {"at": 1})]))
        moves = [Move("q", {"at": 1}, {"at": 2}), Move("p", before, {"at": 2})]
        aside = [Quarantined("p", self.new_job(), 1, "why")]
        late = Change("p", moves, 1, [Document("k", 1, {})], rows=[ROW], quarantined=aside)
        assert not self.kept.store(late)
        assert self.kept.checkpoints() == {"p": {"at": 1}, "q": {"at": 1}}
        assert self.kept.page("p", 1) == []
        assert self.kept.step_rows() == []
        assert self.kept.quarantined() == []

    def test_of_changes_at_once_one_is_stored(self) -> None:
        self.kept.store(Change("p", [Move("p", None, {"at": 0})]))
        done = in_parallel(4, lambda number: self.kept.store(Change("p", [Move("p", {"at": 0}, {"at": number + 1})])))
        assert sorted(done) == [False, False, False, True]

    def test_documents_are_put_replaced_found_and_paged(self) -> None:
        self._put("p", 1, *[Document(key, 1, {"of": key}) for key in "cab"])
        self._put("p", 2, Document("a", 7, [None, 0.5, "é"]))
        self._put("p", 1, Document("b", 2, {"of": "again"}))
        assert self.kept.page("p", 1) == [
            Document("a", 1, {"of": "a"}),
            Document("b", 2, {"of": "again"}),
            Document("c", 1, {"of": "c"}),
        ]
        assert [document.key for document in self.kept.page("p", 1, "a", limit=1)] == ["b"]
        assert self.kept.documents("p", 2, ["a", "b"]) == {"a": Document("a", 7, [None, 0.5, "é"])}
        assert self.kept.documents("p", 1, []) == self.kept.documents("q", 1, ["a"]) == {}

    def test_generation_is_removed_bit_by_bit_and_no_other(self) -> None:
        self._put("p", 1, *[Document(key, 1, {}) for key in "abc"])
        self._put("p", 2, Document("a", 1, {}))
        assert [self.kept.remove("p", 1, 2) for _ in range(3)] == [2, 1, 0]
        assert len(self.kept.page("p", 2)) == 1

    def test_jobs_come_in_order_with_what_is_known_of_them(self) -> None:
        jobs = sorted(self.long_job(count)[0] for count in (1, 2, 3))
        versions = [self.store.head(job_id).version for job_id in jobs]
        self._put("p", 1, Document(jobs[1], 2, {}))
        found = self.kept.jobs("p", 1)
        assert found == [
            JobVersion(job_id, version, known)
            for job_id, version, known in zip(jobs, versions, [None, 2, None], strict=True)
        ]
        assert self.kept.jobs("p", 1, jobs[0], limit=1) == found[1:2]
        assert [job.known for job in self.kept.jobs("p", 2)] == [None] * 3

    def test_rows_of_the_table_are_written_and_replaced(self) -> None:
        other = ROW._replace(step_number=7, error_message="it's; drop table jobs --")
        self._rows(ROW, other, ROW._replace(job_id="r41"))
        self._rows(ROW._replace(status="completed", sub_step_progress='{"phases": {"p": 1}}'))
        found = self.kept.step_rows()
        assert [(row.job_id, row.step_number, row.status) for row in found] == [
            ("r41", 6, "in_progress"),
            ("r42", 6, "completed"),
            ("r42", 7, "in_progress"),
        ]
        assert found[2] == other
        assert self.kept.step_rows(after=("r42", 6)) == [other]
        assert [row.job_id for row in self.kept.step_rows(limit=1)] == ["r41"]

    def test_quarantine_is_by_projection_and_released_by_it(self) -> None:
        job_id = self.new_job()
        for name, version in (("p", 1), ("q", 1), ("p", 3)):
            aside = [Quarantined(name, job_id, version, "why\nnot")]
            before = self.kept.checkpoints().get(name)
            self.kept.store(Change(name, [Move(name, before, {"at": version})], quarantined=aside))
        assert self.kept.quarantined() == [
            Quarantined("p", job_id, 3, "why\nnot"),
            Quarantined("q", job_id, 1, "why\nnot"),
        ]
        self.kept.release("p")
        assert [job.projection for job in self.kept.quarantined()] == ["q"]

    def _put(self, name: str, generation: int, *documents: Document) -> None:
        before = self.kept.checkpoints().get(name)
        after = {"at": (before or {"at": 0})["at"] + 1}
        assert self.kept.store(Change(name, [Move(name, before, after)], generation, documents))

    def _rows(self, *rows: StepRow) -> None:
        before = self.kept.checkpoints().get("p")
        after = {"at": (before or {"at": 0})["at"] + 1}
        assert self.kept.store(Change("p", [Move("p", before, after)], rows=rows))
