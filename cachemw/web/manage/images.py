"""What the management API does with images: cached ones, and ids that wait to be fetched.

Imports: core.cache, names, web.manage.answers, web.manage.asked, web.manage.lists.
"""

from __future__ import annotations

from ...core.cache import ImageCache
from ...names import check_image_id
from . import lists
from .answers import Answer, Problem, as_json
from .asked import Asked, number_of

#: In ``DELETE /v2/cache``; what is not named is emptied.
_TARGET = "HTTP_X_IMAGE_CACHE_CLEAR_TARGET"


def list_cached(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /v1/cached_images``."""
    return lists.answer(cache, asked, {}, with_next=True)


def show_cached(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /v1/cached_images/{id}``: each variant."""
    found = cache.find_image(_image_id(asked))
    if not found:
        raise Problem(404, "there is no such image in the cache")
    return as_json({"cached_images": found})


def delete_cached(cache: ImageCache, asked: Asked) -> Answer:
    """``DELETE /v1/cached_images/{id}``."""
    if not cache.delete_cached_image(_image_id(asked)):
        raise Problem(404, "there is no such image in the cache")
    return Answer(204)


def delete_all_cached(cache: ImageCache, asked: Asked) -> Answer:
    """``DELETE /v1/cached_images``."""
    return as_json({"num_deleted": cache.delete_all_cached_images()})


def list_queued(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /v1/queued_images``: ids, as of old, and what else is known of them."""
    given = asked.query("search", "limit", "marker")
    limit = number_of(given, "limit")
    queue = cache.get_queue()
    if "marker" in given:
        ids = [queued["image_id"] for queued in queue]
        if given["marker"] not in ids:
            raise Problem(400, "the parameter 'marker' is not in the queue any more")
        queue = queue[ids.index(given["marker"]) + 1 :]
    queue = [queued for queued in queue if given.get("search", "") in queued["image_id"]]
    waiting = [one["image_id"] for one in queue[:limit] if not one["set_aside"]]
    return as_json({"queued_images": waiting, "queue": queue[:limit]})


def show_queued(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /v1/queued_images/{id}``."""
    image_id = _image_id(asked)
    queue = [queued for queued in cache.get_queue() if queued["image_id"] == image_id]
    if not queue:
        raise Problem(404, "there is no such image in the queue")
    return as_json({"queue": queue})


def queue(cache: ImageCache, asked: Asked) -> Answer:
    """``PUT /v1/queued_images/{id}`` and ``PUT /v2/cache/{id}``: fetch it in the background,
    unless it is there."""
    image_id = _image_id(asked)
    if not cache.is_cached(image_id) and not cache.can_fetch(image_id):
        raise Problem(
            409,
            "nothing says how to fetch it: no request has named it, and the option image_path"
            " is not set",
        )
    return as_json({"image_id": image_id, "queued": cache.queue_image(image_id)}, 202)


def delete_queued(cache: ImageCache, asked: Asked) -> Answer:
    """``DELETE /v1/queued_images/{id}``."""
    if not cache.delete_queued_image(_image_id(asked)):
        raise Problem(404, "there is no such image in the queue")
    return Answer(204)


def delete_all_queued(cache: ImageCache, asked: Asked) -> Answer:
    """``DELETE /v1/queued_images``."""
    return as_json({"num_deleted": cache.delete_all_queued_images()})


def list_all(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /v2/cache``: both, and no other keys, since Glance's client takes any for a list
    of ids."""
    more = {"queued_images": cache.get_queued_images()}
    return lists.answer(cache, asked, more, with_next=False)


def delete_anywhere(cache: ImageCache, asked: Asked) -> Answer:
    """``DELETE /v2/cache/{id}``: cached, queued or both."""
    image_id = _image_id(asked)
    was_queued = cache.delete_queued_image(image_id)
    if not cache.delete_cached_image(image_id) and not was_queued:
        raise Problem(404, "there is no such image in the cache or in the queue")
    return Answer(204)


def clear(cache: ImageCache, asked: Asked) -> Answer:
    """``DELETE /v2/cache``: all of what the field X-Image-Cache-Clear-Target names."""
    target = asked.environ.get(_TARGET, "").strip().lower()
    if target not in ("", "both", "cache", "queue"):
        raise Problem(
            400, "the field X-Image-Cache-Clear-Target is neither cache nor queue nor both"
        )
    if target != "cache":
        cache.delete_all_queued_images()
    if target != "queue":
        cache.delete_all_cached_images()
    return Answer(204)


def list_nodes(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /v2/cache/nodes/{id}`` of Glance's API, for caches that know of each other."""
    raise Problem(409, "this cache knows of no other nodes")


def _image_id(asked: Asked) -> str:
    if asked.environ.get("QUERY_STRING"):
        # It may be the rest of an id, which then would name another image.
        raise Problem(400, "there are no parameters here, and an id has %3F for a question mark")
    try:
        return check_image_id(asked.argument)
    except ValueError as exc:
        raise Problem(400, str(exc)) from None
