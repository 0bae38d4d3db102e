"""The management API: list, delete, queue, prune, clean and check; numbers; a dashboard.

As an app, under a path of its own::

    [composite:main]
    use = egg:Paste#urlmap
    / = images
    /cache = manage

    [app:manage]
    use = egg:cachemw#manage
    dir = /var/cache/images
    admin_token = a-long-secret

or as a filter to the left of the cache, where Glance's clients look for it::

    [pipeline:main]
    pipeline = manage cache app

    [filter:manage]
    use = egg:cachemw#manage

It has no state but the cache directory's: any number of processes may have
it, whether they serve images or not. ``docs/reference/api.rst`` has the paths.

Imports: core.cache, core.config, web.manage.app.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...core.cache import ImageCache
from ...core.config import Settings
from .app import App, ManagementApp, ManagementFilter

__all__ = ["ManagementApp", "ManagementFilter", "app_factory", "filter_factory"]


def app_factory(global_conf: Mapping[str, str], **local_conf: str) -> ManagementApp:
    """Build the management API as an app: ``use = egg:cachemw#manage``.

    :param global_conf: the ``[DEFAULT]`` section; our names begin with ``image_cache_`` there.
    :param local_conf: our own section; a name that we do not know is an error.
    :raises ConfigError: names the option, its value and what was expected.
    """
    settings = Settings.from_conf(global_conf, local_conf)
    return ManagementApp(ImageCache.from_settings(settings))


def filter_factory(
    global_conf: Mapping[str, str], **local_conf: str
) -> Callable[[App], ManagementFilter]:
    """Build the management API as a filter: ``use = egg:cachemw#manage``.

    The parameters are those of :func:`app_factory`.
    """
    management = app_factory(global_conf, **local_conf)

    def make_filter(app: App) -> ManagementFilter:
        return ManagementFilter(app, management)

    return make_filter
