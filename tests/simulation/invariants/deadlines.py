"""Of deadlines: they stand from the first start on, whatever crashes, and nothing begins behind them."""

from __future__ import annotations

from simulation.invariants.terms import SLACK_S, Broken
from simulation.reading import Reading, key_of


def nothing_begins_behind_a_deadline(told: Reading) -> Broken:
    for place, event in enumerate(told.log):
        before, at = told.before[place], told.seconds(event)
        begins = event.type in ("SubStepStarted", "SubStepWaiting", "SubStepExpanded")
        if begins and at > (before.job_deadline or 1e9) + SLACK_S:
            yield f"{key_of(event)} began at {at:g} s, the job's deadline was {before.job_deadline:g} s"
        if event.type == "SubStepStarted" and at > before.deadline_of(key_of(event)) + SLACK_S:
            yield f"{key_of(event)} began at {at:g} s, its deadline was {before.deadline_of(key_of(event)):g} s"


def a_job_fails_by_its_deadline_when_that_has_come(told: Reading) -> Broken:
    for place, event, _ in told.each("JobFailed"):
        if told.before[place].is_undone:  # a person may have had it since
            continue
        deadline, late = told.before[place].job_deadline, event.data["error"]["message"].startswith("the job did not")
        if late and (deadline is None or told.seconds(event) < deadline - SLACK_S):
            yield f"the job failed for its deadline of {deadline} s at {told.seconds(event):g} s"


def a_retry_is_due_before_the_deadline(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepRetryScheduled"):
        due = told.seconds_of(event.data["retry_at"])
        deadline = told.before[place].deadline_of(key)
        if not told.is_by_hand(event) and due >= deadline:
            yield f"{key} is to run again at {due:g} s, its deadline is {deadline:g} s"
