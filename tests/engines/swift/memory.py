"""What memcached is to a Swift proxy, in the memory of its one process.

TempAuth keeps its tokens there, and the proxy what it knows of containers.

Imports: nothing of ours; loaded by the proxy, from a virtual environment of its own.
"""

from __future__ import annotations

import time


class Memory:
    """The part of ``swift.common.memcached.MemcacheRing`` that a proxy calls."""

    def __init__(self):
        self._values = {}

    def get(self, key, raise_on_error=False):
        value, until = self._values.get(key, (None, 0))
        if until and until < time.time():
            return None
        return value

    def set(self, key, value, serialize=True, time=0, min_compress_len=0, raise_on_error=False):
        self._values[key] = (value, _deadline(time))

    def incr(self, key, delta=1, time=0):
        value = max(0, int(self.get(key) or 0) + delta)
        self.set(key, value, time=time)
        return value

    def decr(self, key, delta=1, time=0):
        return self.incr(key, -delta, time)

    def delete(self, key, server_key=None):
        self._values.pop(key, None)

    def set_multi(self, mapping, server_key, serialize=True, time=0, min_compress_len=0):
        for key, value in mapping.items():
            self.set(key, value, time=time)

    def get_multi(self, keys, server_key):
        return [self.get(key) for key in keys]


def _deadline(seconds):
    return time.time() + seconds if seconds else 0


def filter_factory(global_conf, **local_conf):
    """Build the filter that stands where ``egg:swift#memcache`` stands."""
    memory = Memory()

    def make_filter(app):
        def call(environ, start_response):
            environ["swift.cache"] = memory
            return app(environ, start_response)

        return call

    return make_filter
