"""Every command line of ours that stands in the documentation works, and every option is there."""

import http.server
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
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

#: The ini files that the documentation calls by a name alone, by the presets in them.
PRESETS = {
    "app.ini": "any",
    "glance.ini": "glance",
    "swift.ini": "swift",
    "registry.ini": "registry",
}

#: What the management API needs by itself.
MANAGE = """\
[app:main]
use = egg:cachemw#manage
dir = %(here)s/cache
min_free = 0
"""

#: What the services that the documentation speaks of say of their images, by path.
LISTINGS = {
    "/v2/images": {"images": [{"id": "5e2b6dbe", "name": "ubuntu-24.04"}]},
    "/v1/AUTH_test/images": [{"name": "debian.qcow2", "bytes": 1}],
}

#: Where these services are.
SERVICE = re.compile(r"http://127\.0\.0\.1:\d+")

#: What ``cachemw serve`` prints looks like a command line.
PRINTED = "cachemw serves http://"

#: A line of a literal block; in the tutorial the command has its environment's path.
LINE = re.compile(r"^ +(?:\$ )?((?:\S+/)?cachemw .*)$", re.M)


def command_lines():
    found = {}
    for path in sorted([ROOT / "README.rst", *DOCS.rglob("*.rst")]):
        # A line may go on in the next.
        text = re.sub(r" \\\n +", " ", path.read_text(encoding="utf-8"))
        text = re.sub(r" \|\n +", " | ", text)
        for line in [
            *LINE.findall(text),
            *re.findall(r"^ +(printf .* \| cachemw .*)$", text, re.M),
            # Two commands in one line, of which the second is ours.
            *re.findall(r"^ +.*&& ((?:\S+/)?cachemw .*)$", text, re.M),
        ]:
            if not line.startswith(PRINTED):
                found.setdefault(line, path.relative_to(ROOT).as_posix())
    return found


def name_of(line):
    """The command of a line."""
    words = shlex.split(line)
    place = next(n for n, word in enumerate(words) if word.rpartition("/")[2] == "cachemw")
    return words[place + 1]


class Listings(http.server.BaseHTTPRequestHandler):
    """Lists images, as Glance and Swift do."""

    def do_GET(self):
        listing = LISTINGS.get(self.path.partition("?")[0])
        body = json.dumps([] if listing is None or "marker" in self.path else listing).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def service():
    """The URL of a server that lists images."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listings)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


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
    (tmp_path / "manage.ini").write_text(MANAGE)
    for name, preset in PRESETS.items():
        (tmp_path / name).write_text(INI.replace("#cache\n", f"#cache\npreset = {preset}\n"))
    (tmp_path / "wanted.txt").write_text("http://images.internal/debian.iso\n")
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


def in_sandbox(line, sandbox, service):
    line = SERVICE.sub(service, line).replace("sha256:...", f"sha256:{'0' * 64}")
    for place, here in PLACES.items():
        line = line.replace(place, str(sandbox / here))
    return line


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_of_the_documentation_works(line, sandbox, service):
    name = name_of(line)
    assert name in COMMANDS or name.startswith("-"), f"no such command: {line}"
    if name in ("stats", "top"):
        pytest.importorskip("cachemw.core.statistics", reason="statistics are not built yet")
    (sandbox / ".local/share/bash-completion/completions").mkdir(parents=True)
    text = in_sandbox(line, sandbox, service)
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

    named = set(map(name_of, lines))
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
