"""Ask for ranges of an image that is not there, and look at what came of it."""

import random

from cachemw.drivers.base import CHUNK
from tests.waiting import wait_until
from tests.wsgi import get

PATH = "/disk.img"
IMAGE_ID = f"http://localhost{PATH}"
BODY = random.Random(1).randbytes(5 * CHUNK + 1000)
NEW = random.Random(2).randbytes(5 * CHUNK + 1000)


def want(app, value, **environ):
    return get(app, PATH, Range=value, **environ)


def spell(start, stop):
    return f"bytes={start}-{stop - 1}"


def assert_part(reply, start, stop, body=BODY):
    assert reply.error is None
    assert (reply.status, reply.body) == (206, body[start:stop])
    assert reply.get("Content-Range") == f"bytes {start}-{stop - 1}/{len(body)}"
    assert reply.get("Content-Length") == str(stop - start)


def assert_whole(reply, body=BODY):
    assert reply.error is None
    assert (reply.status, reply.body) == (200, body)
    assert reply.get("Content-Range") is None


def wait_until_cached(app):
    wait_until(lambda: app.cache.is_cached(IMAGE_ID), "it is cached")


def queued(app):
    return list(app.cache.get_queued_images())


def partial(app):
    """The bytes that are kept of the image, of which no other is."""
    images = app.cache.driver.get_partial_images()
    assert {image["image_id"] for image in images} <= {IMAGE_ID}
    return sum(image["size"] for image in images)
