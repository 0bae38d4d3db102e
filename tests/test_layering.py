"""Imports point down: web and commands over core over drivers and stores over the leaves."""

import ast
import re
from pathlib import Path

import pytest

import cachemw

ROOT = Path(cachemw.__file__).parent

#: What each part may import of the others.
BELOW = {
    "errors": set(),
    "names": set(),
    "concurrency": {"errors"},
    "metrics": {"concurrency"},
    "drivers": {"errors", "names", "metrics", "concurrency"},
    "stores": {"errors", "names", "metrics", "concurrency"},
    "core": {"drivers", "stores", "errors", "names", "metrics", "concurrency"},
    "web": {"core", "drivers", "stores", "errors", "names", "metrics", "concurrency"},
    "commands": {"core", "drivers", "stores", "errors", "names", "metrics", "concurrency"},
    "__init__": {"web", "core"},
}


def part_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path):
    """What of cachemw a module imports, also inside its functions, as tuples of names."""
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
                yield name[1:]


def imported_modules(path):
    """The modules of cachemw among that."""
    for name in imported(path):
        file = ROOT.joinpath(*name)
        is_module = file.with_suffix(".py").exists() or file.is_dir()
        yield ".".join(name if is_module else name[:-1])


def stated_modules(path):
    """The modules of cachemw that the line ``Imports:`` names; ``None``: there is none."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    found = re.search(r"^Imports: (.*?)(?:;.*?)?\.$", docstring, re.DOTALL | re.MULTILINE)
    if found is None:
        return None
    stated = " ".join(found[1].split())
    return set() if stated == "nothing of ours" else set(stated.split(", "))


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_module_imports_only_what_is_below_it(path):
    part = part_of(path)

    assert {name[0] for name in imported(path)} <= BELOW[part] | {part}


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_module_says_what_it_imports(path):
    stated = stated_modules(path)

    if path.name == "__init__.py" and stated is None:
        return  # what it is for is its folder's to say
    assert stated == set(imported_modules(path))


def test_drivers_do_not_know_settings():
    """Drivers and stores take plain arguments."""
    for part in ("drivers", "stores"):
        for path in (ROOT / part).rglob("*.py"):
            assert "Settings" not in path.read_text(encoding="utf-8")
