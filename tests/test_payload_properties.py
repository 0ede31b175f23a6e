"""Whatever value a handler makes up: it comes back type-exact, or it is refused with its path before any write."""

from __future__ import annotations

import math
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from payloads import OFFENDING, PLACES, held_at, plain_json, same

from steplog.eventstore import codec
from steplog.eventstore.chain import GENESIS, Position, seal
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.codec import decode, encode, escape
from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.events import CATALOGUE, EventData, JobForked, SubStepCompleted
from steplog.eventstore.rows import Row, read_rows

JOB = "01890000-0000-7000-8000-000000000001"
AT = "2026-01-02T03:04:05.000006Z"
CLOCK = SystemClock()


def completed(result: object) -> SubStepCompleted:
    return SubStepCompleted(phase="p", sub_step="s", attempt=1, result=result, seconds=0.5)


def read_back(*facts: EventData) -> list[dict[str, Any]]:
    """The data of the events as a store would read them; a fork's chain goes on from its parent's hash."""
    before = Position(hash=facts[0].parent_hash) if isinstance(facts[0], JobForked) else Position()
    rows = [
        Row(new.version, new.event_id, new.type, new.schema_version, new.recorded_at, new.payload, new.hash)
        for new in seal(JOB, before, facts, AT, CLOCK)
    ]
    return [event.data for event in read_rows(JOB, rows, Position())]


@given(plain_json())
def test_every_plain_value_comes_back_in_value_and_type(value: object) -> None:
    assert same(decode(encode(value)), value)


@given(plain_json())
def test_encoding_what_was_read_gives_the_same_bytes(value: object) -> None:
    assert encode(decode(encode(value))) == encode(value)


@given(plain_json(), OFFENDING, PLACES)
def test_one_offending_value_anywhere_is_refused_by_its_path(
    value: object, offending: object, place: list[str | int]
) -> None:
    held, path = held_at(offending, place, value)
    with pytest.raises(PayloadRefused) as caught:
        encode(held)
    assert caught.value.path == f"${path}"


@given(st.one_of(plain_json(), st.lists(st.one_of(plain_json(), OFFENDING)), st.dictionaries(st.text(), OFFENDING)))
def test_the_shortcut_never_takes_what_the_full_check_refuses(value: object) -> None:
    shortcut = codec._encode_if_surely_exact(value)
    if shortcut is not None:
        codec._check(value, "$", 0)
        assert same(decode(shortcut), value)


@given(st.text(st.characters(codec=None, categories=None), max_size=200), st.integers(0, 100))
def test_escaped_text_can_always_be_recorded(text: str, chars_max: int) -> None:
    escaped = escape(text, chars_max)
    assert decode(encode(escaped)) == escaped
    assert len(escaped) <= chars_max or len(escaped) - chars_max <= len(f"… ({len(text)} characters in all)")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_comes_back_to_the_last_bit(value: float) -> None:
    back = decode(encode(value))
    assert type(back) is float
    assert (back, math.copysign(1, back)) == (value, math.copysign(1, value))


@given(st.integers(-(2**70), 2**70))
def test_an_integer_comes_back_exactly_or_is_refused(value: int) -> None:
    try:
        encoded = encode(value)
    except PayloadRefused:
        assert not -(2**63) <= value < 2**64
    else:
        assert same(decode(encoded), value)


@given(plain_json())
def test_a_result_is_read_back_from_its_event_as_it_was(value: object) -> None:
    (data,) = read_back(completed(value))
    assert same(data.get("result"), value)


@given(st.lists(plain_json(), min_size=1, max_size=4), OFFENDING)
def test_sealing_is_all_or_nothing(values: list[object], offending: object) -> None:
    facts = [completed(value) for value in values] + [completed([offending])]
    with pytest.raises(PayloadRefused) as caught:
        seal(JOB, Position(), facts, AT, CLOCK)
    assert caught.value.path == "SubStepCompleted.result[0]"
    assert [new.version for new in seal(JOB, Position(), facts[:-1], AT, CLOCK)] == list(range(1, len(values) + 1))


def test_a_sealed_chain_begins_behind_the_position_given_and_never_before_its_time() -> None:
    after = Position(7, "ab" * 32, "2026-01-02T03:04:06.000000Z")
    first, second = seal(JOB, after, [completed(1), completed(2)], AT, CLOCK)
    assert (first.version, second.version) == (8, 9)
    assert first.recorded_at == second.recorded_at == after.recorded_at
    assert len({GENESIS, after.hash, first.hash, second.hash}) == 4


def field_values(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a catalogue field's type; None only where the field may be left out."""
    if annotation is Any:
        return plain_json()
    if get_origin(annotation) is dict:
        return st.dictionaries(
            st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
            field_values(get_args(annotation)[1]),
            max_size=3,
        )
    if get_origin(annotation) is list:
        return st.lists(field_values(get_args(annotation)[0]), max_size=3)
    if annotation is str:
        return st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
    if annotation is int:
        return st.integers(1, 2**63 - 1)
    if annotation is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if get_args(annotation):
        return st.one_of([field_values(part) for part in get_args(annotation) if not is_constraint(part)])
    return st.just(annotation) if isinstance(annotation, str) else st.from_type(annotation)


def is_constraint(part: object) -> bool:
    return type(part).__name__ == "FieldInfo"


def facts_of(model: type[EventData]) -> st.SearchStrategy[EventData]:
    required = {
        name: field_values(field.annotation) for name, field in model.model_fields.items() if field.is_required()
    }
    optional = {
        name: field_values(field.annotation) for name, field in model.model_fields.items() if name not in required
    }
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: model(**fields))


@settings(max_examples=max(10, settings().max_examples // 10))  # for each type in the catalogue
@given(st.data())
@pytest.mark.parametrize("model", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_every_event_that_can_be_sealed_can_be_read(model: type[EventData], data: st.DataObject) -> None:
    fact = data.draw(facts_of(model))
    (read,) = read_back(fact)
    assert same(model(**read).model_dump(), fact.model_dump())
