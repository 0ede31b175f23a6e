"""The structure of the code: dependencies point one way, rules do no I/O, SQL is never assembled from strings."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import pytest
from source_tree import ROOT, Module, imported, modules

LOG = {"eventstore"}
FOLDS = LOG | {"projections"}
ENGINE = FOLDS | {"engine"}
MAY_IMPORT = {
    "eventstore": set[str](),
    "projections": LOG,
    "engine": FOLDS,
    "terminal": FOLDS,
    "testing": ENGINE,
    "": ENGINE | {"api"},
    "examples": ENGINE | {"", "terminal", "testing"},
    "commands": ENGINE | {"", "api", "terminal"},
    "cli": ENGINE | {"", "commands", "terminal", "testing", "examples"},
    "api": ENGINE | {""},
    "__main__": {"cli"},
}
DECIDE = {
    "engine.decider", "engine.allowed", "engine.actions", "engine.adoption", "engine.chunks", "engine.deciding",
    "engine.item_actions",
}  # fmt: skip
"""The modules of the engine that are rules."""
DO_IO = {"projections.following", "projections.runner", "projections.tables"}
"""The modules of the projections that may."""
OUTSIDE_WORLD = {
    "asyncio", "concurrent", "http", "io", "logging", "os", "pathlib", "psycopg", "random", "secrets", "shutil",
    "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
DRIVERS = {"psycopg", "sqlite3"}
INERT = {"dill", "marshal", "pickle", "shelve", "yaml"}
STATEMENT_TAKERS = {"SQL", "copy", "execute", "executemany", "executescript", "stream"}
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 450


def found(check: Callable[[Module], Iterable[object]]) -> dict[str, list[object]]:
    """What the check finds wrong, by module."""
    wrong = {module.name or "__init__": list(check(module)) for module in modules()}
    return {name: offences for name, offences in wrong.items() if offences}


def own_imports(module: Module) -> Iterator[str]:
    """Names behind `steplog.` of the modules it imports; of `from package import module` the module alone."""
    known = {other.name for other in modules()}
    for name, member in imported(module.tree):
        if name.partition(".")[0] == "steplog":
            inner = name.removeprefix("steplog").removeprefix(".")
            whole = f"{inner}.{member}".lstrip(".")
            yield whole if whole in known else inner


def imports_against_the_arrows(module: Module) -> Iterator[str]:
    allowed = MAY_IMPORT[module.layer] | {module.layer}
    return (name or "steplog" for name in own_imports(module) if name.partition(".")[0] not in allowed)


def outside_imports(module: Module) -> set[str]:
    return {name.partition(".")[0] for name, _ in imported(module.tree)} - {"steplog"}


def is_core(module: Module) -> bool:
    """Whether the module is of the functional core: the folds, and what decides."""
    is_part = module.name.startswith("engine.deciding.")
    return (module.layer == "projections" and module.name not in DO_IO) or is_part or module.name in DECIDE


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str | None:
    """The last name of what is called: `b` of both `a.b()` and `b()`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else None


def called_names(module: Module) -> set[str]:
    """Plain names that are called: `print(...)`, but not `console.print(...)`."""
    return {node.func.id for node in calls(module.tree) if isinstance(node.func, ast.Name)}


def assembled_statements(scope: ast.AST, outer: frozenset[str] = frozenset()) -> Iterator[int]:
    """Lines on which a statement goes to a database that was put together from strings, there or in a variable."""
    own, inner = nodes_of(scope)
    names = outer.union(*map(assembled_names, own))
    for node in own:
        if isinstance(node, ast.Call) and called(node) in STATEMENT_TAKERS:
            given = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg in {"query", "sql"})]
            if any(is_assembled(value) or (isinstance(value, ast.Name) and value.id in names) for value in given):
                yield node.lineno
    for function in inner:
        yield from assembled_statements(function, names)


def nodes_of(scope: ast.AST) -> tuple[list[ast.AST], list[ast.AST]]:
    """The nodes of a scope itself, and the functions right inside it."""
    own: list[ast.AST] = []
    functions: list[ast.AST] = []
    left = list(ast.iter_child_nodes(scope))
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            functions.append(node)
        else:
            own.append(node)
            left.extend(ast.iter_child_nodes(node))
    return own, functions


def assembled_names(node: ast.AST) -> set[str]:
    """Variables that the node gives a text put together from others."""
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    if isinstance(node, ast.Assign) and is_assembled(node.value):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def is_assembled(value: ast.expr) -> bool:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        composed = isinstance(value.func.value, ast.Call) and called(value.func.value) == "SQL"
        return value.func.attr in {"format", "format_map", "join", "replace"} and not composed
    return isinstance(value, ast.JoinedStr) or (
        isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add | ast.Mod)
    )


def test_imports_point_down_the_layers() -> None:
    assert {module.layer for module in modules()} <= MAY_IMPORT.keys(), "a module belongs to no layer"
    assert found(imports_against_the_arrows) == {}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("eventstore.bad", "from steplog.projections.evolve import fold"),
        ("eventstore.bad", "from steplog import Workflow"),
        ("projections.bad", "def f():\n    import steplog.engine.decider"),
        ("engine.bad", "from steplog import cli"),
        ("terminal.bad", "if TYPE_CHECKING:\n    from steplog.engine import workflow"),
        ("examples.bad", "from steplog.cli import main"),
    ],
)
def test_the_check_of_arrows_sees(name: str, source: str) -> None:
    assert list(imports_against_the_arrows(Module(name, ROOT, ast.parse(source))))


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module.name: set(own_imports(module)) - {module.name} for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


def bare_imports(module: Module) -> set[str]:
    return {name for name, _ in imported(module.tree) if name.partition(".")[0] in MAY_IMPORT}


def test_imports_are_absolute_and_begin_with_the_package() -> None:
    assert found(bare_imports) == {}


def reach_of_a_rule(module: Module) -> set[str]:
    """What a module of the functional core reaches that comes in as a value."""
    if not is_core(module):
        return set()
    names = {called(node) or "" for node in calls(module.tree)}
    return (outside_imports(module) & OUTSIDE_WORLD) | (names & {"SystemClock", "now", "utcnow", "today"})


def test_rules_reach_no_clock_no_randomness_and_no_outside_world() -> None:
    assert any(map(is_core, modules()))
    assert found(reach_of_a_rule) == {}


def drivers_above_the_store(module: Module) -> set[str]:
    return set() if module.layer in {"eventstore", "examples"} else outside_imports(module) & DRIVERS


def test_database_drivers_stay_below_the_store() -> None:
    assert found(drivers_above_the_store) == {}


def data_into_code(module: Module) -> set[str]:
    return (outside_imports(module) & INERT) | ({"eval", "exec", "compile"} & called_names(module))


def test_nothing_can_turn_data_into_code() -> None:
    assert found(data_into_code) == {}


def test_no_statement_is_assembled_from_strings() -> None:
    assert found(lambda module: assembled_statements(module.tree)) == {}


@pytest.mark.parametrize(
    "source",
    [
        "c.execute(f'select {x}')",
        "c.execute('select ' + x)",
        "c.executemany('select %s' % x, rows)",
        "c.executescript('select {}'.format(x))",
        "c.execute(' '.join(parts))",
        "c.execute(query=f'select {x}')",
        "q = f'select {x}'\nc.execute(q)",
        "q = 'select '\nq += x\nc.execute(q)",
        "def f(c):\n    q = 'select %s' % 1\n    c.execute(q)",
        "Q = f'select {x}'\ndef f(c):\n    c.execute(Q)",
        "sql.SQL(f'select {x}')",
    ],
)
def test_the_check_of_statements_sees(source: str) -> None:
    assert list(assembled_statements(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "c.execute('select ?', [x])",
        "q = 'select 1'\nc.execute(q)",
        "c.execute(SELECT)",
        "c.execute(sql.SQL('select {}').format(sql.Identifier(x)))",
        "c.execute(sql.SQL(', ').join(parts))",
        "def f():\n    q = f'a {x}'\ndef g(c, q):\n    c.execute(q)",
    ],
)
def test_the_check_of_statements_lets_pass(source: str) -> None:
    assert not list(assembled_statements(ast.parse(source)))


def what_is_large(module: Module) -> Iterator[str]:
    lines = module.path.read_text().count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{lines} lines"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.name} has {lines} lines"


def test_files_and_functions_stay_small() -> None:
    assert found(what_is_large) == {}


def what_says_no_one_job(module: Module) -> Iterator[str]:
    yield from {"common", "helper", "helpers", "manager", "misc", "util", "utils"} & set(module.path.stem.split("_"))
    if not ast.get_docstring(module.tree):
        yield "no docstring"


def test_files_are_named_for_what_they_are_and_say_their_one_job() -> None:
    assert found(what_says_no_one_job) == {}


def prints_of_the_library(module: Module) -> set[str]:
    is_library = module.layer in {"eventstore", "projections", "engine", ""}
    return {"print"} & called_names(module) if is_library else set()


def test_the_library_prints_nothing() -> None:
    assert found(prints_of_the_library) == {}
