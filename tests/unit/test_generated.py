"""What is written from the code, or copied out of the documentation, says what the code says."""

from __future__ import annotations

import configparser
import importlib.util
import re
from pathlib import Path

import pytest

import cachemw
from cachemw.core.config import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

if not (DOCS / "generate.py").exists():
    pytest.skip("the documentation is not beside the tests", allow_module_level=True)


def load(name):
    """Import a script of ``docs/``, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FILES = load("generate").files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_that_list_the_options_are_up_to_date(path):
    """Else: ``python docs/generate.py``."""
    assert path.read_text(encoding="utf-8") == FILES[path]


def test_sample_with_every_option_uncommented_gives_the_defaults():
    sample = (ROOT / "etc" / "cachemw.ini.sample").read_text(encoding="utf-8")
    parser = configparser.ConfigParser()
    # "#name" is a commented option, "#    word" a line of its value, "# Text" a comment.
    parser.read_string(re.sub(r"^#(?=\S|    )", "", sample, flags=re.M))
    options = dict(parser["filter:cache"])

    assert options.pop("use") == "egg:cachemw#cache"
    assert set(options) == {option.name for option in Settings.options()}
    assert Settings.from_conf({}, options) == Settings.from_options({"dir": options["dir"]})


def test_readme_begins_with_two_commands_of_one_line_each():
    """The readme is pasted by people, and by ``.ci/run``."""
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")

    first, second = load("readme_commands").code_blocks(readme)[:2]

    assert first == (
        "python3 -m venv .venv && .venv/bin/pip install -q '.[serve]' && .venv/bin/cachemw serve"
        " --images demo/images --samples --rate-limit 16MiB --dir demo/cache"
    )
    assert second == (
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest"
    )


def words_of_cache_status():
    """Every value of ``detail`` that the code can send.

    They are written out in a parameter (``detail=word``), returned by the
    functions that say why an answer is not stored, or handed to ``decline``.
    """
    web = Path(cachemw.__file__).parent / "web"
    found = set()
    for path in web.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        found.update(re.findall(r"detail=([a-z-]+)", text))
        found.update(re.findall(r'(?:decline|pass_on)\([^()]*"([a-z-]+)"\)', text))
        for function in re.findall(
            r"def (?:\w*refus\w*|bypass|begin|_begin)\(.*?(?=\n(?:    )?(?:def|class|@)|\Z)",
            text,
            re.S,
        ):
            found.update(re.findall(r'(?:return|reason =) .*"([a-z-]+)"', function))
            found.update(re.findall(r'reason = "([a-z-]+)"', function))
    return found


def test_every_detail_of_cache_status_is_documented():
    page = (DOCS / "reference" / "cache-status.rst").read_text(encoding="utf-8")
    words = words_of_cache_status()

    assert {"no-store", "full", "adopted", "head", "method", "not-fresh"} <= words
    described = set(re.findall(r"``(?:cachemw; (?:hit; )?detail=)?([a-z-]+)``", page))
    assert words - described == set()
