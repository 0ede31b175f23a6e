"""The timeline drawn: bars in a terminal, an SVG, and the axis that both have. Nothing is cut, overlaps or gets out."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shown_jobs import HALF_WAY, TIMEOUT, Timed, after, claimed, created, events_of, failed, started, step_plan
from simulated_jobs import SimulatedLog, simulated_logs

from steplog.eventstore import events as ev
from steplog.eventstore.clock import later
from steplog.projections.timeline import Timeline, timeline
from steplog.projections.timeline_axis import CUT_GAP_SHARE, Axis, time_label
from steplog.projections.timeline_svg import WIDTH, timeline_svg
from steplog.terminal.look import Look
from steplog.terminal.text import width
from steplog.terminal.timeline import timeline_lines

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>&\"'\x1b[2J\u202e\x00\ud800" + "x" * 300
TAKEN_OVER: list[Timed] = [
    (60.0, ev.JobClaimed(worker_id="other", epoch=2, claim_id="d", reason="takeover")),
    (60.0, ev.SubStepInterrupted(phase="phase2", sub_step="menu_import", attempt=2, cause="owner died", worker_id="w")),
]
CRASHED: list[Timed] = [*HALF_WAY, started(53.0, "phase2/menu_import", 2), *TAKEN_OVER]


def shown(facts: list[Timed], now: float | None = None, **known: Any) -> Timeline:
    return timeline(events_of(facts), None if now is None else after(now), **known)


def lines(of: Timeline, columns: int = 80, look: Look | None = None) -> list[str]:
    return timeline_lines(of, "b617", look or Look(), columns)


def line_of(name: str, *args: Any, **more: Any) -> str:
    (line,) = [line for line in lines(*args, **more) if name in line.split()]
    return line


def parsed(of: Timeline) -> ElementTree.Element:
    return ElementTree.fromstring(timeline_svg(of))


def drawn(picture: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    """Bars of that kind that say what they are: those of the legend do not."""
    return [each for each in picture.iter(f"{SVG}rect") if each.get("class") == kind and len(each)]


# --- the axis --------------------------------------------------------------------------------------------------------


def test_instants_stand_in_proportion_where_nothing_was_cut() -> None:
    axis = Axis.of(shown(HALF_WAY))
    assert [round(axis.place(after(at)), 3) for at in (0, 12, 24, 48, 99)] == [0, 0.25, 0.5, 1, 1]


def test_a_night_between_crash_and_take_over_leaves_room_for_the_rest() -> None:
    night = [(at + 36_000 if at >= 60.0 else at, event) for at, event in CRASHED]
    axis = Axis.of(shown(night))
    gap = axis.place(after(36_060.0)) - axis.place(after(53.0))
    assert gap == pytest.approx(CUT_GAP_SHARE / (1 + CUT_GAP_SHARE), rel=0.01)
    assert axis.cut_s > 35_000


def test_a_gap_that_is_short_beside_the_rest_is_drawn_as_long_as_it_was() -> None:
    axis = Axis.of(shown(CRASHED))
    edge = axis.passed[-1]
    assert axis.place(after(60.0)) - axis.place(after(53.0)) == pytest.approx(7 / edge, rel=0.01)
    assert axis.cut_s == 0


@given(simulated_logs(), st.integers(2, 12))
def test_later_never_stands_before_earlier_and_ticks_are_round_and_few(log: SimulatedLog, most: int) -> None:
    axis = Axis.of(timeline(log.events))
    places = [axis.place(event.recorded_at) for event in log.events]
    assert places == sorted(places)
    assert all(0.0 <= place <= 1.0 for place in places)
    ticks = axis.ticks(most)
    assert 1 <= len(ticks) <= most
    assert len({label for _, label in ticks}) == len(ticks)
    assert all(one < next_ for (one, _), (next_, _) in pairwise(ticks))


@pytest.mark.parametrize(
    ("seconds", "label"),
    [(0, "0"), (0.25, "250ms"), (1, "1s"), (1.5, "1.5s"), (90, "1m30s"), (7200, "2h"), (273_600, "3d04h")],
)
def test_times_along_the_axis_are_short(seconds: float, label: str) -> None:
    assert time_label(seconds) == label


# --- in a terminal ---------------------------------------------------------------------------------------------------


def test_a_job_that_crashed_is_drawn_as_bars() -> None:
    assert "\n".join(lines(shown(CRASHED, now=64.0), 80)) == "\n".join(
        [
            "registration  …b617  ▶ running  event 20  1m04s",
            "                   0           20s        40s         1m",
            "phase1",
            "  code_generation  █████                          ┊┊┊┊  ┆  completed 8.1s",
            "  create_user      █                              ┊┊┊┊  ┆  completed 0.4s",
            "phase2",
            "  register              █                         ┊┊┊┊  ┆  completed 1.2s",
            "  menu_import           ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒───▚┊┊┊  ┆  interrupted 0ms atte…",
            "  website               ◇                         ┊┊┊┊  ┆  skipped no code_files",
            "  services              ▒                         ┊┊┊┊  ┆  failed 1.4s",
            "  sync                                            ┊┊┊┊  ┆  pending",
            "phase3",
            "  finish                                          ┊┊┊┊  ┆  pending",
            "↯ crashed: its process was last heard of at +53s, taken over 7.0s later",
            "█ completed  ▒ failed  ▚ interrupted  ─ wait  ◇ no attempt  ┊ crash gap  ┆ now",
        ]
    )


@pytest.mark.parametrize("columns", [60, 80, 133, 250])
def test_lines_use_the_width_there_is_and_no_more(columns: int) -> None:
    drawn = [line for line in lines(shown(CRASHED, now=64.0), columns) if not line.startswith("↯")]
    assert columns * 0.8 <= max(map(width, drawn)) <= columns


def test_only_ascii_is_written_where_the_stream_has_nothing_else() -> None:
    plain = lines(shown(CRASHED, now=64.0), 80, Look(unicode=False))
    assert all(line.isascii() for line in plain)
    assert re.search(r"x-+>?.*\?", line_of("menu_import", shown(CRASHED, now=64.0), look=Look(unicode=False)))


def test_colours_change_nothing_but_colours() -> None:
    plain, coloured = (lines(shown(CRASHED), look=Look(colour=colour)) for colour in (False, True))
    assert "\x1b[" in "".join(coloured)
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in coloured] == plain


def test_a_crash_that_nobody_took_over_is_told() -> None:
    told = "\n".join(lines(shown(HALF_WAY, now=500.0, stalled=True)))
    assert "last heard of at +48s, nobody has taken over" in told
    assert "stalled" in told


# --- as a picture ----------------------------------------------------------------------------------------------------


def test_each_attempt_wait_and_gap_is_drawn_once_with_what_it_is() -> None:
    picture = parsed(shown(CRASHED, now=64.0))
    titles = {kind: [each[0].text for each in drawn(picture, kind)] for kind in ("failed", "interrupted", "wait")}
    assert titles == {
        "failed": ["attempt 1: failed, 40s, TimeoutError: slow", "attempt 1: failed, 1.4s, HTTPError: 502"],
        "interrupted": ["attempt 2: interrupted, 0, owner died"],
        "wait": ["waits: retry 2026-11-23T12:00:53.000000Z"],
    }
    assert [each[0].text for each in drawn(picture, "gap crashed")] == ["crashed 7s"]
    assert len(drawn(picture, "completed")) == 3


def test_the_live_edge_is_drawn_only_where_time_goes_on() -> None:
    assert 'class="edge"' in timeline_svg(shown(HALF_WAY, now=64.0))
    stopped = [*HALF_WAY, (49.0, ev.JobPaused(by="anna"))]
    assert 'class="edge"' not in timeline_svg(shown(stopped, now=64.0))


def test_failed_attempts_are_hatched_and_both_schemes_are_there() -> None:
    picture = timeline_svg(shown(HALF_WAY))
    assert ".failed { fill: url(#failed)" in picture
    assert '<pattern id="failed"' in picture
    assert "prefers-color-scheme: dark" in picture


def hostile() -> Timeline:
    plan = {"phases": [{"name": HOSTILE, "sub_steps": [step_plan(HOSTILE), step_plan("漢字" * 40)]}]}
    where: dict[str, Any] = {"phase": HOSTILE, "sub_step": HOSTILE}
    facts: list[Timed] = [
        created(plan),
        claimed(),
        (0.0, ev.PhaseStarted(phase=HOSTILE)),
        started(0.0, f"{HOSTILE}/{HOSTILE}"),
        failed(1.0, f"{HOSTILE}/{HOSTILE}", 1.0, {**TIMEOUT, "message": HOSTILE}),
        (9.0, ev.SubStepSkipped(phase=HOSTILE, sub_step="漢字" * 40, cause="condition", reason=HOSTILE)),
        (9.0, ev.SubStepWaiting(**where, kind="signal", signal=HOSTILE)),
        (9.0, ev.JobParked(reason="crash loop", detail=HOSTILE)),
    ]
    return shown(facts)


def test_text_of_others_stays_text() -> None:
    picture = parsed(hostile())
    assert not list(picture.iter(f"{SVG}script"))
    told = "".join(picture.itertext())
    assert "<script>&\"'\ufffd[2J\ufffd" in told
    assert "\u202e" not in told
    assert all(line.isprintable() for line in lines(hostile()))


@given(simulated_logs(), st.data())
def test_a_picture_of_any_history_is_xml_and_stays_within_its_frame(log: SimulatedLog, data: st.DataObject) -> None:
    events = log.events[: data.draw(st.integers(1, len(log.events)))]
    now = data.draw(st.sampled_from([None, later(events[-1].recorded_at, 3600.0)]))
    owned = timeline(events)["status"] == "running"
    of = timeline(events, now, stalled=owned and data.draw(st.booleans()))
    picture = parsed(of)
    height = float(picture.attrib["height"])
    for each in picture.iter(f"{SVG}rect"):
        left, top = float(each.get("x", 0)), float(each.get("y", 0))
        assert 0 <= left <= left + float(each.attrib["width"]) <= WIDTH
        assert 0 <= top <= top + float(each.attrib["height"]) <= height
    for text in picture.iter(f"{SVG}text"):
        assert within_frame(text), text.text
    assert max(width(line) for line in lines(of, 100)[1:-1]) <= 100


def within_frame(text: ElementTree.Element) -> bool:
    columns, x = width(text.text or ""), float(text.attrib["x"])
    pixels = columns * (9.2 if text.get("class") == "head" else 7.3)
    start = x - pixels * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor", "start")]
    return start >= 0 and start + pixels <= WIDTH
