"""What the decider asks of a workflow's code between two appends: conditions, and the items of fan-outs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from steplog.engine.calling import error_data, message_of
from steplog.engine.context import open_draft
from steplog.engine.decider import Decision
from steplog.engine.definition import AnyDefinition
from steplog.engine.facts import Answer, ErrorData, Listed
from steplog.engine.listing import list_items
from steplog.engine.policies import Skip
from steplog.engine.step import Job
from steplog.engine.vault import Vault
from steplog.eventstore.events import EventData, SubStepData, SubStepExpanded
from steplog.projections.plan import Key, key_of
from steplog.projections.state import State


class Asking:
    """Answers of one job's code that are not recorded yet: each question is asked once."""

    def __init__(self, definition: AnyDefinition, input: Any, vault: Vault) -> None:
        self._definition = definition
        self._input = input
        self._vault = vault
        self.answers: dict[Key, Answer] = {}
        self.items: dict[Key, Sequence[Listed] | ErrorData] = {}

    def ask(self, decision: Decision) -> None:
        """Ask what the decision needs to know, of the job as it will be."""
        self.answers |= {key: self._answer(key, decision.state) for key in decision.questions}
        self.items |= {
            key: list_items(self._definition, key, decision.state, partial(self._job, decision.state), self._vault)
            for key in decision.unlisted
        }

    def forget(self, recorded: Sequence[EventData]) -> None:
        """What is recorded need not be remembered."""
        for event in recorded:
            if isinstance(event, SubStepData) and event.item is None:
                key = key_of(event.phase, event.sub_step)
                self.answers.pop(key, None)
                if not isinstance(event, SubStepExpanded) or event.last:
                    self.items.pop(key, None)

    def forget_all(self) -> None:
        """Somebody else changed the job: what was said of it may not be true any more."""
        self.answers.clear()
        self.items.clear()

    def _answer(self, key: Key, state: State) -> Answer:
        """What the sub-step's condition says."""
        when = self._definition.sub_steps[key].options.when
        assert when is not None, key
        try:
            answer = when(self._job(state))
            if isinstance(answer, Skip):
                return message_of(answer, self._vault.scrub)
            return True if answer else "condition not met"
        except BaseException as error:  # user code: whatever it raises fails the sub-step, not the runner
            return error_data(error, False, self._vault.scrub)

    def _job(self, state: State) -> Job[Any, Any]:
        context = open_draft(self._definition.context_type, state["context"], vault=self._vault)
        return Job(state["job_id"], self._input, context)
