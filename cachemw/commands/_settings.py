"""The cache that a command is about: the one of the server's ini file, or a directory.

Imports: errors, names, core.cache, core.config, drivers._lock.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from paste.deploy import loadwsgi

from ..core.cache import ImageCache
from ..core.config import Settings
from ..drivers._lock import driver_of
from ..errors import ConfigError
from ..names import check_image_id

#: How the caching filter is named in ini files.
_OURS = ("egg:cachemw", "egg:cachemw#main", "egg:cachemw#cache")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which cache is meant."""
    parser.add_argument("-c", "--config", metavar="FILE.ini", help="the server's ini file")
    parser.add_argument("--dir", metavar="DIR", help="the cache directory")
    add_set_argument(parser)


def add_set_argument(parser: argparse._ActionsContainer) -> None:
    """Add the argument that sets any option of the cache."""
    parser.add_argument(
        "--set",
        metavar="OPTION=VALUE",
        action="append",
        default=[],
        help="set any option of the cache, such as driver=xattr; may be repeated",
    )


def from_arguments(args: argparse.Namespace) -> Settings:
    """Read the settings of the cache that is meant.

    :raises ConfigError: no cache is named, or its options are wrong.
    """
    given = {**set_options(args.set), **({"dir": args.dir} if args.dir else {})}
    if args.config is None:
        if "dir" not in given:
            raise ConfigError("no cache is named: expected -c FILE.ini or --dir DIR")
        settings = Settings.from_options(given)
        # With another than the server's, each of the two would scan the directory whenever the
        # other was there.
        used = None if "driver" in given else driver_of(settings.dir)
        return settings if used is None else Settings.from_options({**given, "driver": used})
    global_conf, local_conf = filter_section(args.config)
    return Settings.from_conf(global_conf, {**local_conf, **given})


@contextlib.contextmanager
def opened_cache(args: argparse.Namespace) -> Iterator[ImageCache]:
    """Open the cache that is meant, which is there already; a name that is wrong makes none.

    :raises ConfigError: as :func:`from_arguments`, or there is no such directory.
    """
    settings = from_arguments(args)
    if not os.path.isdir(settings.dir):
        raise ConfigError(f"there is no cache directory {settings.dir!r}")
    cache = ImageCache.from_settings(settings)
    try:
        yield cache
    finally:
        cache.close()


def set_options(pairs: list[str]) -> dict[str, str]:
    """Read ``OPTION=VALUE`` arguments.

    :raises ConfigError: one has no ``=``.
    """
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair!r}: expected OPTION=VALUE")
        options[name.strip()] = value.strip()
    return options


def filter_section(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find the caching filter's section in an ini file.

    :return: ``[DEFAULT]`` and the section, as the filter's factory gets them.
    :raises ConfigError: there is no such file or section, or several that differ.
    """
    found = []
    for section in read_ini(path).sections():
        kind, _, name = section.partition(":")
        if kind == "filter" and name:
            context = loadwsgi.loadcontext(
                loadwsgi.FILTER, f"config:{os.path.abspath(path)}", name=name
            )
            if context.entry_point_name in ("main", "cache") and _is_ours(context):
                found.append((dict(context.global_conf), dict(context.local_conf)))
    if not found:
        raise ConfigError(f"{path} has no [filter:...] section with use = {_OURS[2]}")
    if any(other != found[0] for other in found):
        raise ConfigError(f"{path} has several caching filters: name one with --dir DIR")
    return found[0]


def _is_ours(context: Any) -> bool:
    return bool(context.distribution and context.distribution.metadata["Name"] == "cachemw")


def read_ini(path: str) -> configparser.RawConfigParser:
    """Read an ini file without looking into its values.

    :raises ConfigError: it cannot be read, or is no ini file.
    """
    parser = configparser.RawConfigParser(strict=False)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from None
    except (configparser.Error, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not an ini file: {exc}") from None
    return parser


def image_id_of(text: str) -> str:
    """Read an image id.

    :raises ConfigError: it cannot be one.
    """
    try:
        return check_image_id(text)
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
