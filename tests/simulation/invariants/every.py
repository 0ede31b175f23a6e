"""What must hold of every story, whatever happened: one function each, in one list."""

from __future__ import annotations

from collections.abc import Callable

from simulation.invariants import (
    attempts,
    context,
    deadlines,
    forks,
    interruptions,
    log,
    outcomes,
    owners,
    reports,
    settling,
    transactions,
    waits,
)
from simulation.invariants.terms import Broken
from simulation.reading import Reading

Invariant = Callable[[Reading], Broken]

INVARIANTS: tuple[Invariant, ...] = (
    owners.every_job_ends_or_says_what_it_waits_for,
    log.the_log_has_no_gap_and_no_event_twice,
    log.what_was_acknowledged_is_stored,
    log.what_a_person_did_is_there_once,
    log.the_fold_is_the_same_however_the_log_is_cut,
    log.nothing_of_a_former_owner_is_stored,
    owners.a_former_owner_stops_itself,
    owners.nothing_but_a_person_goes_on_with_a_job_that_stopped,
    owners.a_job_that_is_to_stop_starts_nothing_new,
    owners.a_person_is_heard_within_a_heartbeat,
    owners.only_a_death_or_a_hand_over_interrupts,
    attempts.a_sub_step_goes_through_its_life_in_order,
    attempts.nothing_starts_before_what_it_needs,
    attempts.a_phase_is_a_barrier,
    attempts.no_more_run_at_once_than_the_phase_allows,
    attempts.started_is_durable_before_the_handler_is_called_once,
    attempts.a_generation_has_one_idempotency_key_of_its_own,
    attempts.a_handler_that_still_runs_is_not_called_again,
    outcomes.an_outcome_is_what_the_handler_did,
    outcomes.no_outcome_is_lost,
    outcomes.a_late_outcome_is_one,
    settling.failing_attempts_are_tried_again_as_often_and_as_late_as_said,
    settling.a_retry_starts_when_it_is_due,
    settling.a_critical_failure_starts_nothing_new_and_waits_for_what_runs,
    settling.a_completed_job_has_settled_everything,
    settling.what_is_skipped_has_a_cause,
    settling.a_condition_has_said_yes_to_what_started,
    interruptions.an_interruption_leads_to_what_its_policy_says,
    interruptions.what_may_kill_its_process_runs_alone,
    interruptions.a_job_parks_for_a_reason_that_is_one,
    context.a_handler_sees_the_context_as_of_its_start_and_its_last_checkpoint,
    context.a_checkpoint_holds_what_the_handler_had_written,
    context.a_completion_records_every_change_once_and_refuses_what_others_wrote,
    context.a_refused_value_stops_the_job_until_a_person_decides,
    context.a_handler_is_given_the_results_it_needs,
    context.a_reset_takes_back_all_that_followed_and_what_it_wrote,
    waits.a_wait_is_as_long_as_it_was_declared,
    waits.a_wait_ends_for_the_oldest_signal_or_when_its_time_is_over,
    waits.a_wait_ends_soon_after_it_could,
    deadlines.nothing_begins_behind_a_deadline,
    deadlines.a_job_fails_by_its_deadline_when_that_has_come,
    deadlines.a_retry_is_due_before_the_deadline,
    transactions.a_completion_and_its_effects_are_one_commit,
    transactions.an_effect_is_there_only_with_what_tells_of_it,
    transactions.what_was_rolled_back_is_not_told_of,
    reports.lines_are_kept_in_order_and_once,
    reports.progress_is_what_was_said_and_the_last_is_kept,
    reports.a_handler_is_given_the_input_as_it_was_at_its_start,
    forks.a_fork_goes_on_from_what_had_settled,
)
