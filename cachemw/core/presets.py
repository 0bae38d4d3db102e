"""Presets: what is known of each kind of service that the filter stands in front of.

The first five values are the defaults of the options of those names; the
rest is no option, since nothing but the service decides it.

Imports: nothing of ours.
"""

from __future__ import annotations

import dataclasses

#: Media types that count as images where the service has other things too.
IMAGE_TYPES = (
    "image/*",
    "video/*",
    "application/octet-stream",
    # disk images
    "application/x-qemu-disk",
    "application/x-raw-disk-image",
    "application/x-iso9660-image",
    "application/x-cd-image",
    "application/x-apple-diskimage",
    "application/x-virtualbox-*",
    "application/x-vmdk",
    "application/x-vhd*",
    "application/vnd.efi.img",
    "application/vnd.efi.iso",
    # archives and installers
    "application/gzip",
    "application/x-gzip",
    "application/x-bzip*",
    "application/x-xz",
    "application/x-lzma",
    "application/x-lzip",
    "application/zstd",
    "application/zip",
    "application/x-tar",
    "application/x-gtar",
    "application/x-compressed-tar",
    "application/x-7z-compressed",
    "application/x-rpm",
    "application/x-debian-package",
    "application/vnd.debian.binary-package",
    "application/x-msdownload",
    "application/x-msi",
    # container layers
    "application/vnd.oci.image.layer.*",
    "application/vnd.docker.image.rootfs.*",
)

_DIGEST = r"(?P<image_id>sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One kind of service.

    :param routes: default of the option ``routes``: one regular expression a line.
    :param content_types: default of the option ``content_types``.
    :param image_path: default of the option ``image_path``.
    :param freshness: default of the option ``freshness``.
    :param authorize: default of the option ``authorize``.
    :param resources: regular expressions over the paths whose DELETE deletes the image; other
        changes there are of what is said about it, and leave the bytes as they are.
    :param query_in_id: whether the query string tells one image from another.
    :param query_apart: names of parameters in it that do not.
    :param not_images: fields, in lower case, of answers that only look like images.
    :param whole_304: whether a 304 has all fields of the image, so that others are gone.
    :param etag_is_md5: whether a strong entity tag is the MD5 of the bytes.
    :param asks_by_head: whether a 304 says nothing about who may have an image, and a HEAD does.
    :param id_is_checksum: whether an id that looks like a checksum is one of the bytes, so that
        they cannot change.
    """

    routes: str = ""
    image_path: str = ""
    content_types: str = "*"
    freshness: str
    authorize: str = "off"
    resources: tuple[str, ...] = ()
    query_in_id: bool = True
    query_apart: tuple[str, ...] = ()
    not_images: tuple[str, ...] = ()
    whole_304: bool = False
    asks_by_head: bool = False
    etag_is_md5: bool = False
    id_is_checksum: bool = False


PRESETS = {
    "any": Preset(content_types=", ".join(IMAGE_TYPES), freshness="http"),
    "glance": Preset(
        routes="/v2/images/(?P<image_id>[^/]+)/file\n/v1/images/(?!detail$)(?P<image_id>[^/]+)",
        image_path="/v2/images/{image_id}/file",
        freshness="immutable",
        authorize="python:cachemw.web.hooks.glance:authorize",
        resources=("/v2/images/(?P<image_id>[^/]+)",),
        query_in_id=False,
    ),
    "swift": Preset(
        routes="/v1/(?P<image_id>[^/]+/[^/]+/.+)",
        image_path="/v1/{image_id}",
        freshness="revalidate",
        authorize="app",
        # Signatures are checked at every hit, and an object that is no manifest has one form.
        query_apart=(
            "temp_url_sig",
            "temp_url_expires",
            "temp_url_prefix",
            "temp_url_ip_range",
            "filename",
            "inline",
            "multipart-manifest",
        ),
        # Manifests: their tags are not of what clients get, and a 304 does not say
        # whether the segments may be read too.
        not_images=("x-static-large-object", "x-object-manifest"),
        whole_304=True,
        etag_is_md5=True,
    ),
    "registry": Preset(
        routes=f"/v2/.+/blobs/{_DIGEST}\n/v2/.+/manifests/{_DIGEST}",
        # The digest of a signed manifest of the first version is that of a part of it.
        content_types="*, !application/vnd.docker.distribution.manifest.v1*",
        freshness="immutable",
        authorize="app",
        query_in_id=False,
        # Docker's registry compares If-None-Match with the digest in a manifest's path before
        # it looks whether the repository has it.
        asks_by_head=True,
        id_is_checksum=True,
    ),
}
