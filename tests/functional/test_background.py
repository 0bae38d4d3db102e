"""What a filter does beside its requests begins and ends when it should."""

import gc
import threading
import time

import pytest

from cachemw import CacheFilter
from cachemw.core.targets import OWN_REQUEST
from cachemw.web.background import Background
from tests.fakes import FakeOrigin
from tests.waiting import wait_until
from tests.wsgi import get

BODY = b"image" * 1000
URL = "/cat.img"


#: Threads of other tests' filters.
others = set()


@pytest.fixture(autouse=True)
def only_own():
    others.clear()
    others.update(threading.enumerate())


def threads(name="cachemw-prefetch"):
    return [t for t in threading.enumerate() if t.name == name and t not in others]


@pytest.fixture
def origin():
    return FakeOrigin({f"/{number}.img": BODY for number in range(20)})


@pytest.fixture
def make(tmp_path, origin, driver_name):
    """Give filters; what runs for them is over after the test."""
    made = []

    def make(**options):
        app = CacheFilter(origin, dir=tmp_path / "cache", driver=driver_name, min_free=0, **options)
        made.append(app.cache)
        return app

    yield make
    for cache in made:
        cache.close()
    made.clear()
    wait_until(lambda: not threads(), "all have ended")


def queue(app, *numbers):
    for number in numbers:
        assert app.cache.queue_image(f"http://localhost/{number}.img")


def test_it_begins_with_the_first_request(make):
    app = make(prefetch_workers=3)
    queue(app, *range(6))
    time.sleep(0.1)
    assert threads() == []

    get(app, "/first", method="OPTIONS")
    assert len(threads()) == 3
    wait_until(lambda: not app.cache.get_queue(), "the queue is empty")
    get(app, "/second")
    assert len(threads()) == 3
    for number in range(6):
        assert get(app, f"/{number}.img").cache == "hit"


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        ({"prefetch_workers": 0}, {}),
        ({}, {"wsgi.multithread": False}),
        ({}, {OWN_REQUEST: True}),
    ],
)
def test_nothing_begins_where_it_must_not(make, options, environ):
    app = make(**options)
    queue(app, 1)
    get(app, "/first", **environ)
    time.sleep(0.1)

    assert threads() == []
    assert app.cache.get_queued_images() == ["http://localhost/1.img"]


def test_it_ends_with_the_cache(make):
    app = make(prefetch_workers=2)
    get(app, "/first")
    assert len(threads()) == 2
    began = time.monotonic()
    app.cache.close()

    assert threads() == []
    assert time.monotonic() - began < 1.5
    get(app, "/after")
    assert threads() == []


def test_it_ends_with_the_filter(tmp_path, origin):
    app = CacheFilter(origin, dir=tmp_path / "cache", min_free=0)
    get(app, "/first")
    cache = app.cache
    assert len(threads()) == 1
    del app
    gc.collect()
    wait_until(lambda: not threads(), "it has ended")
    cache.close()


CHILD = """
import os, sys, threading, time, warnings
from cachemw import CacheFilter
from tests.fakes import FakeOrigin
from tests.wsgi import get

def names():
    return sum(thread.name == "cachemw-prefetch" for thread in threading.enumerate())

warnings.simplefilter("ignore")
app = CacheFilter(FakeOrigin({"/3.img": b"image"}), dir=sys.argv[1], driver=sys.argv[2], min_free=0)
get(app, "/first")
begun = names()
child = os.fork()
if not child:
    inherited = names()
    app.cache.queue_image("http://localhost/3.img")
    get(app, "/in-child")
    deadline = time.monotonic() + 15
    while app.cache.get_queue() and time.monotonic() < deadline:
        time.sleep(0.02)
    print(begun, inherited, names(), app.cache.is_cached("http://localhost/3.img"), flush=True)
    os._exit(0)
app.cache.close()
os.waitpid(child, 0)
"""


def test_it_begins_anew_in_a_child(run_python, tmp_path, driver_name):
    assert run_python(CHILD, tmp_path / "cache", driver_name) == "1 0 1 True\n"


class Counting:
    name = "cachemw-counting"
    threads = 1
    calls_app = False

    def __init__(self, fails=False):
        self.steps, self.begun, self.fails = 0, 0, fails

    def begin(self, environ):
        self.begun += 1

    def step(self):
        self.steps += 1
        if self.fails:
            raise ValueError("boom")
        return 0.01

    def end(self):
        pass


def test_other_tasks_run_wherever_the_app_may_not_be_called(make):
    cache = make().cache
    task = Counting()
    background = Background(cache, task)
    background.begin({"wsgi.multithread": False})
    background.begin({})
    wait_until(lambda: task.steps > 3, "it goes on")

    assert task.begun == 1
    assert len(threads(task.name)) == 1
    cache.close()
    assert threads(task.name) == []


def test_task_that_fails_is_tried_again_after_a_while_and_can_be_ended(make, caplog):
    cache = make().cache
    task = Counting(fails=True)
    background = Background(cache, task)
    background.begin({})
    wait_until(lambda: "ValueError: boom" in caplog.text, "it failed")
    time.sleep(0.1)

    assert task.steps == 1
    background.end()
    assert threads(task.name) == []
