"""What may be stored of the app's answers, and what is kept of them."""

import pytest

from cachemw.core.presets import IMAGE_TYPES
from cachemw.web import storing, vary

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("lengths", "expected"), [([], None), (["0"], 0), (["42"], 42), (["42", "42"], 42)]
)
def test_length_is_read(lengths, expected):
    """RFC 9110, section 8.6: the same value again changes nothing."""
    headers = [("Content-Length", length) for length in lengths]

    assert storing.content_length(headers) == expected


@pytest.mark.parametrize("lengths", [["1", "2"], ["x"], ["-1"], ["1, 2"], ["٣"], ["1.0"], [""]])
def test_length_that_is_nonsense_is_an_error(lengths):
    with pytest.raises(ValueError, match="Content-Length"):
        storing.content_length([("Content-Length", length) for length in lengths])


@pytest.mark.parametrize(
    "media_type",
    [
        "image/png",
        "IMAGE/PNG",
        "image/svg+xml; charset=utf-8",
        "video/mp4",
        "application/octet-stream",
        "application/x-qemu-disk",
        "application/gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ],
)
def test_images_disks_archives_and_layers_are_images(media_type):
    assert storing.is_image([("Content-Type", media_type)], IMAGE_TYPES)


@pytest.mark.parametrize("media_type", ["text/html", "application/json", "", "image", "*/*"])
def test_pages_and_data_are_not(media_type):
    assert not storing.is_image([("Content-Type", media_type)], IMAGE_TYPES)


def test_type_that_is_excluded_is_no_image_whatever_else_matches():
    patterns = ("*", "!image/SVG*")

    assert storing.is_image([("Content-Type", "image/png")], patterns)
    assert not storing.is_image([("Content-Type", "Image/svg+xml; x=1")], patterns)


def test_answer_without_a_type_is_no_image():
    assert not storing.is_image([], IMAGE_TYPES)


def test_record_keeps_what_is_true_of_the_image():
    headers = [
        ("Content-Type", "image/png"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "5"),
        ("Age", "7"),
        ("Cache-Status", "other; hit"),
        ("X-Kept", "1"),
        ("Date", "Fri, 15 Jan 2027 08:00:00 GMT"),
    ]

    record = storing.new_record("cat", {}, headers, NOW - 1, NOW)

    assert record.headers == (
        ("Content-Type", "image/png"),
        ("X-Kept", "1"),
        ("Date", "Fri, 15 Jan 2027 08:00:00 GMT"),
    )
    assert record.stored == NOW
    assert record.age == 8


def test_record_has_a_date_if_the_answer_had_none():
    """RFC 9110, section 6.6.1."""
    record = storing.new_record("cat", {}, [], NOW, NOW)

    assert record.headers == (("Date", "Fri, 15 Jan 2027 08:00:00 GMT"),)


def test_record_keeps_what_selected_the_variant():
    """RFC 9111, section 4.1."""
    request = {"HTTP_ACCEPT": "image/png"}
    headers = [("Vary", "Accept, Accept-Language")]

    record = storing.new_record("cat", request, headers, NOW, NOW)

    assert record.vary == (("accept", "image/png"), ("accept-language", None))
    assert vary.selected(record.vary, request)
    assert not vary.selected(record.vary, {"HTTP_ACCEPT": "image/webp"})
    assert not vary.selected(record.vary, {**request, "HTTP_ACCEPT_LANGUAGE": "de"})


def test_answer_that_only_looks_like_an_image_is_not_stored():
    rules = storing.Rules(content_types=("*",), unconditional=True, not_images=("x-manifest",))
    headers = [("Content-Type", "image/png")]
    request = {"REQUEST_METHOD": "GET"}

    assert rules.refusal(request, 200, headers, 0.0) is None
    assert rules.refusal(request, 200, [*headers, ("X-Manifest", "")], 0.0) == "manifest"
