"""cachemw: transparent, verified image caching for WSGI services.

``CacheFilter`` is the middleware, ``ImageCache`` the cache behind it, and
every exception is in :mod:`cachemw.errors`.
"""

from __future__ import annotations

from .core.cache import ImageCache
from .web.filter import CacheFilter

__all__ = ["CacheFilter", "ImageCache"]
