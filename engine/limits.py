"""Limits across the fleet: how many jobs of a workflow run at once, or begin in a time, in all or per value of a tag.

They hold for jobs that workers claim; `workflow.run()` asks nobody. Where none is set, nothing is asked of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from steplog.engine.errors import DefinitionError
from steplog.engine.policies import Duration, seconds_of
from steplog.eventstore.codec import check_name
from steplog.eventstore.heads import HeadColumns
from steplog.eventstore.store import SlotWanted

SLOTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Limit:
    """So many jobs at once or, with `period_s`, so many first claims in each such time."""

    slots: int
    period_s: float | None = None
    per: str | None = None
    """The tag whose every value has slots of its own; jobs without it are not limited."""

    def tags_of(self, columns: HeadColumns) -> Mapping[str, str] | None:
        """The tags that jobs counted together have; None where the job is not counted."""
        if self.per is None:
            return {}
        return {self.per: columns.tags[self.per]} if self.per in columns.tags else None

    def slot_for(self, columns: HeadColumns, *, is_first: bool) -> SlotWanted | None:
        """What a claim of the job takes of it, if anything: a rate counts a job once."""
        tags = self.tags_of(columns)
        if tags is None or (self.period_s is not None and not is_first):
            return None
        kind = "at once" if self.period_s is None else f"per {self.period_s:g}s"
        key = "".join(f" {name}={value}" for name, value in tags.items())
        return SlotWanted(f"{columns.workflow} {kind}{key}", self.slots, self.period_s)


def limits_of(concurrency: int | None, rate: int | None, every: Duration | None, per: str | None) -> list[Limit]:
    """Concurrency first: a slot of a rate is used up even if the job is not claimed. Raises DefinitionError."""
    if concurrency is None and rate is None:
        raise DefinitionError("a limit names concurrency=, or rate= and every=")
    if (rate is None) != (every is None):
        raise DefinitionError("rate= and every= go together: rate=100, every='1m'")
    for slots in (concurrency, rate):
        if slots is not None and not 1 <= slots <= SLOTS_MAX:
            raise DefinitionError(f"a limit of {slots} is not between 1 and {SLOTS_MAX}")
    if per is not None:
        check_name(per, "tag")
    found = [] if concurrency is None else [Limit(concurrency, None, per)]
    return found if rate is None or every is None else [*found, Limit(rate, seconds_of(every), per)]
