"""The dashboard's files, as the management app gets them."""

import re
from pathlib import Path

import pytest

from cachemw.web import dashboard

FOLDER = Path(dashboard.__file__).parent
TEXTS = {name: load().decode() for name, (_, load) in dashboard.FILES.items()}


def test_every_file_of_the_folder_can_be_served():
    there = {path.name for path in FOLDER.iterdir() if path.suffix != ".py" and path.is_file()}

    assert set(dashboard.FILES) == there


def test_files_have_the_types_that_a_strict_browser_asks_for():
    types = {name: media_type for name, (media_type, _) in dashboard.FILES.items()}

    assert types["index.html"] == "text/html; charset=utf-8"
    assert types["style.css"] == "text/css; charset=utf-8"
    assert types["app.js"] == "text/javascript; charset=utf-8"
    assert types["icon.svg"] == "image/svg+xml"


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_file_names_no_other_host_and_nothing_from_the_root(name):
    """The page may be mounted anywhere, and works without the network."""
    text = TEXTS[name].replace("http://www.w3.org/2000/svg", "")

    assert not re.search(r"https?://|[\"'(]//", text)
    assert not re.search(r"(?:src|href|action)=\"/", text)
    assert not re.search(r"(?:from|import|fetch\()\s*[\"']/", text)


def test_page_has_nothing_that_its_policy_forbids():
    page = TEXTS["index.html"]

    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:", page)
    assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", page))


@pytest.mark.parametrize("name", sorted(name for name in TEXTS if name.endswith(".js")))
def test_script_never_reads_text_as_markup(name):
    forbidden = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|setHTML"

    assert not re.search(forbidden, TEXTS[name])
