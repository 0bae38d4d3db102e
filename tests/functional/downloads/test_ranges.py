"""Ranges of a hit, and its conditions."""

import hashlib

import pytest

from .downloading import BODY, URL, status_of


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-9", BODY[:10]),
        ("bytes=100-", BODY[100:]),
        ("bytes=-5", BODY[-5:]),
        ("bytes=-99999999", BODY),
        ("bytes=16380-99999", BODY[16380:]),
    ],
)
def test_range_of_a_hit(client, asked, expected):
    """RFC 9110, section 14.1.2."""
    client.get(URL)

    response = client.get(URL, headers={"Range": asked}, status=206)

    assert response.body == expected
    assert response.headers["Content-Length"] == str(len(expected))
    assert response.headers["Content-Range"].endswith(f"/{len(BODY)}")


def test_unsatisfiable_range_of_a_hit(client):
    """RFC 9110, section 15.5.17."""
    client.get(URL)

    response = client.get(URL, headers={"Range": f"bytes={len(BODY)}-"}, status=416)

    assert response.headers["Content-Range"] == f"bytes */{len(BODY)}"


def test_several_ranges_of_a_hit(client):
    """RFC 9110, section 14.6."""
    client.get(URL)

    response = client.get(URL, headers={"Range": "bytes=0-3,100-103"}, status=206)

    assert response.headers["Content-Type"].startswith("multipart/byteranges; boundary=")
    assert response.headers["Content-Length"] == str(len(response.body))
    assert b"Content-Range: bytes 0-3/16384\r\n\r\n\x00\x01\x02\x03\r\n" in response.body
    assert b"Content-Range: bytes 100-103/16384\r\n\r\ndefg\r\n" in response.body


def test_part_of_an_image_does_not_carry_the_checksum_of_the_whole_message(client, origin):
    """Content-MD5 is of the message's body (RFC 1864), which a 206 has only a part of."""
    origin.headers.append(("Content-MD5", hashlib.md5(BODY).hexdigest()))
    client.get(URL)

    response = client.get(URL, headers={"Range": "bytes=0-9"}, status=206)

    assert "Content-MD5" not in response.headers
    assert "Content-MD5" in client.get(URL).headers


def test_range_with_a_tag_of_another_version_gives_the_whole(client, origin):
    """RFC 9110, section 13.1.5."""
    origin.headers.append(("ETag", '"v1"'))
    client.get(URL)
    headers = {"Range": "bytes=0-9", "If-Range": '"v0"'}

    assert client.get(URL, headers=headers, status=200).body == BODY
    headers["If-Range"] = '"v1"'
    assert client.get(URL, headers=headers, status=206).body == BODY[:10]


def test_head_with_a_range_is_about_the_whole(client):
    """RFC 9110, section 14.2: Range is for GET."""
    client.get(URL)

    response = client.head(URL, headers={"Range": "bytes=0-9"}, status=200)

    assert response.headers["Content-Length"] == str(len(BODY))


def test_conditions_are_evaluated_on_a_hit(client, origin):
    """RFC 9110, section 13.2.2."""
    origin.headers += [("ETag", '"v1"'), ("Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT")]
    client.get(URL)

    same = client.get(URL, headers={"If-None-Match": 'W/"v1"'}, status=304)
    client.get(URL, headers={"If-None-Match": '"v0"'}, status=200)
    client.get(URL, headers={"If-Match": '"v0"'}, status=412)
    client.get(URL, headers={"If-Match": '"v1"'}, status=200)
    client.get(URL, headers={"If-Modified-Since": "Fri, 20 Nov 2026 10:00:00 GMT"}, status=304)
    client.get(URL, headers={"If-Unmodified-Since": "Fri, 20 Nov 2026 09:00:00 GMT"}, status=412)

    assert same.headers["ETag"] == '"v1"'
    assert same.body == b""
    assert status_of(same) == "cachemw; hit"
    assert origin.calls == 1


def test_content_range_of_a_whole_answer_is_not_repeated_with_a_part(client, origin):
    """RFC 9110, section 14.4: it means nothing in a 200, and there is one in a 206."""
    origin.headers.append(("Content-Range", "bytes 0-1/2"))
    client.get(URL)

    part = client.get(URL, headers={"Range": "bytes=0-9"}, status=206)

    assert part.headers.getall("Content-Range") == [f"bytes 0-9/{len(BODY)}"]
