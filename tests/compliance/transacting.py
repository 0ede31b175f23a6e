"""A handler's transaction: its statements and the append that ends it are committed together or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from compliance.log_case import LogCase
from log_builder import after, changed

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import StatementFailed, TransactionClosed, TransactionEnded
from steplog.eventstore.store import Append, Claim, Code, StoreTransaction

DONE_S_MAX = 60


class TransactingCompliance(LogCase):
    @contextmanager
    def transaction(self) -> Iterator[StoreTransaction]:
        """One that is gone at the end, however the test went."""
        transaction = self.store.begin(DONE_S_MAX)
        try:
            yield transaction
        finally:
            transaction.roll_back()

    def effects(self) -> list[str]:
        with self.transaction() as transaction:
            return [name for (name,) in transaction.execute("select name from effects order by name")]

    def next_append(self, job_id: str, claim: Claim, *values: object) -> Append:
        return self.build.append(job_id, self.position(job_id), claim, *values)

    # --- together or not at all --------------------------------------------------------------------------------------

    def test_statements_and_append_are_there_once_they_are_committed(self) -> None:
        job_id, claim = self.owned_job()
        item = self.next_append(job_id, claim, "done")
        with self.transaction() as transaction:
            transaction.execute("insert into effects values (%s)", ["menu"])
            answer = transaction.append(item)
            transaction.commit()
        assert (answer.job_id, answer.code, answer.version) == (job_id, Code.STORED, 3)
        assert (self.effects(), self.values(job_id)) == (["menu"], ["done"])
        assert self.store.head(job_id).position == after(item)

    def test_nothing_is_there_before_the_commit_or_without_it(self) -> None:
        job_id, claim = self.owned_job()
        head = self.store.head(job_id)
        with self.transaction() as transaction:
            transaction.execute("insert into effects values ('menu')")
            assert transaction.append(self.next_append(job_id, claim, "done")).code is Code.STORED
            assert (self.store.head(job_id), self.values(job_id)) == (head, [])
        assert (self.store.head(job_id), self.values(job_id), self.effects()) == (head, [], [])

    def test_transaction_can_release_the_job(self) -> None:
        job_id, claim = self.owned_job()
        with self.transaction() as transaction:
            transaction.append(self.build.append(job_id, self.position(job_id), claim, "last", release=True))
            transaction.commit()
        assert self.store.head(job_id).worker_id is None

    def test_transaction_that_was_rolled_back_lets_the_next_one_begin(self) -> None:
        for _ in range(2):
            with self.transaction() as transaction:
                transaction.execute("insert into effects values ('menu')")
        assert self.effects() == []

    def test_rolling_back_twice_or_after_the_commit_changes_nothing(self) -> None:
        with self.transaction() as transaction:
            transaction.execute("insert into effects values ('menu')")
            transaction.commit()
            transaction.roll_back()
            transaction.roll_back()
        assert self.effects() == ["menu"]

    # --- answers -----------------------------------------------------------------------------------------------------

    def test_append_behind_an_operators_is_a_conflict_and_decided_again_in_the_same_transaction(self) -> None:
        job_id, claim = self.owned_job()
        known = self.position(job_id)
        stale = self.build.append(job_id, known, claim, "stale")
        self.store.append_locked(job_id, known, self.build.proposing(changed("operator")))
        with self.transaction() as transaction:
            transaction.execute("insert into effects values ('menu')")
            assert transaction.append(stale).code is Code.CONFLICT
            (operators,) = transaction.tail(job_id, known)
            here = Position(operators.version, operators.hash, operators.recorded_at)
            assert transaction.append(self.build.append(job_id, here, claim, "again")).code is Code.STORED
            transaction.commit()
        assert (self.values(job_id), self.effects()) == (["operator", "again"], ["menu"])

    def test_head_is_held_from_the_conflict_to_the_commit(self) -> None:
        job_id, claim = self.owned_job()
        known = self.position(job_id)
        stale = self.build.append(job_id, known, claim, "stale")
        self.store.append_locked(job_id, known, self.build.proposing(changed("operator")))
        with ThreadPoolExecutor(1) as pool, self.transaction() as transaction:
            assert transaction.append(stale).code is Code.CONFLICT
            meanwhile = self.build.proposing(changed("meanwhile"))
            appending = pool.submit(lambda: self.harness.reopen().append_locked(job_id, known, meanwhile))
            (operators,) = transaction.tail(job_id, known)
            here = Position(operators.version, operators.hash, operators.recorded_at)
            assert transaction.append(self.build.append(job_id, here, claim, "again")).code is Code.STORED
            transaction.commit()
            appending.result(DONE_S_MAX)
        assert self.values(job_id) == ["operator", "again", "meanwhile"]

    def test_append_of_a_former_owner_is_fenced(self) -> None:
        job_id, claim = self.owned_job()
        item = self.next_append(job_id, claim, "late")
        self.store.retire_worker(claim.worker_id)
        self.claim(job_id)
        with self.transaction() as transaction:
            assert transaction.append(item).code is Code.FENCED

    def test_append_to_no_job_is_missing_and_one_to_a_log_that_is_behind_has_regressed(self) -> None:
        job_id, claim = self.owned_job()
        lost = Position(9, "f" * 64, self.position(job_id).recorded_at)
        with self.transaction() as transaction:
            assert transaction.append(self.build.append(job_id, lost, claim, "lost")).code is Code.REGRESSED
        with self.transaction() as transaction:
            nowhere = self.build.append(self.build.clock.new_id(), lost, claim, "lost")
            assert transaction.append(nowhere).code is Code.MISSING

    # --- everybody else ----------------------------------------------------------------------------------------------

    def test_others_append_while_a_transaction_is_open_or_wait_for_its_end(self) -> None:
        job_id, claim = self.owned_job()
        own, other = self.next_append(job_id, claim, "mine"), self.owned_job()
        appends = [self.next_append(job_id, claim, "sibling"), self.next_append(*other, "other job")]
        with ThreadPoolExecutor(2) as pool, self.transaction() as transaction:
            transaction.execute("insert into effects values ('menu')")
            appending = [pool.submit(self.store.append, [item]) for item in appends]
            if not self.store.stops_writers:
                assert [each.result(DONE_S_MAX)[0].code for each in appending] == [Code.STORED] * 2
                assert transaction.append(own).code is Code.CONFLICT
            transaction.roll_back()
            assert [each.result(DONE_S_MAX)[0].code for each in appending] == [Code.STORED] * 2
        assert (self.values(job_id), self.values(other[0])) == (["sibling"], ["other job"])

    def test_transactions_that_write_the_same_row_follow_one_another(self) -> None:
        jobs = [self.owned_job() for _ in range(4)]
        self.run_alone("insert into effects values ('0')")

        def count(number: int) -> None:
            item = self.next_append(*jobs[number], "counted")
            with self.transaction() as transaction:
                transaction.execute("update effects set name = cast(cast(name as integer) + 1 as text)")
                assert transaction.append(item).code is Code.STORED
                transaction.commit()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(4)))
        assert self.effects() == ["4"]

    def run_alone(self, statement: str) -> None:
        with self.transaction() as transaction:
            transaction.execute(statement)
            transaction.commit()

    # --- statements --------------------------------------------------------------------------------------------------

    def test_rows_come_back_one_by_one_or_all_that_are_left(self) -> None:
        with self.transaction() as transaction:
            inserted = transaction.execute_many("insert into effects values (%s)", [["a"], ["b"], ["c"]])
            assert (inserted.rowcount, inserted.fetchall()) == (3, [])
            rows = transaction.execute("select name, 1 from effects order by name")
            assert rows.fetchone() == ("a", 1)
            assert rows.fetchall() == [("b", 1), ("c", 1)]
            assert rows.fetchone() is None
            assert transaction.execute("delete from effects where name > %s", ["a"]).rowcount == 2

    def test_parameters_stand_where_the_statement_says_and_nowhere_inside_quotes(self) -> None:
        with self.transaction() as transaction:
            row = transaction.execute(
                "select 7 %% 4, '100%', '100%%', '%s', 'it''s %s', cast(%s as text) /* %s isn't one */ -- nor %s",
                ["value %s"],
            ).fetchone()
        assert row == (3, "100%", "100%", "%s", "it's %s", "value %s")

    @pytest.mark.parametrize(
        ("statement", "parameters"),
        [("select 1 % 2", []), ("select %s", []), ("select 1", [1]), ("select %s", "1"), ("select %(name)s", [1])],
    )
    def test_statement_whose_parameters_do_not_fit_is_refused(self, statement: str, parameters: list[object]) -> None:
        with self.transaction() as transaction:
            with pytest.raises(StatementFailed, match=r"parameter|lone %"):
                transaction.execute(statement, parameters)
            transaction.execute("insert into effects values ('menu')")
            transaction.commit()
        assert self.effects() == ["menu"]

    # --- what the handler must not do --------------------------------------------------------------------------------

    def test_statement_that_failed_is_told_again_instead_of_an_answer(self) -> None:
        job_id, claim = self.owned_job()
        self.run_alone("insert into effects values ('menu')")
        with self.transaction() as transaction:
            transaction.execute("insert into effects values ('fine')")
            with pytest.raises(StatementFailed) as failed:
                transaction.execute("insert into effects values ('menu')")
            assert failed.value.code in ("23505", "SQLITE_CONSTRAINT_PRIMARYKEY")
            with pytest.raises(StatementFailed, match=r"(?i)earlier statement failed .*unique"):
                transaction.append(self.next_append(job_id, claim, "done"))
        assert (self.effects(), self.values(job_id)) == (["menu"], [])

    def test_statement_that_failed_behind_a_savepoint_can_be_got_over(self) -> None:
        job_id, claim = self.owned_job()
        with self.transaction() as transaction:
            transaction.execute("insert into effects values ('menu')")
            transaction.execute("savepoint before_trying")
            with pytest.raises(StatementFailed):
                transaction.execute("insert into effects values ('menu')")
            transaction.execute("rollback to savepoint before_trying")
            assert transaction.append(self.next_append(job_id, claim, "done")).code is Code.STORED
            transaction.commit()
        assert (self.effects(), self.values(job_id)) == (["menu"], ["done"])

    @pytest.mark.parametrize("ending", ["commit", "rollback", "end"])
    def test_transaction_that_its_statements_ended_appends_nothing(self, ending: str) -> None:
        job_id, claim = self.owned_job()
        item = self.next_append(job_id, claim, "done")
        with self.transaction() as transaction:
            transaction.execute("insert into effects values ('menu')")
            with pytest.raises(TransactionEnded):
                transaction.execute(ending)
            for act in (lambda: transaction.execute("begin"), lambda: transaction.append(item), transaction.commit):
                with pytest.raises(TransactionEnded):
                    act()
        assert self.values(job_id) == []

    def test_statement_that_ended_the_transaction_by_failing_lets_nothing_through(self) -> None:
        with self.transaction() as transaction:
            with pytest.raises(StatementFailed):
                transaction.execute("select nothing from nowhere")
            with pytest.raises((StatementFailed, TransactionEnded)):
                transaction.execute("rollback")
            with pytest.raises((StatementFailed, TransactionEnded)):
                transaction.execute("insert into effects values ('alone')")
        assert self.effects() == []

    # --- its end from outside ----------------------------------------------------------------------------------------

    def test_transaction_that_is_over_takes_nothing_more(self) -> None:
        job_id, claim = self.owned_job()
        item = self.next_append(job_id, claim, "done")
        with self.transaction() as transaction:
            transaction.roll_back()
            acts: list[Callable[[], object]] = [
                lambda: transaction.execute("insert into effects values ('menu')"),
                lambda: transaction.execute_many("insert into effects values (%s)", [["menu"]]),
                lambda: transaction.append(item),
                transaction.commit,
            ]
            for act in acts:
                with pytest.raises(TransactionClosed):
                    act()
        assert (self.effects(), self.values(job_id)) == ([], [])

    def test_statement_that_runs_is_stopped_when_the_transaction_is_rolled_back(self) -> None:
        endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
        begun, ended = threading.Event(), []

        def go_on(transaction: StoreTransaction) -> None:
            begun.set()
            try:
                transaction.execute(endless)
            except TransactionClosed as error:
                ended.append(error)

        with self.transaction() as transaction:
            running = threading.Thread(target=go_on, args=(transaction,), daemon=True)
            running.start()
            begun.wait(DONE_S_MAX)
            transaction.roll_back()
            running.join(DONE_S_MAX)
        assert len(ended) == 1

    def test_transaction_knows_how_long_it_may_be_open(self) -> None:
        with self.transaction() as transaction:
            assert transaction.timeout_s == DONE_S_MAX
        transaction = self.store.begin()
        transaction.roll_back()
        assert transaction.timeout_s == (5.0 if self.store.stops_writers else None)
