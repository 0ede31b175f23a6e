"""The tree of a job: what `show` prints for each state a sub-step, a phase and a job can be in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from shown_jobs import (
    HALF_WAY,
    TIMEOUT,
    Timed,
    after,
    claimed,
    completed,
    created,
    failed,
    started,
    state_of,
    step_plan,
)

from steplog.eventstore import events as ev
from steplog.terminal.look import Look
from steplog.terminal.text import width
from steplog.terminal.tree import View, tree

ONE = {"phases": [{"name": "main", "sub_steps": [step_plan("work")]}]}
BEGUN: list[Timed] = [created(ONE), claimed(), (0.0, ev.PhaseStarted(phase="main")), started(0.0, "main/work")]


def shown(facts: Iterable[Timed], *, at: float = 64.0, look: Look | None = None, **view: Any) -> list[str]:
    return tree(View(state_of(facts), "b617", after(at), look or Look(), **view))


def test_a_job_half_way_is_shown_as_the_interface_draws_it() -> None:
    assert "\n".join(shown(HALF_WAY, at=49.0)) == "\n".join(
        [
            "registration  …b617  ▶ running  phase 2/3  ███████████░░░░░░░ 5/8  event 17  49s",
            "├── ✓ phase1                 completed     8.1s",
            "│   ├── ✓   code_generation  completed     8.1s",
            "│   └── ✓   create_user      completed     0.4s",
            "├── ▶ phase2                 in progress   41s       Configuration",
            "│   ├── ✓   register         completed     1.2s",
            "│   ├── ↻   menu_import      retrying      41s       attempt 2/3 in 4.0s: TimeoutError: slow",
            "│   ├── ⤼   website          skipped                 no code_files",
            "│   ├── !   services         failed        0.2s      optional: the job goes on · HTTPError: 502",
            "│   └── ○   sync             waiting                 after menu_import",
            "└── ○ phase3                 pending",
        ]
    )


def test_only_ascii_is_written_where_the_stream_has_nothing_else() -> None:
    lines = shown(HALF_WAY, look=Look(unicode=False))
    assert all(line.isascii() for line in lines)
    assert lines[0].startswith("registration  ...b617  > running")
    assert lines[5].startswith("|   |-- +   register")


def test_colours_change_nothing_but_colours() -> None:
    plain, coloured = shown(HALF_WAY), shown(HALF_WAY, look=Look(colour=True))
    assert "\x1b[" in coloured[0]
    assert [width(line) for line in coloured] == [width(line) for line in plain]


def test_text_of_others_is_written_out_and_moves_nothing() -> None:
    error = {"type": "E\x1b[2J", "message": "a\nb \u202e \x9b31m \x07", "retryable": False}
    name = "wo\x1b[31mrk\u2066"
    plan = {"phases": [{"name": "ma\x07in", "description": "\x1b]0;x", "sub_steps": [step_plan(name)]}]}
    facts = [
        created(plan, context={}),
        claimed(),
        (0.0, ev.PhaseStarted(phase="ma\x07in")),
        started(0.0, f"ma\x07in/{name}"),
        failed(1.0, f"ma\x07in/{name}", 1.0, error),
        (1.0, ev.JobFailed(error=error, phase="ma\x07in", sub_step=name)),
    ]
    lines = shown(facts)
    assert all(line.isprintable() for line in lines)
    assert "\\x1b[2J" in lines[1]
    assert "\\u202e" in lines[1]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ([], "▶   work  in progress   5.0s"),
        (
            [(1.0, ev.SubStepProgressed(phase="main", sub_step="work", attempt=1, done=60, total=100, note="rows"))],
            "▶   work  in progress   5.0s      ███░░ 60/100 rows",
        ),
        (
            [(1.0, ev.SubStepCheckpointed(phase="main", sub_step="work", attempt=1, cursor={"row": 60}))],
            '▶   work  in progress   5.0s      cursor {"row": 60}',
        ),
        (
            [failed(1.0, "main/work", 1.0, TIMEOUT), started(2.0, "main/work", 2)],
            "▶   work  in progress   5.0s      attempt 2/3",
        ),
        (
            [failed(1.0, "main/work", 1.0, TIMEOUT), started(2.0, "main/work", 2), completed(4, "main/work", 2.0, 2)],
            "✓   work  completed     2.0s      attempt 2",
        ),
        (
            [(1.0, ev.SubStepInterrupted(phase="main", sub_step="work", attempt=1, cause="owner died", worker_id="w"))],
            "↯   work  interrupted   5.0s      owner died",
        ),
        (
            [(1.0, ev.SubStepWaiting(phase="main", sub_step="work", kind="signal", signal="approved"))],
            "○   work  waiting       5.0s      signal approved",
        ),
    ],
)
def test_a_sub_step_says_where_it_stands(facts: list[Timed], expected: str) -> None:
    line = shown([*BEGUN, *_with_retries(facts)], at=5.0)[-1]
    assert line.removeprefix("    └── ") == expected


def _with_retries(facts: list[Timed]) -> list[Timed]:
    """A retry scheduled behind each failure, as the engine does."""
    whole: list[Timed] = []
    for seconds, fact in facts:
        whole.append((seconds, fact))
        if isinstance(fact, ev.SubStepFailed):
            scheduled = ev.SubStepRetryScheduled(phase="main", sub_step="work", attempt=2, retry_at=after(2.0))
            whole.append((seconds, scheduled))
    return whole


def test_a_failed_job_says_why_first_and_its_time_stands_still() -> None:
    facts = [
        *BEGUN,
        failed(2.0, "main/work", 2.0, TIMEOUT),
        (2.0, ev.PhaseFailed(phase="main", failed=["main/work"])),
        (2.0, ev.JobFailed(error=TIMEOUT, phase="main", sub_step="work")),
    ]
    lines = shown(facts, at=9999.0)
    assert lines[0].endswith("2.0s")
    assert lines[1] == "✗ main/work: TimeoutError: slow"


def test_a_parked_job_says_for_what() -> None:
    facts = [*BEGUN, (3.0, ev.JobParked(reason="crash loop", detail="work was interrupted 3 times"))]
    lines = shown(facts)
    assert "■ parked" in lines[0]
    assert lines[1] == "■ crash loop: work was interrupted 3 times"


def test_a_job_whose_process_is_gone_is_not_shown_as_running() -> None:
    lines = shown(BEGUN, stalled=True)
    assert "↯ stalled (its process is gone)" in lines[0]
    assert "running" not in lines[0]
    assert "interrupted" in lines[-1]


def test_tolerated_failures_stand_below_a_completed_job() -> None:
    facts = [*BEGUN, completed(1.0, "main/work", 1.0), (1.0, ev.JobCompleted(warnings=["main/other failed: 502"]))]
    assert shown(facts)[-1] == "! main/other failed: 502"


def test_phases_behind_the_current_one_can_be_folded_away() -> None:
    lines = tree(View(state_of(HALF_WAY), "b617", after(64), Look()), detail="current")
    assert not [line for line in lines if "code_generation" in line]
    assert [line for line in lines if "menu_import" in line]
