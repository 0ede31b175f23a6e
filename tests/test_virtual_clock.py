from __future__ import annotations

from uuid import UUID

from steplog.testing.clock import VirtualClock


def test_time_stands_still_until_it_is_moved() -> None:
    clock = VirtualClock("2026-02-28T23:59:59.500000Z")
    assert (clock.now(), clock.monotonic()) == ("2026-02-28T23:59:59.500000Z", 0.0)
    clock.advance(0.75)
    assert (clock.now(), clock.monotonic()) == ("2026-03-01T00:00:00.250000Z", 0.75)


def test_ids_sort_in_the_order_they_were_made_and_repeat_in_every_run() -> None:
    runs = []
    for _ in range(2):
        clock = VirtualClock()
        ids = [clock.new_id() for _ in range(300)]
        clock.advance(1)
        ids += [clock.new_id() for _ in range(300)]
        runs.append(ids)
    assert runs[0] == runs[1] == sorted(set(runs[0]))
    assert {UUID(id).version for id in runs[0]} == {7}
