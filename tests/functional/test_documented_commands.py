"""Every command line of ours that stands in the documentation works, and every option is there."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cachemw import ImageCache
from cachemw.commands import make_parser
from cachemw.commands._shells import commands_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

if not (DOCS / "reference" / "commands.rst").exists():
    pytest.skip("the documentation is not beside the tests", allow_module_level=True)

COMMANDS = {command.name: command for command in commands_of(make_parser())}

#: Where the documentation has things, and where the sandbox has them.
PLACES = {
    "/var/cache/images": "cache",
    "/var/lib/glance/image-cache": "cache",
    "/etc/cachemw/images.ini": "images.ini",
    "/etc/glance/glance-cachemw-paste.ini": "images.ini",
    "/etc/images.ini": "images.ini",
}

#: The images that the documentation speaks of.
IMAGES = ("ubuntu-24.04.img", "8b9f0a32-4f6b-4a3c-9d53-0c6b7f2b1e55", "debian.iso")

INI = """\
[server:main]
port = 0

[pipeline:main]
pipeline = cache images

[filter:cache]
use = egg:cachemw#cache
dir = %(here)s/cache
min_free = 0

[app:images]
use = egg:cachemw#images
dir = %(here)s/demo/images
"""

#: What ``cachemw serve`` prints looks like a command line.
PRINTED = "cachemw serves http://"

#: A line of a literal block; in the tutorial the command has its environment's path.
LINE = re.compile(r"^ +(?:\$ )?((?:\S+/)?cachemw .*)$", re.M)


def command_lines():
    found = {}
    for path in sorted([ROOT / "README.rst", *DOCS.rglob("*.rst")]):
        text = path.read_text(encoding="utf-8")
        for line in LINE.findall(text):
            if not line.startswith(PRINTED):
                found.setdefault(line, path.relative_to(ROOT).as_posix())
        # Two commands in one line, of which the second is ours.
        for line in re.findall(r"^ +.*&& ((?:\S+/)?cachemw .*)$", text, re.M):
            found.setdefault(line, path.relative_to(ROOT).as_posix())
    return found


@pytest.fixture
def sandbox(tmp_path):
    """A directory with a cache, images and ini files, and ``cachemw`` to be run by a shell."""
    cache = ImageCache(dir=tmp_path / "cache", min_free=0)
    for image_id in IMAGES:
        cache.cache_image_iter(image_id, [bytes(1000)])
    cache.close()
    for name in ("images", "cache"):
        (tmp_path / "demo" / name).mkdir(parents=True)
    (tmp_path / "small").mkdir()
    (tmp_path / "demo" / "images" / "cat.img").write_bytes(bytes(1000))
    (tmp_path / "images.ini").write_text(INI)
    shutil.copytree(ROOT / "etc", tmp_path / "etc")
    for place in ("bin", ".venv/bin"):
        program = tmp_path / place / "cachemw"
        program.parent.mkdir(parents=True)
        program.write_text(
            f"#!{sys.executable}\nimport sys\nfrom cachemw.commands import main\nsys.exit(main())\n"
        )
        program.chmod(0o755)
    return tmp_path


def start(line, sandbox):
    environ = {
        **os.environ,
        "PATH": f"{sandbox / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
        "HOME": str(sandbox),
        "XDG_CACHE_HOME": str(sandbox / "xdg"),
    }
    return subprocess.Popen(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=sandbox,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def in_sandbox(line, sandbox):
    for place, here in PLACES.items():
        line = line.replace(place, str(sandbox / here))
    return line


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_of_the_documentation_works(line, sandbox):
    name = shlex.split(line)[1]
    assert name in COMMANDS or name.startswith("-"), f"no such command: {line}"
    if name in ("stats", "top"):
        pytest.importorskip("cachemw.core.statistics", reason="statistics are not built yet")
    (sandbox / ".local/share/bash-completion/completions").mkdir(parents=True)
    text = in_sandbox(line, sandbox)
    if name == "serve":
        pytest.importorskip("gunicorn", reason="cachemw serve needs the extra 'serve'")
        process = start(f"{text} --port 0", sandbox)
        try:
            output = ""
            for printed in process.stdout:
                output += printed
                if printed.startswith(PRINTED):
                    return
            raise AssertionError(f"it did not start: {output}")
        finally:
            end(process)
    process = start(f"{text} --once" if name == "top" else text, sandbox)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        end(process)
    assert process.returncode == 0, output


def test_there_are_command_lines_in_the_documentation():
    """Else the test above would say nothing."""
    lines = command_lines()

    named = {shlex.split(line)[1] for line in lines}
    assert {"serve", "list", "show", "delete", "prune", "clean", "top", "stats"} <= named
    assert "README.rst" in lines.values() or "docs/tutorial.rst" in lines.values()


def sections(text):
    """The parts of the commands' page, by heading; all that no command's heading has is ``""``."""
    parts = re.split(r"^``cachemw ([a-z-]+)``\n-+\n", text, flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


SECTIONS = sections((DOCS / "reference" / "commands.rst").read_text(encoding="utf-8"))


def test_every_command_has_a_section_and_every_section_a_command():
    """The manual page is made of this page."""
    assert set(SECTIONS) - {""} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_of_a_command_is_documented(name):
    shared = {"-c", "--config", "--dir", "--set"} if name != "serve" else set()
    for argument in COMMANDS[name].arguments:
        for flag in argument.flags:
            part = "" if flag in shared or flag in ("-h", "--help") else name
            assert re.search(rf"``{flag}(?![\w-])", SECTIONS[part]), f"{name} {flag}"
        if not argument.flags:
            for word in argument.words:
                assert f"``{word}``" in SECTIONS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_argument_is_documented_that_is_not_there(name):
    flags = {flag for argument in COMMANDS[name].arguments for flag in argument.flags}
    terms = re.findall(r"^(``-.*)$", SECTIONS[name], re.M)
    documented = {flag for term in terms for flag in re.findall(r"``(--?[a-z][a-z-]*)", term)}

    assert documented <= flags
