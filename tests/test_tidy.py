"""The house rules that a reader relies on, kept by reading the code: who imports whom, purity, size, sentences."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
HOUSES: Final = ("schemas", "streams", "api")
FILES: Final = sorted(path for house in HOUSES for path in (ROOT / house).rglob("*.py"))
TESTS: Final = sorted(path for path in (ROOT / "tests").rglob("*.py"))
FUNCTION_LINES_MAX: Final = 70

# Who may import whom; a house may import itself. The command line and what it runs are where the two sides meet.
MAY_IMPORT: Final = {"schemas": {"schemas"}, "streams": {"streams", "schemas"}, "api": {"api", "schemas"}}
MEETING: Final = ("streams/cli/",)
# Who alone may import what; a name ends at a dot.
ONLY: Final = {
    ("faust", "mode"): ("streams/transport.py", "streams/app.py", "streams/agents.py"),
    ("clickhouse_connect", "chdb"): ("streams/store.py", "api/query.py"),
    ("litestar", "starlette", "uvicorn", "fastapi"): (
        "api/app.py",
        "api/guard.py",
        "api/probes.py",
        "api/pages",
        "streams/cli/serving.py",
    ),
}
PURE: Final = ("schemas/", "streams/join.py", "streams/fold.py", "streams/settle.py", "streams/lives.py",
               "streams/effects.py", "streams/letters.py", "streams/check.py", "streams/flow.py", "streams/wheel.py",
               "streams/recent.py", "streams/packing.py", "streams/lag_rules.py", "streams/watchdog.py", "streams/simulate/",
               "streams/record_batches.py", "streams/frames.py")  # fmt: skip
NOT_PURE: Final = ("schemas/generate.py",)
WORLD: Final = {"time", "random", "asyncio", "os", "socket", "threading", "subprocess", "pathlib", "secrets", "uuid"}
# A clock read by another name, and output.
WORLDLY_CALLS: Final = {"now", "utcnow", "today", "open", "print", "input"}
# Put together here, so that this file does not hold what it looks for.
MACHINE: Final = tuple("/" + name for name in ("work/", "root/", "tmp/w/", "home/", "mnt/"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), name_of(path))


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a file, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_pure(path: Path) -> bool:
    name = name_of(path)
    return name.startswith(PURE) and name not in NOT_PURE


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_houses_import_only_what_they_may(path: Path) -> None:
    """`schemas` knows nobody, `streams` and `api` know `schemas`; they meet in the command line alone."""
    name = name_of(path)
    house = name.split("/")[0]
    may = set(HOUSES) if name.startswith(MEETING) else MAY_IMPORT[house]
    assert {module.split(".")[0] for module in imported(tree_of(path))} & {*HOUSES, "tests", "benchmarks"} <= may


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_library_is_imported_where_it_belongs(path: Path) -> None:
    """Faust, the ClickHouse driver and the web framework are each known to few files, so that they can be changed."""
    roots = {module.split(".")[0] for module in imported(tree_of(path))}
    for libraries, homes in ONLY.items():
        if not name_of(path).startswith(homes):
            assert not roots & set(libraries)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    """`os.environ` and `os.getenv` are read in one file; a process we start may be given a copy."""
    if name_of(path) == "streams/settings.py":
        return
    reads = [
        n.attr for n in ast.walk(tree_of(path)) if isinstance(n, ast.Attribute) and n.attr in ("environ", "getenv")
    ]
    assert not reads


@pytest.mark.parametrize("path", [path for path in FILES if is_pure(path)], ids=name_of)
def test_pure_files_know_no_world(path: Path) -> None:
    """No clock, chance, network, file or thread: what a pure file needs of the world is an argument."""
    tree = tree_of(path)
    allowed = {"random"} if name_of(path).startswith("streams/simulate/") else set()
    roots = {module.split(".")[0] for module in imported(tree)}
    assert not (roots & WORLD) - allowed
    if allowed:  # chance that is seeded
        uses = {
            n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "random"
        }
        assert uses <= {"Random"}
    called = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert not {getattr(f, "attr", getattr(f, "id", "")) for f in called} & WORLDLY_CALLS


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=name_of)
def test_functions_fit_on_a_screen(path: Path) -> None:
    """No function is longer than 70 lines."""
    assert not [f.name for f in functions(tree_of(path)) if (f.end_lineno or 0) - f.lineno >= FUNCTION_LINES_MAX]


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_test_says_its_rule(path: Path) -> None:
    """Every test function has a docstring that ends as a sentence."""
    tests = [f for f in functions(tree_of(path)) if f.name.startswith("test_")]
    assert not [f.name for f in tests if not (ast.get_docstring(f) or "").rstrip().endswith((".", "?"))]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_everything_public_says_what_it_promises(path: Path) -> None:
    """Every module, public class and public function outside of classes has a docstring."""
    tree = tree_of(path)
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    silent = [n.name for n in public if not n.name.startswith("_") and not ast.get_docstring(n)]
    assert ast.get_docstring(tree) and not silent


def test_no_file_knows_a_machine() -> None:
    """No path of somebody's machine is in anything that is shipped or shown."""
    suffixes = {".py", ".md", ".toml", ".txt", ".sql", ".json", ".yml", ".yaml", ".html", ".lock", ".cfg", ".sh"}
    places = ("schemas", "streams", "api", "tests", "docs", "ops", "benchmarks", ".ci", ".github")
    files = [
        p for place in places if (ROOT / place).is_dir() for p in (ROOT / place).rglob("*") if p.suffix in suffixes
    ]
    files += [p for p in ROOT.iterdir() if p.is_file() and (p.suffix in suffixes or p.name == "Makefile")]
    texts = {name_of(path): path.read_text("utf-8", "replace") for path in files}
    assert not [(name, word) for name, text in texts.items() for word in MACHINE if word in text]
