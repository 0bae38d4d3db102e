"""Fetch what is in the queue into the cache.

Imports: commands._http, commands._settings, core.cache, core.config, core.fetching,
core.prefetch, errors.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from paste.deploy import loadapp

from ..core.cache import ImageCache
from ..core.config import Settings, parse_count
from ..core.fetching import AppFetcher, Fetcher
from ..core.prefetch import MOST_STUCK, Fetch
from ..errors import ConfigError
from . import _http, _settings

#: Called while images are fetched.
Observer = Callable[[Fetch], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    parser.add_argument("--name", default="main", help="the ini's app or pipeline (main)")
    parser.add_argument("--url", metavar="URL", help="fetch through the server that runs there")
    parser.add_argument("--workers", metavar="N", default="1", help="images to fetch at a time (1)")
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def run(args: argparse.Namespace) -> int:
    """Try every image that waits once; print what became of it."""
    workers = _workers(args.workers)
    if args.url is None:
        app, settings = _pipeline(args)
        cache = ImageCache.from_settings(settings)
        report = Report(args.json)
        return _work(AppFetcher(app, cache, settings, report), report, workers)
    server = _http.parse_server(args.url)
    settings = _settings.from_arguments(args)
    cache = ImageCache.from_settings(settings)
    report = Report(args.json)
    return _work(_http.ServerFetcher(server, cache, settings, report), report, workers)


def _workers(text: str) -> int:
    try:
        return max(parse_count(text), 1)
    except ValueError as exc:
        raise ConfigError(f"--workers {text!r}: {exc}") from None


def _pipeline(args: argparse.Namespace) -> tuple[Any, Settings]:
    """Load the pipeline of the ini file, and the settings of the filter in it."""
    if args.config is None or args.dir or args.set:
        raise ConfigError("expected either -c FILE.ini alone or --url URL")
    settings = _settings.from_arguments(args)
    try:
        return loadapp(f"config:{os.path.abspath(args.config)}", name=args.name), settings
    except (LookupError, ValueError) as exc:
        raise ConfigError(f"{args.config}: {exc}") from None


def _work(fetcher: Fetcher, report: Report, workers: int) -> int:
    try:
        found = fetcher.work_off(workers)
        report.end()
        if fetcher.hangs:
            print(
                f"cachemw prefetch: {MOST_STUCK} fetches hang in the app; the rest is still queued",
                file=sys.stderr,
            )
            return 1
    finally:
        fetcher.end()
        fetcher.cache.close()
    return 0 if all(outcome.is_done for outcome in found.values()) else 1


class Report:
    """Says what becomes of each image: a line, or an object of one array."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._images: list[dict[str, Any]] = []

    def __call__(self, fetch: Fetch) -> None:
        outcome = fetch.judged
        if outcome is None:
            return
        if self._as_json:
            self._images.append(
                {
                    "image_id": fetch.image_id,
                    "cached": outcome.is_done,
                    "reason": outcome.reason,
                    "bytes": fetch.received,
                    "seconds": round(time.time() - fetch.began, 3),
                }
            )
        elif outcome.is_done:
            print(f"{fetch.image_id}\t{fetch.received}", flush=True)
        else:
            print(f"cachemw prefetch: {fetch.image_id}: {outcome.reason}", file=sys.stderr)

    def end(self) -> None:
        """Print what is printed as a whole."""
        if self._as_json:
            print(json.dumps(self._images, indent=2))
