"""Start Glance twice over one database and one store: with the filter, and without it.

The paste file is the one in ``etc/``, with another cache directory and a
stand-in for Keystone. Whatever a test needs of the disk is below :class:`Glance`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cachemw
from tests.servers import ROOT, Server, gunicorn

from . import install

HERE = Path(__file__).parent

#: Seconds that Glance may take to start, or its database to be made.
PATIENCE = 180

#: The rules that tests change.
POLICIES = ("download_from_store", "download_image", "get_image")


@dataclasses.dataclass(frozen=True)
class Glance:
    """Two servers that run.

    :param cached: the one with the filter.
    :param plain: the one without.
    :param work: the directory that has all that they write.
    """

    cached: Server
    plain: Server
    work: Path

    def backend_file(self, image_id: str) -> Path:
        """Where Glance's file store keeps an image."""
        return self.work / "images" / image_id

    def copy(self, image_id: str) -> Path:
        """Where the filter keeps an image."""
        return self.work / "cachemw" / image_id

    @contextlib.contextmanager
    def policy(self, **rules: str) -> Iterator[None]:
        """Have both servers follow other rules for a while.

        :param rules: some of :data:`POLICIES`.
        """
        path = self.work / "policy.yaml"
        usual = json.loads(path.read_text())
        assert usual.keys() >= rules.keys()
        _replace(path, json.dumps(usual | rules))
        try:
            yield
        finally:
            _replace(path, json.dumps(usual))


@contextlib.contextmanager
def running(work: Path) -> Iterator[Glance]:
    """Start both, and end them.

    :param work: an empty directory.
    """
    for name in ("images", "more-images", "staging", "tasks", "locks", "cachemw"):
        (work / name).mkdir()
    (work / "policy.yaml").write_text(_usual_policies())
    (work / "properties.conf").write_text((HERE / "properties.conf").read_text())
    flavors = {"cached": "keystone+cachemw", "plain": "keystone"}
    for name, flavor in flavors.items():
        _write_configuration(work, work / name, flavor)
    subprocess.run(
        [install.program("glance-manage"), "--config-dir", work / "plain", "db_sync"],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    site = _write_package(work / "site")
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(_serving(work, name, site)) for name in flavors}
        yield Glance(work=work, **servers)


def _usual_policies() -> str:
    """Give Glance's own rules: one that leaves the file again would stay in force."""
    code = (
        "import json, sys; from glance.policies import list_rules\n"
        "rules = {rule.name: rule.check_str for rule in list_rules()}\n"
        "print(json.dumps({name: rules[name] for name in sys.argv[1:]}))\n"
    )
    command = [install.program("python"), "-c", code, *POLICIES]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    return done.stdout


def _serving(work: Path, name: str, site: Path) -> contextlib.AbstractContextManager[Server]:
    return gunicorn(
        "glance.wsgi.api:application",
        work / f"{name}.log",
        python=str(install.program("python")),
        patience=PATIENCE,
        environ={"OS_GLANCE_CONFIG_DIR": str(work / name), "PYTHONPATH": f"{site}:{ROOT}"},
    )


def _write_configuration(work: Path, config: Path, flavor: str) -> None:
    config.mkdir()
    template = (HERE / "glance-api.conf.in").read_text()
    text = template.format(work=work, config=config, flavor=flavor)
    (config / "glance-api.conf").write_text(text)
    paste = (ROOT / "etc" / "glance-cachemw-paste.ini").read_text()
    for old, new in (
        ("dir = /var/lib/glance/cachemw", f"dir = {work}/cachemw"),
        ("keystonemiddleware.auth_token:", "tests.engines.glance.tokens:"),
    ):
        assert paste.count(old) == 1
        paste = paste.replace(old, new)
    (config / "paste.ini").write_text(paste)


def _write_package(site: Path) -> Path:
    """Show this very cachemw, and its entry points, to another environment, and nothing else."""
    distribution = importlib.metadata.distribution("cachemw")
    metadata = site / f"cachemw-{distribution.version}.dist-info"
    metadata.mkdir(parents=True)
    for name in ("METADATA", "entry_points.txt"):
        text = distribution.read_text(name) or distribution.read_text("PKG-INFO")
        assert text
        (metadata / name).write_text(text)
    (site / "cachemw").symlink_to(Path(cachemw.__file__).parent)
    return site


def _replace(path: Path, text: str) -> None:
    """Change a file that a server may be reading."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)
