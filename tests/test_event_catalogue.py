"""The catalogue and its page in docs/ say the same, and every event type is fit for the log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from steplog.eventstore.codec import check_name
from steplog.eventstore.events import CATALOGUE, AttemptData, EventData, PhaseStarted, SubStepData

PAGE = (Path(__file__).parents[1] / "docs" / "events.md").read_text()
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^#|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
MODELS = pytest.mark.parametrize("model", CATALOGUE.values(), ids=CATALOGUE.keys())


def common_fields(model: type[EventData]) -> list[str]:
    """The fields that the page explains once for a whole family of events."""
    for family in (AttemptData, SubStepData):
        if issubclass(model, family):
            return list(family.model_fields)
    return []


def test_the_page_has_a_section_for_every_event_type_and_for_nothing_else() -> None:
    assert sorted(SECTIONS) == sorted(CATALOGUE)


@MODELS
def test_the_page_explains_every_field_of_the_event_and_no_other(model: type[EventData]) -> None:
    explained = re.findall(r"^\| `(\w+)`", SECTIONS[model.type()], flags=re.MULTILINE)
    common = common_fields(model)
    assert explained == [name for name in model.model_fields if name not in common]


@MODELS
def test_the_page_says_which_family_the_event_belongs_to(model: type[EventData]) -> None:
    body = SECTIONS[model.type()]
    assert ("*Of an attempt.*" in body) == issubclass(model, AttemptData)
    assert ("*Of a sub-step.*" in body) == (issubclass(model, SubStepData) and not issubclass(model, AttemptData))


@pytest.mark.parametrize("family", [SubStepData, AttemptData])
def test_the_page_explains_the_fields_of_both_families(family: type[EventData]) -> None:
    for name in family.model_fields:
        assert re.search(rf"^\| `{name}`", PAGE, flags=re.MULTILINE)


@MODELS
def test_every_event_type_has_a_name_and_a_docstring_of_its_own(model: type[EventData]) -> None:
    assert check_name(model.type(), "event") == model.__name__
    assert model.__doc__


@MODELS
def test_an_event_with_an_unknown_field_is_refused(model: type[EventData]) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        model.model_validate({"no_such_field": 1})


@MODELS
def test_a_field_that_may_be_null_may_be_left_out(model: type[EventData]) -> None:
    """None is left out of the log, so a required field that takes None would make a row that nobody can read."""
    for name, field in model.model_fields.items():
        if field.is_required():
            with pytest.raises(ValidationError, match=rf"(?m)^{name}(\.|$)"):
                model.model_validate({name: None})


def test_a_written_event_cannot_be_changed() -> None:
    event = PhaseStarted(phase="main")
    with pytest.raises(ValidationError, match="frozen"):
        setattr(event, "phase", "other")  # noqa: B010 - the type checkers refuse the plain form
