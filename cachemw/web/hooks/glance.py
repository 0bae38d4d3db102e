"""Who may have the copy of a Glance image.

The ``glance`` preset has it as ``authorize = python:cachemw.web.hooks.glance:authorize``.
Runs inside Glance, to the right of the ``context`` filter. Every question is
put to Glance itself, in the client's name and at every hit: whether the image
can be seen (visibility, membership, deletion), whether it is active, and
whether the policy lets this client download it. Whoever would not get the
image from Glance does not get the copy, and hears so from Glance. The copy is
compared with the size and checksums of the image's record too.

Written for Glance 33; ``glance.api.v2.policy``, which it asks, is there since Glance 23.

Imports: errors, core.checksum, drivers.base; inside functions: glance, oslo_config.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from ...core.checksum import ALGORITHMS, Checksum, parse_checksum
from ...drivers.base import Entry
from ...errors import ConfigError, ImageCorrupt

#: Where WebOb keeps what was set on a request, such as Glance's ``req.context``.
_ATTRIBUTES = "webob.adhoc_attrs"


def authorize(environ: Mapping[str, Any], image_id: str, entry: Entry | None) -> bool:
    """Say whether this client would get the image from Glance now.

    :param image_id: Glance's.
    :param entry: the copy, which is only read about; ``None``: there is none yet.
    :return: ``False``: the request is Glance's to answer, with a refusal or otherwise.
    :raises ImageCorrupt: the copy is not what the image's record says, or cannot be
        compared with it: it is to be dropped, and the image fetched again.
    :raises ConfigError: the filter is not behind Glance's ``context`` filter.
    """
    if not _is_plain_download(environ):
        return False
    context = _context(environ)
    image = _find(context, image_id)
    if image is None or image.status != "active":
        # Glance lets administrators have a deactivated image: it decides.
        return False
    if not _is_allowed(environ, context, image):
        return False
    if entry is not None:
        mismatch = difference(entry, image.size, promised(image))
        if mismatch is not None:
            raise ImageCorrupt(image_id, mismatch)
    return True


def expected(environ: Mapping[str, Any], image_id: str) -> list[str]:
    """Give the checksums in the image's record, for a copy that is about to be made.

    Glance's answer has the MD5 only; its record has a stronger one beside it.

    :return: ``"algorithm:hex"``, the strongest first; none where Glance has none.
    :raises ConfigError: the filter is not behind Glance's ``context`` filter.
    """
    image = _find(_context(environ), image_id)
    return [] if image is None else [str(checksum) for checksum in promised(image)]


def promised(image: Any) -> list[Checksum]:
    """Give the checksums that an image's record has, the strongest first.

    :param image: has ``checksum`` (MD5), ``os_hash_algo`` and ``os_hash_value``, all of
        which may be ``None``.
    """
    pairs = {"md5": image.checksum, image.os_hash_algo: image.os_hash_value}
    return [
        parse_checksum(f"{algorithm}:{pairs[algorithm]}")
        for algorithm in ALGORITHMS
        if pairs.get(algorithm)
    ]


def difference(entry: Entry, size: int | None, checksums: list[Checksum]) -> str | None:
    """Say how a copy differs from the image's record.

    :param size: bytes; ``None`` or 0: Glance does not know.
    :param checksums: the record's.
    :return: one lower-case phrase; ``None``: it does not.
    """
    if size and entry.size != size:
        return f"the copy has {entry.size} bytes, the image in Glance {size}"
    if entry.record is None or not checksums:
        return None
    actual = parse_checksum(entry.record.checksum)
    if actual in checksums:
        return None
    if actual.algorithm in {checksum.algorithm for checksum in checksums}:
        return f"the copy has {actual}, which is not the checksum of the image in Glance"
    # It was stored before Glance knew a checksum, so nobody can tell what it is a copy of.
    return f"the copy has {actual}, and Glance has only other kinds of checksum"


def _is_plain_download(environ: Mapping[str, Any]) -> bool:
    """Whether Glance's answer would be the image, and nothing around it.

    It answers 405 to a HEAD, a part to a request with Content-Range, and on
    its first API's paths the image's properties as fields beside the bytes.
    """
    return (
        environ["REQUEST_METHOD"] == "GET"
        and "HTTP_CONTENT_RANGE" not in environ
        and not environ.get("PATH_INFO", "").startswith("/v1/")
    )


def _context(environ: Mapping[str, Any]) -> Any:
    context = environ.get(_ATTRIBUTES, {}).get("context")
    if context is None:
        raise ConfigError(
            "the request has no Glance context: in the pipeline, put the caching filter to the"
            " right of 'context'"
        )
    return context


def _find(context: Any, image_id: str) -> Any:
    """Load the image as its client sees it; ``None``: it is not there for them."""
    import glance.db
    from glance.common import exception

    # The API's own, taller stack of repositories may write to the database while it reads.
    repository = glance.db.ImageRepo(context, glance.db.get_api())
    rules = _property_rules()
    if rules is not None:
        from glance.api import property_protections

        repository = property_protections.ProtectedImageRepoProxy(repository, context, rules)
    try:
        return repository.get(image_id)
    except exception.NotFound:
        return None


@functools.cache
def _property_rules() -> Any:
    """Give the rules that hide properties from some roles, hence from the policy too."""
    from glance.api import policy
    from glance.common import property_utils

    if not property_utils.is_property_protection_enabled():
        return None
    return property_utils.PropertyRules(policy.Enforcer())


def _is_allowed(environ: Mapping[str, Any], context: Any, image: Any) -> bool:
    """Whether the policy lets this client have the image, from the stores that it prefers."""
    from glance.api.v2 import policy
    from oslo_config import cfg

    rules = policy.ImageAPIPolicy(context, image, context.policy_enforcer)
    if not rules.check("download_image"):
        return False
    lists = parse_qs(environ.get("QUERY_STRING", "")).get("prefer", [])
    stores = {name.strip() for names in lists for name in names.split(",")} - {""}
    if not stores or not hasattr(rules, "download_from_store"):
        return True
    return stores <= set(cfg.CONF.enabled_backends or ()) and rules.check("download_from_store")
