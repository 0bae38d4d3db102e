"""The filter inside a real Glance, compared with the same Glance without it.

Both servers have one database and one store, so whatever a client is told
with the filter, it must be told without. Skipped where Glance is not
installed; ``CACHEMW_ENGINES=glance`` installs it.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3
import subprocess
import types

import pytest

from tests.engines.glance import install, run

BODY = os.urandom(3_000_000)

#: More than the sockets between a server and its client hold.
LARGE = os.urandom(2**20) * 32

#: Fields that are about the image, so that they are the same from the cache.
FIELDS = ("content-type", "content-length", "content-range", "content-md5")


@dataclasses.dataclass(frozen=True)
class User:
    """Somebody of a project, with roles."""

    project: str
    roles: str = "member-reader"

    @property
    def token(self):
        return f"{self.project}.{self.project}-user.{self.roles}"

    @property
    def header(self):
        return ("X-Auth-Token", self.token)


OWNER = User("alice")
STRANGER = User("bob")
ADMIN = User("operators", "admin-member-reader")


@pytest.fixture(scope="module")
def glance(tmp_path_factory):
    reason = install.missing()
    if reason is not None:
        if not install.is_wanted():
            pytest.skip(reason)
        install.install()
    with run.running(tmp_path_factory.mktemp("glance")) as servers:
        yield servers


def ask(server, method, target, who, document=None, media_type="application/json"):
    """Make a change through the API; it must succeed."""
    body = b"" if document is None else json.dumps(document).encode()
    reply = server.request(
        target, who.header, ("Content-Type", media_type), method=method, body=body
    )
    assert 200 <= reply.status < 300, reply
    return json.loads(reply.body) if reply.body else None


def create(glance, owner=OWNER, **properties):
    """Make an image that has no bytes yet, and give its id."""
    document = {"name": "disk", "disk_format": "raw", "container_format": "bare"}
    document |= {"visibility": "private", **properties}
    return ask(glance.cached, "POST", "/v2/images", owner, document)["id"]


def upload(glance, image_id, who=OWNER, body=BODY):
    reply = glance.cached.request(
        file_of(image_id),
        who.header,
        ("Content-Type", "application/octet-stream"),
        method="PUT",
        body=body,
    )
    assert reply.status == 204, reply


def cached_image(glance, owner=OWNER, body=BODY, **properties):
    """Make an image whose copy is in the cache, and give its id."""
    image_id = create(glance, owner, **properties)
    upload(glance, image_id, owner, body)
    assert download(glance.cached, image_id, owner).cache_status == "fwd=uri-miss; stored"
    assert download(glance.cached, image_id, owner).cache_status == "hit"
    return image_id


def file_of(image_id):
    return f"/v2/images/{image_id}/file"


def download(server, image_id, who, *headers, method="GET", query=""):
    reply = server.request(file_of(image_id) + query, who.header, *headers, method=method)
    assert reply.complete
    return reply


def same(glance, image_id, who, *headers, **options):
    """Ask both servers the same, see that no client can tell them apart, and give the answer."""
    cached = download(glance.cached, image_id, who, *headers, **options)
    plain = download(glance.plain, image_id, who, *headers, **options)
    assert cached.status == plain.status
    assert cached.body == plain.body
    # Glance puts the MD5 of the whole image on a part.
    fields = [name for name in FIELDS if (name, plain.status) != ("content-md5", 206)]
    assert [cached.headers.get(name) for name in fields] == [
        plain.headers.get(name) for name in fields
    ]
    return cached


def is_hit(reply):
    return reply.cache_status.split(";")[0] == "hit"


def patch(glance, image_id, who, **properties):
    ask(
        glance.cached,
        "PATCH",
        f"/v2/images/{image_id}",
        who,
        [
            {"op": "replace", "path": f"/{name}", "value": value}
            for name, value in properties.items()
        ],
        "application/openstack-images-v2.1-json-patch",
    )


def rewrite_record(glance, image_id, **columns):
    """Change what Glance's database says about an image."""
    names = ", ".join(f"{name} = ?" for name in columns)
    with contextlib.closing(sqlite3.connect(glance.work / "glance.sqlite")) as database, database:
        changed = database.execute(
            f"UPDATE images SET {names} WHERE id = ?", (*columns.values(), image_id)
        )
        assert changed.rowcount == 1


# Downloads


def test_image_without_bytes_is_not_stored_and_is_stored_once_it_has_them(glance):
    image_id = create(glance)

    assert same(glance, image_id, OWNER).status == 204
    assert not glance.copy(image_id).exists()

    upload(glance, image_id)
    assert same(glance, image_id, OWNER).cache_status == "fwd=uri-miss; stored"
    assert is_hit(same(glance, image_id, OWNER))


def test_copy_was_compared_with_the_strongest_checksum_of_the_record(glance):
    """Glance's answer has the MD5 only."""
    image_id = cached_image(glance)

    reply = same(glance, image_id, OWNER)

    assert reply.body == glance.copy(image_id).read_bytes() == BODY
    assert reply.headers["etag"] == f'"sha512:{hashlib.sha512(BODY).hexdigest()}"'


def test_image_that_differs_from_its_record_is_not_completed_and_not_stored(glance):
    image_id = create(glance)
    upload(glance, image_id)
    rewrite_record(glance, image_id, os_hash_value=hashlib.sha512(b"other").hexdigest())

    reply = glance.cached.request(file_of(image_id), OWNER.header)

    assert (reply.status, reply.complete) == (200, False)
    assert not glance.copy(image_id).exists()


@pytest.mark.parametrize("value", ["0-0", "5-9", "1000-", "-7", f"0-{len(BODY) * 2}"])
def test_range_comes_from_the_cache(glance, ranged_image, value):
    reply = same(glance, ranged_image, OWNER, ("Range", f"bytes={value}"))

    assert reply.status == 206
    assert is_hit(reply)


def test_range_beyond_the_image_is_refused(glance, ranged_image):
    field = ("Range", f"bytes={len(BODY)}-")

    replies = [
        download(server, ranged_image, OWNER, field) for server in (glance.cached, glance.plain)
    ]

    assert [reply.status for reply in replies] == [416, 416]


def test_request_with_content_range_is_glances_to_answer(glance, ranged_image):
    """Glance still takes it for Range."""
    field = ("Content-Range", f"bytes 5-9/{len(BODY)}")

    reply = same(glance, ranged_image, OWNER, field)

    assert reply.status == 206
    assert not is_hit(reply)


@pytest.fixture(scope="module")
def ranged_image(glance):
    return cached_image(glance)


def test_range_that_is_not_cached_comes_from_glance_and_is_not_stored(glance):
    image_id = create(glance)
    upload(glance, image_id)

    reply = same(glance, image_id, OWNER, ("Range", "bytes=5-9"))

    assert (reply.status, reply.body) == (206, BODY[5:10])
    assert not glance.copy(image_id).exists()


def test_copy_is_served_when_the_store_has_lost_the_image(glance):
    image_id = cached_image(glance)
    glance.backend_file(image_id).unlink()

    whole = download(glance.cached, image_id, OWNER)
    part = download(glance.cached, image_id, OWNER, ("Range", "bytes=-100"))

    assert download(glance.plain, image_id, OWNER).status == 204
    assert (whole.status, whole.body) == (200, BODY)
    assert (part.status, part.body) == (206, BODY[-100:])


def test_head_of_a_cached_image_is_refused_as_glance_does(glance):
    image_id = cached_image(glance)

    assert same(glance, image_id, OWNER, method="HEAD").status == 405


def test_unknown_image_is_not_found(glance):
    assert same(glance, "7ab0a2f6-0bd4-4c36-9d3e-8b6f2d1f0c11", OWNER).status == 404


def test_first_api_is_answered_by_glance(glance):
    image_id = cached_image(glance)

    replies = [
        server.request(f"/v1/images/{image_id}", OWNER.header)
        for server in (glance.cached, glance.plain)
    ]

    assert [reply.status for reply in replies] == [300, 300]


# Who may have it


def test_request_without_a_token_is_refused(glance):
    image_id = cached_image(glance, ADMIN, visibility="public")
    nobody = User("nobody.at.all")

    assert same(glance, image_id, nobody).status == 401


def test_private_image_is_for_its_own_project_and_administrators(glance):
    image_id = cached_image(glance)

    assert same(glance, image_id, STRANGER).status == 404
    assert is_hit(same(glance, image_id, OWNER))
    assert is_hit(same(glance, image_id, ADMIN))


def test_refusal_does_not_harm_the_copy(glance):
    image_id = cached_image(glance)

    assert not is_hit(same(glance, image_id, STRANGER))

    assert is_hit(same(glance, image_id, OWNER))


@pytest.mark.parametrize(
    ("visibility", "status"),
    [("public", 200), ("community", 200), ("shared", 404), ("private", 404)],
)
def test_visibility_decides_about_another_project(glance, visibility, status):
    image_id = cached_image(glance, ADMIN, visibility=visibility)

    reply = same(glance, image_id, STRANGER)

    assert reply.status == status
    assert is_hit(reply) == (status == 200)


def test_change_of_visibility_counts_at_the_next_request(glance):
    image_id = cached_image(glance, ADMIN, visibility="public")
    assert is_hit(same(glance, image_id, STRANGER))

    patch(glance, image_id, ADMIN, visibility="private")
    assert same(glance, image_id, STRANGER).status == 404

    patch(glance, image_id, ADMIN, visibility="community")
    assert is_hit(same(glance, image_id, STRANGER))


def test_member_may_have_a_shared_image_until_removed(glance):
    image_id = cached_image(glance, visibility="shared")
    members = f"/v2/images/{image_id}/members"
    assert same(glance, image_id, STRANGER).status == 404

    ask(glance.cached, "POST", members, OWNER, {"member": STRANGER.project})
    for status in ("pending", "accepted", "rejected", "accepted"):
        ask(glance.cached, "PUT", f"{members}/{STRANGER.project}", STRANGER, {"status": status})
        reply = same(glance, image_id, STRANGER)
        assert is_hit(reply) == (reply.status == 200)
    assert is_hit(reply)
    assert same(glance, image_id, User("carol")).status == 404

    ask(glance.cached, "DELETE", f"{members}/{STRANGER.project}", OWNER)
    assert same(glance, image_id, STRANGER).status == 404


def test_policy_about_roles_is_asked_at_every_hit(glance):
    image_id = cached_image(glance)
    trusted = User(OWNER.project, "member-reader-downloader")

    with glance.policy(download_image="role:downloader"):
        assert same(glance, image_id, OWNER).status == 403
        assert is_hit(same(glance, image_id, trusted))

    assert is_hit(same(glance, image_id, OWNER))


def test_policy_about_properties_sees_those_of_the_image(glance):
    exported = cached_image(glance, exported="yes")
    other = cached_image(glance, exported="no")

    with glance.policy(download_image="'yes':%(exported)s"):
        assert is_hit(same(glance, exported, OWNER))
        assert same(glance, other, OWNER).status == 403


def test_policy_about_properties_does_not_see_what_the_client_may_not(glance):
    """Glance hides a protected property before it asks the policy."""
    image_id = cached_image(glance, ADMIN, visibility="public", hidden_exported="yes")

    with glance.policy(download_image="'yes':%(hidden_exported)s"):
        assert is_hit(same(glance, image_id, ADMIN))
        assert same(glance, image_id, STRANGER).status == 403


def test_image_that_the_policy_hides_is_not_found(glance):
    image_id = cached_image(glance)

    with glance.policy(get_image="role:admin", download_image="role:admin"):
        assert same(glance, image_id, OWNER).status == 404
        assert is_hit(same(glance, image_id, ADMIN))


def test_preferred_store_is_no_part_of_the_key(glance):
    image_id = cached_image(glance)

    assert is_hit(same(glance, image_id, OWNER, query="?prefer=second"))
    assert is_hit(same(glance, image_id, OWNER, query="?prefer=,&x=y"))


def test_preferred_store_must_be_there_and_allowed(glance):
    image_id = cached_image(glance)

    assert same(glance, image_id, OWNER, query="?prefer=third").status == 400
    with glance.policy(download_from_store="role:admin"):
        assert same(glance, image_id, OWNER, query="?prefer=second").status == 403
        assert is_hit(same(glance, image_id, OWNER))


def test_image_on_its_way_into_the_cache_is_for_those_who_may_have_it(glance):
    image_id = create(glance)
    upload(glance, image_id, body=LARGE)

    with half_way(glance, image_id) as first:
        assert same(glance, image_id, STRANGER).status == 404
        assert same(glance, image_id, OWNER).body == LARGE

    assert first.body == LARGE
    assert is_hit(same(glance, image_id, OWNER))


@contextlib.contextmanager
def half_way(glance, image_id):
    """Be in the midst of a download that fills the cache; gives what its client got in the end.

    It is read to its end when the block is left.
    """
    reply = types.SimpleNamespace(body=None)
    client = glance.cached.begin(file_of(image_id), OWNER.header)
    with contextlib.closing(client):
        status, headers = client.read_head()
        assert (status, headers["cache-status"]) == (200, "cachemw; fwd=uri-miss; stored")
        start = client.read(2**16)
        assert not glance.copy(image_id).exists()
        yield reply
        reply.body = start + client.read(len(LARGE) - len(start))


# Changes


def test_deactivated_image_is_for_administrators_and_comes_back_with_its_copy(glance):
    image_id = cached_image(glance)
    actions = f"/v2/images/{image_id}/actions"

    ask(glance.cached, "POST", f"{actions}/deactivate", ADMIN)
    assert same(glance, image_id, OWNER).status == 403
    assert same(glance, image_id, OWNER, ("Range", "bytes=5-9")).status == 403
    by_admin = same(glance, image_id, ADMIN)
    assert (by_admin.status, is_hit(by_admin)) == (200, False)

    ask(glance.cached, "POST", f"{actions}/reactivate", ADMIN)
    assert is_hit(same(glance, image_id, OWNER))


def test_download_of_a_deactivated_image_opens_it_to_nobody_else(glance):
    image_id = create(glance)
    upload(glance, image_id)
    ask(glance.cached, "POST", f"/v2/images/{image_id}/actions/deactivate", ADMIN)

    assert same(glance, image_id, ADMIN).status == 200

    assert same(glance, image_id, OWNER).status == 403


def test_deleting_an_image_removes_its_copy(glance):
    image_id = cached_image(glance)

    ask(glance.cached, "DELETE", f"/v2/images/{image_id}", OWNER)

    assert not glance.copy(image_id).exists()
    assert same(glance, image_id, OWNER).status == 404


def test_image_deleted_on_its_way_into_the_cache_is_not_stored(glance):
    image_id = create(glance)
    upload(glance, image_id, body=LARGE)

    with half_way(glance, image_id):
        ask(glance.cached, "DELETE", f"/v2/images/{image_id}", OWNER)

    assert not glance.copy(image_id).exists()
    assert same(glance, image_id, OWNER).status == 404


def test_image_deleted_on_another_node_is_not_found(glance):
    image_id = cached_image(glance)

    ask(glance.plain, "DELETE", f"/v2/images/{image_id}", OWNER)

    assert glance.copy(image_id).exists()
    assert same(glance, image_id, OWNER).status == 404
    assert same(glance, image_id, ADMIN).status == 404


def test_refused_deletion_keeps_the_copy(glance):
    image_id = cached_image(glance, ADMIN, visibility="public")

    reply = glance.cached.request(f"/v2/images/{image_id}", STRANGER.header, method="DELETE")

    assert reply.status == 403
    assert is_hit(same(glance, image_id, STRANGER))


@pytest.mark.parametrize("body", [os.urandom(len(BODY)), BODY[:-1]], ids=["bytes", "size"])
def test_copy_of_what_the_image_was_before_is_replaced(glance, body):
    """Its locations may be changed under one id."""
    image_id = cached_image(glance)
    glance.backend_file(image_id).write_bytes(body)
    rewrite_record(
        glance,
        image_id,
        size=len(body),
        checksum=hashlib.md5(body, usedforsecurity=False).hexdigest(),
        os_hash_value=hashlib.sha512(body).hexdigest(),
    )

    first = same(glance, image_id, OWNER)
    second = same(glance, image_id, OWNER)

    assert first.body == second.body == body
    assert [is_hit(first), is_hit(second)] == [False, True]


def test_copy_from_glances_own_cache_is_compared_before_it_is_served(glance):
    good, damaged = create(glance), create(glance)
    for image_id, content in ((good, BODY), (damaged, BODY[::-1])):
        upload(glance, image_id)
        glance.copy(image_id).write_bytes(content)

    assert same(glance, good, STRANGER).status == 404
    assert same(glance, good, OWNER).cache_status == "hit; detail=adopted"
    assert same(glance, damaged, OWNER).cache_status == "fwd=uri-miss; stored"
    assert [is_hit(same(glance, image_id, OWNER)) for image_id in (good, damaged)] == [True, True]


# Clients that people use


def test_command_line_client_downloads_through_the_cache(glance, tmp_path):
    image_id = cached_image(glance)
    glance.backend_file(image_id).unlink()

    subprocess.run(
        [
            install.program("glance"),
            *("--os-auth-token", OWNER.token, "--os-image-url", url(glance)),
            *("image-download", "--file", tmp_path / "disk", image_id),
        ],
        env={**os.environ, "HOME": str(tmp_path)},
        check=True,
        timeout=run.PATIENCE,
    )

    assert (tmp_path / "disk").read_bytes() == BODY


def test_sdk_downloads_through_the_cache(glance, tmp_path):
    """It compares the bytes with the image's checksum."""
    image_id = cached_image(glance)
    glance.backend_file(image_id).unlink()

    code = (
        "import openstack, sys\n"
        "url, token, image_id, path = sys.argv[1:]\n"
        "cloud = openstack.connect(\n"
        "    load_yaml_config=False, load_envvars=False, auth_type='admin_token',\n"
        "    auth={'endpoint': url, 'token': token},\n"
        "    image_endpoint_override=url, image_api_version='2')\n"
        "cloud.image.download_image(image_id, output=path)\n"
    )
    subprocess.run(
        [
            install.program("python"),
            "-c",
            code,
            url(glance),
            OWNER.token,
            image_id,
            tmp_path / "disk",
        ],
        check=True,
        timeout=run.PATIENCE,
    )

    assert (tmp_path / "disk").read_bytes() == BODY


def url(glance):
    host, port = glance.cached.address
    return f"http://{host}:{port}"
