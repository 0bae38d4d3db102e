"""An image to download, and a client to do it."""

from wsgiref.validate import validator

import webtest

from cachemw import CacheFilter

URL = "/images/cat/file"
BODY = bytes(range(256)) * 64  # 16 KiB


def client_of(origin, cache, **options):
    """A client in front of the filter, with both sides of it held to PEP 3333."""
    return webtest.TestApp(validator(CacheFilter(validator(origin), cache=cache, **options)))


def status_of(response):
    return response.headers["Cache-Status"]
