"""Blocking calls in each mode; those of hubs in another interpreter, which can be patched."""

import importlib.util
import logging
import math
import threading

import pytest

from cachemw import ImageCache, concurrency
from cachemw.errors import ConfigError

#: Patches, and lets a greenlet count while others wait.
HUBS = {
    "eventlet": """\
import eventlet
eventlet.monkey_patch(os=False)
from eventlet import Timeout, spawn, sleep
def wait(greenlet): return greenlet.wait()
def timeout(seconds): return Timeout(seconds)
""",
    "gevent": """\
import gevent.monkey
gevent.monkey.patch_all(os=False)
from gevent import Timeout, spawn, sleep
def wait(greenlet): return greenlet.get()
def timeout(seconds): return Timeout.start_new(seconds)
""",
}

COMMON = """
import hashlib, logging, os, sys, threading
from cachemw import ImageCache, concurrency
from cachemw.core import pipeline

# A wait that monkey-patching does not make green: the lock is native.
def block(seconds):
    lock = concurrency.Lock()
    lock.acquire()
    lock.acquire(timeout=seconds)
    return seconds

ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        sleep(0.01)
spawn(tick)
"""


def test_a_wait_without_an_end_ends_when_it_is_woken():
    waiter = concurrency.Waiter()
    waiter.wake()
    assert waiter.wait(math.inf)


@pytest.fixture(params=HUBS)
def run_under_hub(request, run_python):
    """Run code in an interpreter that was patched; gives what it printed."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")

    def run(code, *arguments):
        return run_python(HUBS[request.param] + COMMON + code, *arguments).split()

    return run


@pytest.fixture
def restored():
    yield
    concurrency.configure("auto")


def test_a_call_is_made_where_it_is_in_a_server_with_threads():
    thread = concurrency.run_blocking(threading.get_ident)

    assert thread == threading.get_ident()
    assert not concurrency.offloads()


def test_a_mode_whose_library_is_missing_stops_the_start(monkeypatch, restored):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(concurrency.importlib, "import_module", missing)

    with pytest.raises(ConfigError, match="'concurrency' is 'eventlet', but: No module"):
        concurrency.configure("eventlet")


def test_threads_that_wait_for_a_condition_are_all_woken():
    condition, woken = concurrency.Condition(), []
    ready = threading.Semaphore(0)

    def wait():
        with condition:
            ready.release()
            condition.wait()
            woken.append(1)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
        ready.acquire()
    with condition:
        condition.notify_all()
    for thread in threads:
        thread.join(20)

    assert woken == [1, 1, 1]


def test_an_alarm_that_was_set_before_wakes_at_once():
    alarm = concurrency.Alarm()

    assert not alarm.wait(0.001)
    alarm.set()
    alarm.set()
    assert alarm.wait(20)


def test_a_message_names_the_line_that_said_it(caplog):
    with caplog.at_level(logging.WARNING):
        concurrency.get_logger("cachemw.test").warning("%s failed", "cat")

    (record,) = caplog.records
    assert record.getMessage() == "cat failed"
    assert record.funcName == "test_a_message_names_the_line_that_said_it"


def test_other_greenlets_go_on_while_a_call_blocks(run_under_hub):
    seconds, ticks = run_under_hub("print(concurrency.run_blocking(block, 0.5), ticks)")

    assert seconds == "0.5"
    assert int(ticks) > 10


def test_a_call_within_a_call_is_made_where_it_is(run_under_hub):
    code = """
def outer():
    here = concurrency.get_ident()
    return here == concurrency.run_blocking(concurrency.get_ident)
print(concurrency.run_blocking(outer), concurrency.offloads())
"""
    assert run_under_hub(code) == ["True", "True"]


def test_an_error_arrives_in_the_greenlet_that_waits(run_under_hub):
    code = """
try:
    concurrency.run_blocking(os.stat, "/nowhere")
except FileNotFoundError as exc:
    print(exc.filename)
"""
    assert run_under_hub(code) == ["/nowhere"]


def test_a_result_that_nobody_waits_for_is_undone(run_under_hub):
    """A descriptor or a claim that was taken for a request that timed out must not stay."""
    code = """
undone = []
limit = timeout(0.1)
try:
    concurrency.run_blocking(block, 0.3, undo=undone.append)
except Timeout:
    print("timed-out", undone)
while not undone:
    sleep(0.01)
print(*undone)
"""
    assert run_under_hub(code) == ["timed-out", "[]", "0.3"]


def test_what_a_native_thread_says_is_said_on_the_hubs(run_under_hub):
    """The locks of handlers are green."""
    code = """
said = []
class Handler(logging.Handler):
    def emit(self, record):
        said.append((record.getMessage(), concurrency.get_ident()))
logging.getLogger("cachemw").addHandler(Handler())
log = concurrency.get_logger("cachemw.test")
concurrency.run_blocking(log.warning, "%s failed", "cat")
print(said == [("cat failed", concurrency.get_ident())])
"""
    assert run_under_hub(code) == ["True"]


def test_an_image_is_filled_and_read_under_a_hub(run_under_hub, driver_name, tmp_path):
    """With more at once than the pool has threads, and larger than may wait to be written."""
    code = """
pipeline.LIMIT = 2**20
cache = ImageCache(dir=sys.argv[1], driver=sys.argv[2], min_free=0, max_size="8GiB")
block = bytes(range(256)) * 2048

def chunks():
    for _ in range(16):
        sleep(0)
        yield block

def use(name):
    stored = cache.cache_image_iter(name, chunks(), hashlib.sha256(block * 16).hexdigest())
    with cache.open_for_read(name) as entry:
        return stored and entry.size == 16 * len(block)

waiting = [spawn(use, f"image-{n}") for n in range(30)]
print(all(wait(greenlet) for greenlet in waiting), len(cache.get_cached_images()))
print(sum(image["hits"] for image in cache.get_cached_images()))
print(cache.delete_all_cached_images(), ticks > 10)
cache.close()
"""
    assert run_under_hub(code, tmp_path, driver_name) == ["True", "30", "30", "30", "True"]


def test_an_image_is_filled_in_the_mode_that_is_named(tmp_path, restored):
    cache = ImageCache(dir=tmp_path, concurrency="threads", min_free=0)

    assert cache.cache_image_iter("cat", [b"meow"])
    cache.close()


def test_who_would_wait_for_ever_is_woken_all_the_same():
    waiter = concurrency.Waiter()
    waiter.wake()

    assert waiter.wait(math.inf)
