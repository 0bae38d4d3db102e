"""Any sequence of operations, on two instances, compared with a few dictionaries."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cachemw import names
from cachemw.drivers.base import Record
from cachemw.errors import DriverError, FillUnderWay, ImageCorrupt, ImageNotFound

from .drivers import LONG_HEADERS, assert_sound, open_driver, path_of, sha256

IDS = st.sampled_from(
    [
        "cat",
        "a/b",
        "../../etc/passwd",
        "incomplete",
        "cache.db-wal",
        "nul\0\n",
        "x" * 2000,
        names.entry_name("a/b"),
        "\ud83d\ude00",
        "\U0001f600",
    ]
)
BODIES = st.binary(max_size=60)
WHICH = st.integers(0, 1)


class Killed(BaseException):
    """The process dies here."""


class Image:
    """What the model knows of a stored image."""

    def __init__(self, body, headers):
        self.body = body
        self.headers = headers
        self.hits = 0
        #: Seconds since the epoch; ``None``: only the driver knows.
        self.accessed = None


class DriverMachine(RuleBasedStateMachine):
    driver_name = ""

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="cachemw-model-")) / "cache"
        self.drivers = []
        self.images: dict[str, Image] = {}
        self.fills = {}
        self.abandoned: dict[str, int] = {}
        #: Of those, the bytes of which somebody can go on with.
        self.partial: dict[str, bytes] = {}
        #: Of fills under way, what was kept of an earlier one, and whether others know it.
        self.known: dict[str, tuple[bytes, bool]] = {}
        self.invalid: dict[str, int] = {}
        self.queue: list[str] = []

    @initialize()
    def open(self):
        self.drivers = [self.new_driver() for _ in range(2)]

    def new_driver(self):
        return open_driver(self.driver_name, self.directory, durability="none")

    def teardown(self):
        for sink, _ in self.fills.values():
            sink.rollback("the test is over")
        for driver in self.drivers:
            driver.close()
        shutil.rmtree(self.directory.parent)

    def flush(self):
        for driver in self.drivers:
            driver.flush_hits()

    # Fills

    @rule(
        which=WHICH,
        image_id=IDS,
        body=BODIES,
        reserved=st.integers(0, 100),
        announce=st.sampled_from(["keep", "anew", ""]),
    )
    def begin(self, which, image_id, body, reserved, announce):
        driver = self.drivers[which]
        if image_id in self.fills:
            with pytest.raises(FillUnderWay):
                driver.start_fill(image_id)
            return
        sink = driver.start_fill(image_id)
        self.abandoned.pop(image_id, None)
        kept = self.partial.pop(image_id, b"")
        if kept:
            assert sink.kept.parts == ((0, len(kept)),)
            assert sink.pread(100, 0) == kept
        else:
            assert sink.kept is None
        sink.reserve(reserved)
        if announce:
            sink.announce(Record(image_id, 0, ""), 200, keep=announce == "keep")
        if announce != "keep" and (announce or body):
            kept = b""
        sink.write(body[:7])
        sink.write(body[7:])
        #: Without a word about it, what was kept stays until something is written.
        self.fills[image_id] = sink, kept + body
        self.known[image_id] = kept, bool(announce or kept)

    def record(self, image_id, long):
        _, body = self.fills[image_id]
        checksum = f"sha256:{sha256(body)}"
        return Record(image_id, len(body), checksum, LONG_HEADERS if long else ())

    @precondition(lambda self: self.fills)
    @rule(data=st.data(), long=st.booleans(), killed=st.booleans())
    def commit(self, data, long, killed):
        image_id = data.draw(st.sampled_from(sorted(self.fills)))
        record = self.record(image_id, long)
        sink, body = self.fills.pop(image_id)
        if killed:
            driver = sink._driver
            with (
                mock.patch.object(driver, "_entered", side_effect=Killed),
                mock.patch.object(driver.lock, "_repair", side_effect=OSError),
                pytest.raises(Killed),
            ):
                sink.commit(record)
            driver.get_usage()  # the next holder of the lock
        else:
            sink.commit(record)
        image = Image(body, record.headers)
        if image_id in self.images:
            image.hits = self.images[image_id].hits
        if not killed:
            image.accessed = time.time()
            if image_id in self.queue:
                self.queue.remove(image_id)
        self.images[image_id] = image
        if killed and self.queue and image_id in self.queue:
            self.drivers[0].delete_queued_image(image_id)
            self.queue.remove(image_id)

    @precondition(lambda self: self.fills)
    @rule(data=st.data(), keep=st.booleans())
    def roll_back(self, data, keep):
        image_id = data.draw(st.sampled_from(sorted(self.fills)))
        sink, body = self.fills.pop(image_id)
        sink.rollback("the reason", keep=keep)
        self.invalid[image_id] = len(body) if keep else 0

    @precondition(lambda self: self.fills)
    @rule(data=st.data())
    def die(self, data):
        image_id = data.draw(st.sampled_from(sorted(self.fills)))
        sink, _ = self.fills.pop(image_id)
        self.abandoned[image_id] = os.fstat(sink.fd).st_size
        kept, _ = self.known[image_id]
        if kept:
            # The rest has no checksum before its chunk is whole.
            self.partial[image_id] = kept
        sink.forget_parent()

    @precondition(lambda self: self.fills)
    @rule(data=st.data(), declined=st.sampled_from(["", "", "no-store"]))
    def leave(self, data, declined):
        image_id = data.draw(st.sampled_from(sorted(self.fills)))
        sink, body = self.fills.pop(image_id)
        _, is_announced = self.known[image_id]
        sink.leave(declined)
        if body and is_announced and not declined:
            self.partial[image_id] = body
            self.abandoned[image_id] = len(body)

    # Reading and removing

    @rule(which=WHICH, image_id=IDS)
    def hit(self, which, image_id):
        driver = self.drivers[which]
        if image_id not in self.images:
            with pytest.raises(ImageNotFound):
                driver.open_for_read(image_id)
            return
        image = self.images[image_id]
        with driver.open_for_read(image_id) as entry:
            assert entry.read() == image.body
            assert entry.record.headers == image.headers
        image.accessed = time.time()
        image.hits += 1
        driver.record_hit(image_id, image.accessed)

    @rule(which=WHICH, image_id=IDS)
    def delete(self, which, image_id):
        self.flush()
        existed = self.images.pop(image_id, None) is not None
        assert self.drivers[which].delete_cached_image(image_id) is existed
        self.abandoned.pop(image_id, None)
        self.partial.pop(image_id, None)
        if image_id in self.fills:
            record = self.record(image_id, long=True)
            sink, _ = self.fills.pop(image_id)
            with pytest.raises(DriverError, match="deleted"):
                sink.commit(record)

    @rule(which=WHICH)
    def delete_all(self, which):
        self.flush()
        assert self.drivers[which].delete_all_cached_images() == len(self.images)
        self.images.clear()

    @rule(which=WHICH, image_id=IDS)
    def invalidate(self, which, image_id):
        self.flush()
        self.drivers[which].invalidate(image_id, "the reason")
        image = self.images.pop(image_id, None)
        if image is not None:
            self.invalid[image_id] = len(image.body)

    @precondition(lambda self: any(image.body for image in self.images.values()))
    @rule(which=WHICH, data=st.data())
    def damage(self, which, data):
        self.flush()
        damaged = sorted(image_id for image_id, image in self.images.items() if image.body)
        image_id = data.draw(st.sampled_from(damaged))
        body = self.images.pop(image_id).body
        os.truncate(path_of(self.drivers[which], image_id), len(body) - 1)
        # A file that is damaged by hand takes its record aside with it.
        aside = (self.directory / ".records" / names.entry_name(image_id)).exists()
        expected = ImageNotFound if aside and image_id != "cat" else ImageCorrupt
        if aside and image_id == "cat":
            with self.drivers[which].open_for_read(image_id) as entry:
                assert entry.record is None
            self.drivers[which].invalidate(image_id, "the reason")
        else:
            with pytest.raises(expected):
                self.drivers[which].open_for_read(image_id)
        self.invalid[image_id] = len(body) - 1

    @rule(which=WHICH, wanted=st.integers(0, 150))
    def evict(self, which, wanted):
        self.flush()
        debris = {**{("invalid", i): size for i, size in self.invalid.items()}}
        debris.update({("abandoned", i): size for i, size in self.abandoned.items()})
        reasons = self.reasons()
        count, freed = self.drivers[which].evict(wanted)
        left = {image["image_id"] for image in self.drivers[which].get_cached_images()}
        gone = {i: self.images.pop(i) for i in set(self.images) - left}
        assert len(gone) == count
        for evicted in gone.values():
            for image in self.images.values():
                if evicted.accessed is not None and image.accessed is not None:
                    assert evicted.accessed <= image.accessed
        self.forget_debris()
        kept = sum(self.invalid.values()) + sum(self.abandoned.values())
        sizes = [len(image.body) for image in gone.values()]
        reasons -= self.reasons()
        assert freed == sum(sizes) + sum(debris.values()) - kept + reasons
        if gone:
            assert kept == 0
            assert freed - max(sizes) < wanted
        assert freed >= wanted or not any(image.body for image in self.images.values())

    def reasons(self):
        """Bytes of reasons that stand beside what failed: those of long ids fit no attribute."""
        return sum(path.stat().st_size for path in (self.directory / "invalid").glob(".*.reason"))

    def forget_debris(self):
        """Leave to the driver which of the failed and abandoned fills went."""
        there = {image["image_id"] for image in self.drivers[0].get_invalid_images()}
        self.invalid = {i: size for i, size in self.invalid.items() if i in there}
        self.abandoned = {
            image_id: size
            for image_id, size in self.abandoned.items()
            if path_of(self.drivers[0], image_id, "incomplete").exists()
        }
        self.partial = {i: body for i, body in self.partial.items() if i in self.abandoned}

    @rule(which=WHICH)
    def clean(self, which):
        cleaned = self.drivers[which].clean(stall_time=0)
        assert cleaned == len(self.invalid) + len(self.abandoned)
        self.invalid.clear()
        self.abandoned.clear()
        self.partial.clear()

    # Queue

    @rule(which=WHICH, image_id=IDS)
    def put_in_queue(self, which, image_id):
        fits = not (image_id in self.images or image_id in self.fills or image_id in self.queue)
        assert self.drivers[which].queue_image(image_id) is fits
        if fits:
            self.queue.append(image_id)

    @rule(which=WHICH, image_id=IDS)
    def take_from_queue(self, which, image_id):
        assert self.drivers[which].delete_queued_image(image_id) is (image_id in self.queue)
        if image_id in self.queue:
            self.queue.remove(image_id)

    # Life

    @precondition(lambda self: not self.fills)
    @rule(which=WHICH)
    def reopen(self, which):
        self.drivers[which].close()
        self.drivers[which] = self.new_driver()

    @rule(name=st.sampled_from(["cache.db", ".lock"]))
    def lose(self, name):
        """Delete what can be made again."""
        self.flush()
        if name == "cache.db" and self.driver_name == "sqlite":
            for image in self.images.values():
                image.hits, image.accessed = 0, None
        (self.directory / name).unlink(missing_ok=True)

    @invariant()
    def directory_is_as_modelled(self):
        if not self.drivers:
            return
        self.flush()
        for driver in self.drivers:
            listed = driver.get_cached_images()
            assert [image["image_id"] for image in listed] == sorted(self.images)
            assert [(image["size"], image["hits"]) for image in listed] == [
                (len(image.body), image.hits) for _, image in sorted(self.images.items())
            ]
            assert driver.get_queued_images() == self.queue
            found = {image["image_id"]: image["size"] for image in driver.get_invalid_images()}
            assert found == self.invalid
            partial = {i["image_id"]: i["size"] for i in driver.get_partial_images()}
            assert partial == {i: len(body) for i, body in self.partial.items()}
            assert all(driver.is_being_cached(image_id) for image_id in self.fills)
        assert_sound(self.drivers[0])


def test_driver_behaves_like_a_dictionary(driver_name):
    machine = type("Machine", (DriverMachine,), {"driver_name": driver_name})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.stress
def test_driver_behaves_like_a_dictionary_for_long(driver_name):
    machine = type("Machine", (DriverMachine,), {"driver_name": driver_name})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=1000,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
