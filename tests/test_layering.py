"""Imports point down: web and commands over core over drivers and stores over the leaves."""

import ast
from pathlib import Path

import pytest

import cachemw

ROOT = Path(cachemw.__file__).parent

#: What each part may import of the others.
BELOW = {
    "errors": set(),
    "names": set(),
    "concurrency": {"errors"},
    "metrics": set(),
    "drivers": {"errors", "names", "metrics", "concurrency"},
    "stores": {"errors", "names", "metrics", "concurrency"},
    "core": {"drivers", "stores", "errors", "names", "metrics", "concurrency"},
    "web": {"core", "drivers", "stores", "errors", "names", "metrics", "concurrency"},
    "commands": {"core", "drivers", "stores", "errors", "names", "metrics", "concurrency"},
    "__init__": {"web", "core"},
}


def part_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported_parts(path):
    """The parts of cachemw that a module imports, also inside its functions."""
    package = ("cachemw", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [(*module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "cachemw" and len(name) > 1:
                yield name[1]


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_module_imports_only_what_is_below_it(path):
    part = part_of(path)

    assert set(imported_parts(path)) <= BELOW[part] | {part}


def test_drivers_do_not_know_settings():
    """Drivers and stores take plain arguments."""
    for part in ("drivers", "stores"):
        for path in (ROOT / part).rglob("*.py"):
            assert "Settings" not in path.read_text(encoding="utf-8")
