"""What differs between two documents: the patch, applied to the first, gives the second."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_patch import applied
from simulated_jobs import SimulatedLog, simulated_logs

from steplog.eventstore.codec import encode
from steplog.projections.diff import changes, patch, pointer, same
from steplog.projections.evolve import fold
from steplog.projections.snapshot import snapshot

NAMES = st.text(alphabet="ab/~é\0", max_size=2)
SCALARS = st.none() | st.booleans() | st.integers(-1, 1) | st.sampled_from([0.0, -0.0, 1.0]) | st.text(max_size=2)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


def canonical(document: Any) -> bytes:
    return encode({"": document}, bytes_max=1 << 30)


@given(DOCUMENTS, DOCUMENTS)
def test_the_patch_makes_the_second_of_the_first(before: Any, after: Any) -> None:
    operations = patch(changes(before, after))
    assert same(applied(before, operations), after)


@given(DOCUMENTS, DOCUMENTS)
def test_there_is_a_change_exactly_where_documents_are_not_the_same(before: Any, after: Any) -> None:
    assert (list(changes(before, after)) == []) == same(before, after)
    assert same(before, copy.deepcopy(before))


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), ("", None), ([], {}), ({}, None)])
def test_what_python_takes_for_equal_and_json_does_not_is_a_change(one: Any, other: Any) -> None:
    assert patch(changes({"a": one}, {"a": other})) == [{"op": "replace", "path": "/a", "value": other}]


def test_an_element_put_into_a_list_is_one_change() -> None:
    assert patch(changes([1, 2, 3], [1, 9, 2, 3])) == [{"op": "add", "path": "/1", "value": 9}]
    assert patch(changes([1, 2, 3, 4], [1, 4])) == [{"op": "remove", "path": "/2"}, {"op": "remove", "path": "/1"}]


def test_a_name_with_slashes_and_tildes_is_written_as_a_pointer() -> None:
    assert pointer(("a/b", "~1", 0, "")) == "/a~1b/~01/0/"


@given(simulated_logs(), st.data())
def test_snapshots_of_any_two_versions_differ_by_their_patch(log: SimulatedLog, data: st.DataObject) -> None:
    versions = st.integers(1, len(log.events))
    before, after = (snapshot(fold(log.events[: data.draw(versions)])) for _ in range(2))
    assert canonical(applied(before, patch(changes(before, after)))) == canonical(after)
