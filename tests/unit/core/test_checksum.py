"""Checksums: read from text, read from responses, computed."""

import base64
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.core import checksum
from cachemw.core.checksum import Checksum, Digests, from_headers, parse_checksum

DATA = b"some bytes of an image"
MD5 = hashlib.md5(DATA).hexdigest()
SHA1 = hashlib.sha1(DATA).hexdigest()
SHA256 = hashlib.sha256(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()
CRC32 = f"{zlib.crc32(DATA):08x}"


def b64(digits):
    return base64.b64encode(bytes.fromhex(digits)).decode()


def found(*headers, **options):
    return [str(promise) for promise in from_headers(headers, **options)]


@pytest.mark.parametrize(
    ("digits", "algorithm"), [(MD5, "md5"), (SHA1, "sha1"), (SHA256, "sha256"), (SHA512, "sha512")]
)
def test_the_length_of_bare_hex_names_the_algorithm(digits, algorithm):
    """interface.md, Python."""
    assert parse_checksum(digits) == Checksum(algorithm, digits)
    assert parse_checksum(digits.upper()) == Checksum(algorithm, digits)


@pytest.mark.parametrize("text", [f"sha256:{SHA256}", f"SHA256:{SHA256.upper()}"])
def test_a_named_checksum_is_read_in_any_case_and_written_in_lower(text):
    """interface.md, Python."""
    assert parse_checksum(text) == Checksum("sha256", SHA256)
    assert str(parse_checksum(text)) == f"sha256:{SHA256}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256:",
        "abc",
        CRC32,
        "a" * 96,
        "g" * 32,
        "\u0661" * 32,
        " " + MD5,
        f"md5:{SHA1}",
        f"sha256:{MD5}",
        f"crc32c:{CRC32}",
        f"sha256:sha256:{SHA256}",
        f":{MD5}",
    ],
)
def test_a_malformed_checksum_is_an_error_that_says_what_was_expected(text):
    """interface.md, Python."""
    with pytest.raises(ValueError, match="expected 32, 40, 64 or 128 hex digits") as caught:
        parse_checksum(text)
    assert repr(text) in str(caught.value)


@given(st.sampled_from(sorted(checksum.ALGORITHMS)), st.data())
def test_every_checksum_is_read_back(algorithm, data):
    """interface.md, Python."""
    size = checksum.ALGORITHMS[algorithm]
    one = Checksum(algorithm, data.draw(st.binary(min_size=size, max_size=size)).hex())

    assert parse_checksum(str(one)) == one


@pytest.mark.parametrize("value", [MD5, MD5.upper(), b64(MD5), f" {b64(MD5)} "])
def test_content_md5_is_read_in_hex_and_base64(value):
    """RFC 1864; Glance sends hex."""
    assert found(("content-md5", value)) == [f"md5:{MD5}"]


def test_glance_v1_sends_its_md5_in_a_field_of_its_own():
    """interface.md, HTTP."""
    assert found(("X-Image-Meta-Checksum", MD5)) == [f"md5:{MD5}"]
    assert found(("X-Image-Meta-Checksum", "None")) == []


@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest"])
def test_digest_dictionaries_are_read(name):
    """RFC 9530, section 2."""
    value = f"md5=:{b64(MD5)}:, sha-512=:{b64(SHA512)}:;x=1,sha-256=:{b64(SHA256)}:"

    assert found((name, value)) == [f"sha512:{SHA512}", f"sha256:{SHA256}", f"md5:{MD5}"]
    assert found((name, f"sha=:{b64(SHA1)}:")) == [f"sha1:{SHA1}"]


@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest"])
@pytest.mark.parametrize(
    "value",
    [
        f"sha-256={b64(SHA256)}",
        f"SHA-256=:{b64(SHA256)}:",
        f"sha-256=:{b64(SHA256)}",
        f"sha-256=:{b64(MD5)}:",
        "sha-256=:!!!!:",
        "sha-256=::",
        "sha-256=10",
        "sha-256",
        f'x="a,sha-256=:{b64(SHA256)}:,"',
        f"crc32c=:{b64(CRC32)}:",
        "unixsum=:GQU=:",
    ],
)
def test_a_malformed_or_unknown_dictionary_member_is_skipped(name, value):
    """RFC 9530, section 2; RFC 9651, section 3.2."""
    assert found((name, value)) == []
    assert found((name, f"{value}, sha-512=:{b64(SHA512)}:")) == [f"sha512:{SHA512}"]


def test_a_byte_sequence_may_lack_its_padding():
    """RFC 9651, section 4.2.7."""
    assert found(("Repr-Digest", f"sha-256=:{b64(SHA256).rstrip('=')}:")) == [f"sha256:{SHA256}"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"SHA-256={b64(SHA256)}", f"sha256:{SHA256}"),
        (f"sha-256={b64(SHA256)}", f"sha256:{SHA256}"),
        (f"SHA-512={b64(SHA512)}", f"sha512:{SHA512}"),
        (f"md5={b64(MD5)}", f"md5:{MD5}"),
        (f"SHA={b64(SHA1)}", f"sha1:{SHA1}"),
        (f"sha-256={SHA256.upper()}", f"sha256:{SHA256}"),
    ],
)
def test_the_older_digest_field_is_read(value, expected):
    """RFC 3230, section 4.3.2; RFC 5843."""
    assert found(("Digest", value)) == [expected]
    assert found(("Digest", f"UNIXsum=30637 , {value},x")) == [expected]


def test_a_digest_of_the_unencoded_bytes_is_none_of_the_stored_bytes():
    """RFC 5843, section 2.3 (id-sha-256)."""
    assert found(("Digest", f"id-sha-256={b64(SHA256)}")) == []


def test_a_registry_names_the_digest():
    """Docker Registry HTTP API V2."""
    assert found(("Docker-Content-Digest", f"sha256:{SHA256}")) == [f"sha256:{SHA256}"]
    assert found(("Docker-Content-Digest", f"blake3:{SHA256}")) == []


@pytest.mark.parametrize(
    "promise", [("Docker-Content-Digest", f"sha256:{SHA256}"), ("X-Image-Meta-Checksum", MD5)]
)
@pytest.mark.parametrize(("coding", "counts"), [("gzip", False), ("identity", True)])
def test_a_digest_of_the_image_does_not_count_where_the_body_was_encoded(promise, coding, counts):
    """RFC 9110, section 8.4: nginx, for one, encodes a manifest and keeps the digest."""
    assert bool(found(promise, ("Content-Encoding", coding))) is counts


def test_google_hashes_are_read_from_one_line_or_several():
    """Google Cloud Storage XML API, x-goog-hash."""
    crc32c, md5 = f"crc32c={b64(CRC32)}", f"md5={b64(MD5)}"

    assert found(("X-Goog-Hash", f"{crc32c}, {md5}")) == [f"md5:{MD5}"]
    assert found(("x-goog-hash", crc32c), ("x-goog-hash", md5)) == [f"md5:{MD5}"]


@pytest.mark.parametrize(
    ("stored", "sent", "counts"),
    [
        (None, None, True),
        (None, "gzip", True),
        ("identity", None, True),
        ("identity", "identity", True),
        ("gzip", "gzip", True),
        ("GZIP", "gzip", True),
        ("gzip", None, False),
        ("gzip", "identity", False),
        ("identity", "gzip", False),
    ],
)
def test_google_hashes_count_only_for_the_encoding_stored(stored, sent, counts):
    """Google Cloud Storage, transcoding of gzip-compressed files."""
    headers = [("X-Goog-Hash", f"md5={b64(MD5)}")]
    if stored:
        headers.append(("X-Goog-Stored-Content-Encoding", stored))
    if sent:
        headers.append(("Content-Encoding", sent))

    assert found(*headers) == ([f"md5:{MD5}"] if counts else [])


@pytest.mark.parametrize(
    ("algorithm", "digits"), [("crc32", CRC32), ("sha1", SHA1), ("sha256", SHA256)]
)
def test_s3_checksums_count_unless_they_are_composite(algorithm, digits):
    """Amazon S3 API, x-amz-checksum-type."""
    promise = (f"x-amz-checksum-{algorithm}", b64(digits))

    assert found(promise) == [f"{algorithm}:{digits}"]
    assert found(promise, ("x-amz-checksum-type", "FULL_OBJECT")) == [f"{algorithm}:{digits}"]
    assert found(("X-Amz-Checksum-Type", "COMPOSITE"), promise) == []
    assert found((promise[0], promise[1] + "-3")) == []


@pytest.mark.parametrize("algorithm", ["crc32c", "crc64nvme", "type", "mode", ""])
def test_s3_checksums_of_other_algorithms_are_skipped(algorithm):
    """Amazon S3 API."""
    assert found((f"x-amz-checksum-{algorithm}", b64(CRC32))) == []


@pytest.mark.parametrize("value", [f'"{MD5}"', MD5, f'"{MD5.upper()}"'])
def test_an_etag_is_an_md5_only_where_we_are_told_so(value):
    """interface.md, HTTP."""
    assert found(("ETag", value), etag_is_md5=True) == [f"md5:{MD5}"]
    assert found(("ETag", value)) == []


@pytest.mark.parametrize(
    "value", [f'W/"{MD5}"', f'"{MD5}', f'"{MD5}-3"', f'"{SHA1}"', f'"{b64(MD5)}"', '""', ""]
)
def test_another_etag_is_never_an_md5(value):
    """interface.md, HTTP."""
    assert found(("ETag", value), etag_is_md5=True) == []


@pytest.mark.parametrize("name", ["X-Static-Large-Object", "X-Object-Manifest"])
def test_the_etag_of_a_swift_large_object_is_not_the_md5_of_its_bytes(name):
    """Swift: Large Object Support."""
    assert found(("Etag", f'"{MD5}"'), (name, "True"), etag_is_md5=True) == []


def test_the_strongest_promise_comes_first_and_each_once():
    """The strongest is the one worth keeping."""
    promises = found(
        ("x-amz-checksum-crc32", b64(CRC32)),
        ("Content-MD5", b64(MD5)),
        ("Digest", f"sha={b64(SHA1)}"),
        ("X-Image-Meta-Checksum", MD5),
        ("Docker-Content-Digest", f"sha256:{SHA256}"),
        ("Repr-Digest", f"sha-512=:{b64(SHA512)}:"),
        ("Content-Digest", f"sha-256=:{b64(SHA256)}:"),
    )

    assert promises == [
        f"sha512:{SHA512}",
        f"sha256:{SHA256}",
        f"sha1:{SHA1}",
        f"md5:{MD5}",
        f"crc32:{CRC32}",
    ]


def test_promises_that_contradict_each_other_are_both_kept():
    """No bytes can be right then."""
    other = hashlib.md5(b"").hexdigest()

    assert found(("Content-MD5", MD5), ("X-Image-Meta-Checksum", other)) == [
        f"md5:{MD5}",
        f"md5:{other}",
    ]


def test_fields_that_promise_nothing_give_nothing():
    """interface.md, HTTP."""
    assert found(("Content-Type", MD5), ("X-Checksum", MD5), ("Content-MD5", "")) == []


NAMES = [
    *("Content-MD5", "X-Image-Meta-Checksum", "Repr-Digest", "Content-Digest", "Digest", "ETag"),
    *("Docker-Content-Digest", "X-Goog-Hash", "x-amz-checksum-crc32", "x-amz-checksum-sha256"),
]
VALUES = st.one_of(
    st.text(alphabet='sha-256md5=:"\\, +/Aa\xe9', max_size=40),
    st.text(max_size=20),
    st.sampled_from([MD5, b64(MD5), b64(SHA256), f"sha-256=:{b64(SHA256)}:", f"md5={b64(MD5)}"]),
)


@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=5))
def test_no_field_breaks_the_reader(headers):
    """A promise that cannot be read is no promise."""
    for promise in from_headers(headers, etag_is_md5=True):
        assert parse_checksum(str(promise)) == promise


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_several_digests_are_computed_at_once(chunks):
    """FIPS 180-4, RFC 1321, RFC 1952."""
    digests = Digests(checksum.ALGORITHMS)
    for chunk in chunks:
        digests.update(memoryview(chunk))
    data = b"".join(chunks)

    assert digests.hexdigests() == {
        "sha512": hashlib.sha512(data).hexdigest(),
        "sha384": hashlib.sha384(data).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "sha1": hashlib.sha1(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
        "crc32": f"{zlib.crc32(data):08x}",
    }


def test_the_digest_of_every_algorithm_is_as_long_as_the_table_says():
    """FIPS 180-4, RFC 1321, RFC 1952."""
    for algorithm, digits in Digests(checksum.ALGORITHMS).hexdigests().items():
        assert len(digits) == 2 * checksum.ALGORITHMS[algorithm]


def test_the_first_checksum_that_does_not_match_is_named():
    """design.md, promise 1."""
    digests = Digests(["md5", "sha256", "md5"])
    digests.update(DATA)
    good = [Checksum("sha256", SHA256), Checksum("md5", MD5)]
    bad = Checksum("md5", hashlib.md5(b"").hexdigest())

    assert digests.mismatch(good) is None
    assert digests.mismatch([]) is None
    assert digests.mismatch([good[0], bad, good[1]]) == bad


def test_a_checksum_that_is_not_computed_does_not_pass_as_right():
    """design.md, promise 1."""
    with pytest.raises(KeyError):
        Digests(["md5"]).mismatch([Checksum("sha1", SHA1)])


@pytest.mark.parametrize("algorithm", ["crc32c", "MD5", "shake_128", ""])
def test_an_algorithm_that_we_do_not_know_cannot_be_computed(algorithm):
    """interface.md, Python."""
    with pytest.raises(ValueError, match="is not one of sha512"):
        Digests([algorithm])
