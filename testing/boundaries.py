"""Where a run can be killed: behind each append, and before each that holds what a handler came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steplog.eventstore.codec import decode
from steplog.eventstore.events import NewEvent
from steplog.projections.plan import place_of, shown_place
from steplog.testing.process import Fate

_OUTCOMES = {"SubStepCompleted", "SubStepFailed", "SubStepSkipped", "SubStepCheckpointed"}


@dataclass(frozen=True, slots=True)
class Boundary:
    """An event on its way to the store, or stored and not yet known to be."""

    moment: Literal["before", "after"]
    event: str

    def __str__(self) -> str:
        return f"{self.moment} {self.event}"


class Boundaries(Fate):
    """Notes where a run could be killed, and kills it at one of them."""

    def __init__(self, kill: Boundary | None = None) -> None:
        self.found: list[Boundary] = []
        self._kill = kill
        self._seen: Counter[str] = Counter()

    def kills_before(self, events: Sequence[NewEvent]) -> bool:
        return self._kill in [Boundary("before", name) for name in self._names(events)]

    def kills_after(self, events: Sequence[NewEvent]) -> bool:
        names = self._names(events)
        self._seen.update(_name(event) for event in events)
        outcomes = [name for name, event in zip(names, events, strict=True) if event.type in _OUTCOMES]
        self.found += [Boundary("before", outcome) for outcome in outcomes[:1]]
        self.found.append(Boundary("after", names[-1]))
        return self._kill in [Boundary("after", name) for name in names]

    def _names(self, events: Sequence[NewEvent]) -> list[str]:
        """Names that tell each event from the others of its job, also in another order."""
        seen = Counter(self._seen)
        names: list[str] = []
        for event in events:
            name = _name(event)
            seen[name] += 1
            names.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
        return names


def name_of(type: str, data: Mapping[str, Any]) -> str:
    """An event in one line: `SubStepCompleted phase1/account #2`."""
    parts = [type]
    if data.get("sub_step"):
        parts.append(shown_place(place_of(data["phase"], data["sub_step"], data.get("item"))))
    elif data.get("phase"):
        parts.append(data["phase"])
    if data.get("attempt"):
        parts.append(f"#{data['attempt']}")
    return " ".join(parts)


def _name(event: NewEvent) -> str:
    return name_of(event.type, decode(event.payload))
