"""Serve images through the cache: a paste pipeline, a directory or an upstream.

The app is built before the server starts, so that a mistake in its options
ends the command with one clear line.

Filter and apps come by their entry points, as in an ini file.

Imports: errors, commands._gunicorn, commands._settings.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from paste.deploy import loadapp

from ..errors import ConfigError
from . import _settings

_HOST = "127.0.0.1"
_PORT = 8080

#: Where the management API and the dashboard are, with ``--images`` and ``--upstream``.
_MANAGED = "/.cachemw"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("-c", "--config", metavar="FILE.ini", help="serve a PasteDeploy pipeline")
    origin.add_argument("--images", metavar="DIR", help="serve a directory of images")
    origin.add_argument("--upstream", metavar="URL", help="stand in front of an HTTP server")
    parser.add_argument("--name", default="main", help="the ini's app or pipeline (main)")
    cache = parser.add_argument_group("with --images and --upstream")
    cache.add_argument("--dir", metavar="DIR", help="cache directory (~/.cache/cachemw)")
    cache.add_argument("--max-size", metavar="SIZE", help="bound of the cache (10GiB)")
    _settings.add_set_argument(cache)
    cache.add_argument("--samples", action="store_true", help="make images if there are none")
    cache.add_argument("--rate-limit", metavar="SIZE", help="play a slow origin, bytes a second")
    server = parser.add_argument_group("server")
    server.add_argument("--host", metavar="ADDRESS", help=f"address to listen on ({_HOST})")
    server.add_argument("--port", type=int, help=f"port to listen on ({_PORT}; 0: any free one)")
    server.add_argument("--workers", type=_positive, default=1, help="processes (1)")
    server.add_argument("--threads", type=_positive, default=16, help="threads of each (16)")
    server.add_argument(
        "--log-requests", action="store_true", help="print one line for each request"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        from ._gunicorn import serve
    except ImportError as exc:
        raise ConfigError(
            f"the server is not installed ({exc}): pip install 'cachemw[serve]'"
        ) from None
    app = _from_ini(args) if args.config else _from_arguments(args)
    host, port = _address(args)
    serve(
        app,
        host=host,
        port=port,
        workers=args.workers,
        threads=args.threads,
        log_requests=args.log_requests,
        announce=lambda url: _announce(url, _example(args), has_dashboard=not args.config),
    )
    return 0


def _from_ini(args: argparse.Namespace) -> Callable[..., Any]:
    for option in ("dir", "max_size", "set", "samples", "rate_limit"):
        if getattr(args, option):
            flag = option.replace("_", "-")
            raise ConfigError(f"--{flag} does not go with -c: set it in {args.config}")
    _settings.read_ini(args.config)
    try:
        app: Callable[..., Any] = loadapp(f"config:{os.path.abspath(args.config)}", name=args.name)
    except (LookupError, ValueError) as exc:
        raise ConfigError(f"{args.config}: {exc}") from None
    return app


def _from_arguments(args: argparse.Namespace) -> Callable[..., Any]:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    options = {"dir": os.path.join(home, "cachemw"), **_settings.set_options(args.set)}
    if args.dir:
        options["dir"] = args.dir
    if args.max_size:
        options["max_size"] = args.max_size
    make_filter = _factory("paste.filter_factory", "cache")({}, **options)
    management = _factory("paste.app_factory", "manage")({}, **options)
    return _mounted(management, make_filter(_origin(args)))


def _mounted(management: Callable[..., Any], app: Callable[..., Any]) -> Callable[..., Any]:
    """Put the management API and the dashboard under a path that no image has."""

    def choose(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path != _MANAGED and not path.startswith(f"{_MANAGED}/"):
            answer: Iterable[bytes] = app(environ, start_response)
            return answer
        environ["SCRIPT_NAME"] += _MANAGED
        environ["PATH_INFO"] = path.removeprefix(_MANAGED)
        managed: Iterable[bytes] = management(environ, start_response)
        return managed

    return choose


def _origin(args: argparse.Namespace) -> Callable[..., Any]:
    if args.upstream:
        if args.samples or args.rate_limit:
            raise ConfigError("--samples and --rate-limit go with --images only")
        app = _factory("paste.app_factory", "proxy")({}, upstream=args.upstream)
    else:
        if not args.samples and not os.path.isdir(args.images):
            raise ConfigError(f"--images {args.images!r}: expected a directory of images")
        options = {"dir": args.images, "samples": "yes" if args.samples else "no"}
        if args.rate_limit:
            options["rate_limit"] = args.rate_limit
        app = _factory("paste.app_factory", "images")({}, **options)
    origin: Callable[..., Any] = app
    return origin


def _factory(group: str, name: str) -> Callable[..., Any]:
    """Give the factory that an ini file would name ``egg:cachemw#name``."""
    points = importlib.metadata.distribution("cachemw").entry_points
    factory: Callable[..., Any] = points.select(group=group, name=name)[name].load()
    return factory


def _address(args: argparse.Namespace) -> tuple[str, int]:
    """The arguments first, then the ini's [server:main], then the defaults."""
    host, port = args.host, args.port
    if args.config:
        parser = _settings.read_ini(args.config)
        section = parser["server:main"] if parser.has_section("server:main") else {}
        host = host or section.get("host")
        try:
            port = int(section["port"]) if port is None and "port" in section else port
        except ValueError:
            raise ConfigError(
                f"[server:main] port has the value {section['port']!r}: expected a number"
            ) from None
    return host or _HOST, _PORT if port is None else port


def _example(args: argparse.Namespace) -> str:
    """Name an image to try, if that is easy: the largest of the directory."""
    if not args.images:
        return ""
    files = [
        (entry.stat().st_size, entry.name)
        for entry in os.scandir(args.images)
        if entry.is_file() and not entry.name.startswith(".")
    ]
    return max(files)[1] if files else ""


def _announce(url: str, example: str, has_dashboard: bool) -> None:
    print(f"cachemw serves {url}", flush=True)
    if has_dashboard:
        print(f"The dashboard is {url}{_MANAGED[1:]}/", flush=True)
    if example:
        print("A miss, then a hit:", flush=True)
        print(
            f"  for i in 1 2; do curl -so /dev/null -D - -w '%{{time_total}} s\\n' {url}{example}"
            " | grep -iE 'cache-status|s$'; done",
            flush=True,
        )
    print("Stop with Ctrl-C.", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
