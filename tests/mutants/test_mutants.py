"""Every check can fail: each mutant, one deliberate fault in the code, is caught by the tests that its list names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mutants.mutant import ROOT, Mutant, mutants
from mutants.mutated_tree import MutatedTree

MUTANTS = mutants()
BASELINE_S_MAX = 600
OUTPUT_CHARS_MAX = 3000


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, request: pytest.FixtureRequest) -> MutatedTree:
    """A copy in which everything that is to catch a chosen mutant passes, as long as there is none."""
    copy = MutatedTree(tmp_path_factory.mktemp("mutants"), postgres_dsn)
    assert copy.imported_from() == copy.root
    tests = sorted({test for mutant in chosen(request.session) for test in mutant.caught_by})
    unmutated = copy.run(tests, BASELINE_S_MAX)
    if unmutated.exit_code != 0:
        said = unmutated.output[-OUTPUT_CHARS_MAX:]
        pytest.fail(f"{unmutated.caught_by} fails without any mutant: {unmutated.why}\n{said}", pytrace=False)
    return copy


def chosen(session: pytest.Session) -> list[Mutant]:
    """The mutants that this session tries."""
    trials = {f"{test_a_mutant_is_caught.__name__}[{mutant.name}]": mutant for mutant in MUTANTS}
    return [trials[item.name] for item in session.items if item.name in trials]


def test_no_two_mutants_are_the_same() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.before, mutant.after) for mutant in MUTANTS}) == len(MUTANTS)


def test_the_text_that_a_mutant_changes_stands_in_the_code_once() -> None:
    assert all(mutant.caught_by for mutant in MUTANTS)
    misplaced = [mutant for mutant in MUTANTS if not mutant.has_its_place_in((ROOT / mutant.file).read_text())]
    assert [(mutant.name, mutant.file) for mutant in misplaced] == []


@pytest.mark.heavy
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(tree: MutatedTree, mutant: Mutant, record_property: Callable[[str, object], None]) -> None:
    with tree.with_mutant(mutant):
        outcome = tree.run(mutant.caught_by)
    record_property("mutant", mutant.name)
    record_property("caught by", outcome.caught_by if outcome.is_caught else None)
    record_property("why", outcome.why)
    record_property("seconds", outcome.seconds)
    if not outcome.is_caught:
        pytest.fail(
            f"nothing caught that {mutant.breaks!r} is broken\n{outcome.output[-OUTPUT_CHARS_MAX:]}", pytrace=False
        )
