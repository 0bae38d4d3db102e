"""Open a cache directory with the driver that the settings name.

Imports: concurrency, core.config, drivers.base, errors.
"""

from __future__ import annotations

import importlib.metadata

from .. import concurrency
from ..drivers.base import Driver
from ..errors import BadDriverConfiguration
from .config import Settings

log = concurrency.get_logger(__name__)

#: The driver that works everywhere.
FALLBACK_DRIVER = "sqlite"


def open_driver(settings: Settings, looks: bool = False) -> Driver:
    """Give the configured driver; the one that works everywhere in place of one that does not,
    if ``driver_fallback`` says so.

    :param looks: whether it is opened for a check only, so that nothing is made or mended.
    :raises BadDriverConfiguration: no driver can work with the directory.
    """
    try:
        return _driver(settings.driver, settings, looks)
    except BadDriverConfiguration as exc:
        if settings.driver == FALLBACK_DRIVER or not settings.driver_fallback:
            raise
        log.warning("%s; using %s in its place", exc, FALLBACK_DRIVER)
    return _driver(FALLBACK_DRIVER, settings, looks)


def _driver(name: str, settings: Settings, looks: bool) -> Driver:
    driver: Driver = _driver_class(name, settings.dir)(
        settings.dir, durability=settings.durability, stall_time=settings.stall_time
    )
    if looks:
        driver.look()
    else:
        driver.configure()
    return driver


def _driver_class(name: str, directory: str) -> type[Driver]:
    points = importlib.metadata.entry_points(group="cachemw.drivers")
    if name not in points.names:
        known = ", ".join(sorted(points.names))
        raise BadDriverConfiguration(name, directory, "no such driver", f"expected one of {known}")
    try:
        found: type[Driver] = points[name].load()
    except Exception as exc:
        raise BadDriverConfiguration(
            name, directory, f"cannot be loaded: {exc}", "install what it needs"
        ) from exc
    return found
