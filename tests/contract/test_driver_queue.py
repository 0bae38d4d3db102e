"""What is known of queued images, and who fetches them, over every driver."""

import json
import os
import time
from pathlib import Path

import pytest

from cachemw import names
from cachemw.drivers.queued import Note

from .drivers import store

ODD = "a/b"


def queue_of(driver):
    return Path(driver.directory) / "queue"


def note_of(driver, image_id):
    return queue_of(driver) / f".{names.entry_name(image_id)}.json"


def described(driver):
    return {queued["image_id"]: queued for queued in driver.get_queue()}


def fail(driver, image_id, **fields):
    claim = driver.claim_queued(image_id)
    claim.keep(Note(**fields))
    claim.close()


@pytest.mark.parametrize("image_id", ["cat", ODD, "\ud800"])
def test_the_url_is_kept_and_nothing_where_there_is_none(make_driver, image_id):
    driver = make_driver()
    before = time.time()
    driver.queue_image(image_id, "http://host/a%20b?c")
    driver.queue_image("plain")
    driver = make_driver()

    first, second = driver.get_queue()
    assert before - 1 < first.pop("queued") < time.time() + 1
    assert first == {
        "image_id": image_id,
        "url": "http://host/a%20b?c",
        "tries": 0,
        "after": 0.0,
        "reason": "",
        "set_aside": False,
        "fetching": False,
    }
    assert second["url"] is None
    assert not note_of(driver, "plain").exists()
    assert note_of(driver, image_id).stat().st_mode & 0o777 == 0o600


def test_a_note_replaces_the_one_before(make_driver):
    driver = make_driver()
    driver.queue_image(ODD, "http://host/x")
    fail(driver, ODD, url="http://host/x", tries=2, after=12.5, reason="gone \ud800")

    queued = described(make_driver())[ODD]
    assert (queued["tries"], queued["after"], queued["reason"]) == (2, 12.5, "gone \ud800")
    assert sorted(os.listdir(queue_of(driver))) == sorted(
        [names.entry_name(ODD), note_of(driver, ODD).name]
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff",
        b"[" * 10_000,
        b'{"url": 5, "tries": -1, "after": "x", "reason": 1, "set_aside": 1}',
        b'{"tries": true, "after": NaN}',
        b'{"after": 1e999}',
    ],
)
def test_a_note_that_is_none_says_nothing(driver, content):
    driver.queue_image("cat")
    note_of(driver, "cat").write_bytes(content)

    queued = described(driver)["cat"]
    blank = Note()
    assert (queued["url"], queued["tries"], queued["after"]) == (None, 0, 0.0)
    assert (queued["reason"], queued["set_aside"]) == (blank.reason, blank.set_aside)


def test_a_note_that_is_a_link_is_not_followed(driver, victim):
    driver.queue_image("cat")
    note_of(driver, "cat").symlink_to(victim)
    fail(driver, "cat", tries=1)

    assert described(driver)["cat"]["tries"] == 1


def test_what_was_set_aside_waits_no_more_but_is_listed(driver):
    driver.queue_image("cat")
    driver.queue_image("dog")
    fail(driver, "cat", tries=2, reason="no", set_aside=True)

    assert driver.get_queued_images() == ["dog"]
    assert not driver.is_queued("cat")
    assert described(driver)["cat"]["set_aside"] is True
    assert driver.delete_queued_image("cat") is True
    assert os.listdir(queue_of(driver)) == ["dog"]


def test_queueing_what_was_set_aside_begins_anew_at_the_end(driver):
    for image_id in ("cat", "dog"):
        driver.queue_image(image_id, f"http://host/{image_id}")
    fail(driver, "cat", url="http://host/cat", tries=5, after=1.0, reason="no", set_aside=True)

    assert driver.queue_image("cat", anew=False) is False
    assert not driver.is_queued("cat")
    assert driver.queue_image("cat") is True
    assert driver.get_queued_images() == ["dog", "cat"]
    cat = described(driver)["cat"]
    assert (cat["url"], cat["tries"], cat["after"]) == ("http://host/cat", 0, 0.0)
    assert cat["reason"] == ""


def test_who_fetches_an_image_is_alone(make_driver):
    one, two = make_driver(), make_driver()
    for image_id in ("cat", ODD):
        one.queue_image(image_id)
        claim = one.claim_queued(image_id)

        assert one.claim_queued(image_id) is None
        assert two.claim_queued(image_id) is None
        assert described(two)[image_id]["fetching"] is True
        claim.close()
        claim.close()
        assert described(two)[image_id]["fetching"] is False
        two.claim_queued(image_id).close()
    assert one.claim_queued("dog") is None


def test_the_end_of_who_fetches_it_frees_an_image(make_driver, start_python):
    driver = make_driver()
    driver.queue_image("cat")
    code = (
        "import importlib, sys, time\n"
        "driver = importlib.import_module(sys.argv[1]).Driver(sys.argv[2])\n"
        "driver.configure()\n"
        "claim = driver.claim_queued('cat')\n"
        "print('claimed', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = start_python(code, type(driver).__module__, driver.directory)
    assert process.stdout.readline() == "claimed\n"
    assert driver.claim_queued("cat") is None

    process.kill()
    process.wait()
    driver.claim_queued("cat").close()


def test_a_child_does_not_keep_what_its_parent_claimed(driver):
    driver.queue_image("cat")
    claim = driver.claim_queued("cat")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        os.close(reading)
        claim.close()
        deadline = time.monotonic() + 10
        again = driver.claim_queued("cat")
        while again is None and time.monotonic() < deadline:
            time.sleep(0.01)
            again = driver.claim_queued("cat")
        assert again is not None
        again.close()
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_a_claim_of_what_was_queued_anew_is_of_the_old_one(driver):
    driver.queue_image("cat")
    claim = driver.claim_queued("cat")
    driver.delete_queued_image("cat")
    driver.queue_image("cat", "http://host/new")
    claim.keep(Note(reason="old"))
    claim.remove()

    assert described(driver)["cat"]["url"] == "http://host/new"
    driver.claim_queued("cat").close()
    claim.close()


def test_a_commit_takes_the_note_too(driver):
    driver.queue_image(ODD, "http://host/x")
    fail(driver, ODD, url="http://host/x", tries=1, reason="no")
    store(driver, ODD)

    assert os.listdir(queue_of(driver)) == []


def test_emptying_the_queue_takes_the_notes_and_counts_the_images(driver):
    for image_id in ("cat", ODD):
        driver.queue_image(image_id, "http://host/x")

    assert driver.delete_all_queued_images() == 2
    assert os.listdir(queue_of(driver)) == []


def test_cleaning_removes_only_old_notes_of_nothing(driver):
    driver.queue_image("cat", "http://host/cat")
    old = time.time() - 7200
    for name in (".gone.json", ".cat.json.12ab", ".cat.json"):
        (queue_of(driver) / name).touch()
        os.utime(queue_of(driver) / name, (old, old))
    (queue_of(driver) / ".new.json").write_text(json.dumps({"url": "x"}))
    driver.clean()

    assert sorted(os.listdir(queue_of(driver))) == [".cat.json", ".new.json", "cat"]


def test_the_state_is_another_after_each_change(driver):
    states = [driver.queue_state()]
    for change in (
        lambda: driver.queue_image("cat"),
        lambda: fail(driver, "cat", tries=1),
        lambda: driver.delete_queued_image("cat"),
    ):
        assert driver.queue_state() == states[-1]
        time.sleep(0.02)  # the file system's stamps are not finer
        change()
        states.append(driver.queue_state())
    assert len(set(states)) == 4
