"""The structure of the code: dependencies point one way, rules do no I/O, SQL is never assembled from strings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
    "": ENGINE,
    "examples": ENGINE | {"", "terminal", "testing"},
    "commands": ENGINE | {"", "terminal"},
    "cli": ENGINE | {"", "commands", "terminal", "testing", "examples"},
    "api": ENGINE | {""},
    "__main__": {"cli"},
}
DECIDE = {
    "engine.decider", "engine.allowed", "engine.actions", "engine.adoption", "engine.chunks", "engine.deciding",
    "engine.item_actions",
}  # fmt: skip
"""The modules of the engine that are rules."""
DO_IO = {"projections.runner", "projections.tables"}
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

EACH_MODULE = pytest.mark.parametrize("module", modules(), ids=lambda module: module.name or "__init__")


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


@EACH_MODULE
def test_imports_point_down_the_layers(module: Module) -> None:
    assert module.layer in MAY_IMPORT, f"{module.path.name} belongs to no layer"
    assert not list(imports_against_the_arrows(module))


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


@EACH_MODULE
def test_imports_are_absolute_and_begin_with_the_package(module: Module) -> None:
    bare = {name for name, _ in imported(module.tree) if name.partition(".")[0] in MAY_IMPORT}
    assert not bare, f"relative or bare imports: {bare}"


@pytest.mark.parametrize("module", [module for module in modules() if is_core(module)], ids=lambda module: module.name)
def test_rules_reach_no_clock_no_randomness_and_no_outside_world(module: Module) -> None:
    assert not outside_imports(module) & OUTSIDE_WORLD
    assert not {"SystemClock", "now", "utcnow", "today"} & {called(node) for node in calls(module.tree)}


@EACH_MODULE
def test_database_drivers_stay_below_the_store(module: Module) -> None:
    if module.layer not in {"eventstore", "examples"}:
        assert not outside_imports(module) & DRIVERS


@EACH_MODULE
def test_nothing_can_turn_data_into_code(module: Module) -> None:
    assert not outside_imports(module) & INERT
    assert not {"eval", "exec", "compile"} & called_names(module)


@EACH_MODULE
def test_no_statement_is_assembled_from_strings(module: Module) -> None:
    assert not list(assembled_statements(module.tree))


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


@EACH_MODULE
def test_files_and_functions_stay_small(module: Module) -> None:
    assert module.path.read_text().count("\n") <= FILE_LINES_MAX
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} in {module.path.name} has {lines} lines"


@EACH_MODULE
def test_files_are_named_for_what_they_are_and_say_their_one_job(module: Module) -> None:
    assert not {"common", "helper", "helpers", "manager", "misc", "util", "utils"} & set(module.path.stem.split("_"))
    assert ast.get_docstring(module.tree)


@EACH_MODULE
def test_the_library_prints_nothing(module: Module) -> None:
    if module.layer in {"eventstore", "projections", "engine", ""}:
        assert "print" not in called_names(module)
