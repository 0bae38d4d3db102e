"""The dashboard in a real browser, in front of a management API of the test's own."""

import json
import os
import re
import time
from pathlib import Path

import pytest

pytest.importorskip("websocket", reason="websocket-client is not installed")

from tests import browser as browsers
from tests.management import Management, fill_with_work, make_images, served
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(browsers.program() is None, reason="no Chromium is installed")

#: As nasty as an id can be: markup, quotes, slashes, a query, what turns text.
HOSTILE = "<img src=x onerror='window.hacked=1'>\"</td>&amp;/../?a=1#b%2F\u202egpj.exe\u0007"

PHONE = (390, 844)
DESK = (1440, 900)

LOADED = (
    "document.body.classList.contains('loaded')"
    " && document.getElementById('images-table').getAttribute('aria-busy') === 'false'"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsers.chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def page(browser):
    with browser.page() as opened:
        opened.view(*DESK)
        yield opened


@pytest.fixture
def management():
    """What the dashboard is in front of."""
    now = time.time()
    management = Management(make_images(120, now))
    fill_with_work(management, now)
    return management


@pytest.fixture
def url(management):
    with served(management) as address:
        yield address


@pytest.fixture
def dashboard(page, url):
    """A page that shows it."""
    page.open(url)
    page.wait_for(LOADED)
    return page


def button(text, within="#images"):
    """A selector by what a screen reader says of a button."""
    return f"{within} button[aria-label={json.dumps(text)}]"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_page_shows_the_cache_and_fits_the_window(page, url, scheme, size):
    page.view(*size, scheme=scheme)
    page.open(url)
    page.wait_for(LOADED)

    assert page.text("#cache-dir") == "/var/cache/images"
    assert page.text("#rates tr td") == "96.8 %"
    assert len(page.texts("#fills tr")) == 3
    assert len(page.texts("#hottest li")) == 10
    assert len(page.texts("#images tr")) == 50
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(243, 245, 246)") == (scheme == "light")
    assert page.problems == []


def test_nothing_is_asked_of_another_host(dashboard, url):
    assert {address for _, address in dashboard.requests if not address.startswith(url)} == set()


def test_numbers_follow_the_cache(dashboard, management):
    management.rates["hit_ratio"] = 0.25
    management.fills = management.fills[:1]

    dashboard.wait_for("document.querySelector('#rates td').innerText === '25.0 %'")
    dashboard.wait_for("document.querySelectorAll('#fills tr').length === 1")
    assert dashboard.problems == []


def test_updates_stop_while_nobody_looks_and_while_paused(dashboard, management):
    dashboard.click("#pause")
    assert dashboard.text("#pause") == "Resume"
    management.rates["hit_ratio"] = 0.5
    time.sleep(3)
    assert dashboard.text("#rates td") == "96.8 %"
    dashboard.click("#pause")
    dashboard.wait_for("document.querySelector('#rates td').innerText === '50.0 %'")

    dashboard.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true }),"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    time.sleep(0.5)
    asked = len(management.asked)
    time.sleep(3)
    assert len(management.asked) == asked
    dashboard.evaluate(
        "delete document.hidden, document.dispatchEvent(new Event('visibilitychange'))"
    )
    wait_until(lambda: len(management.asked) > asked, "it asks again")


def test_trouble_is_said_quietly_and_got_over(dashboard, management):
    management.failure = "503 Service Unavailable"
    dashboard.wait_for("!document.getElementById('trouble').hidden")
    assert "Service Unavailable" in dashboard.text("#trouble")
    assert dashboard.text("#rates td") == "96.8 %"

    management.failure = None
    dashboard.wait_for("document.getElementById('trouble').hidden")


def test_image_is_deleted_after_a_question(dashboard, management):
    victim = dashboard.text("#images tr .id")
    dashboard.click(button(f"Delete {victim}"))
    assert dashboard.evaluate("document.getElementById('confirm').open")
    assert dashboard.text("#confirm-subject") == victim
    assert dashboard.evaluate("document.activeElement.id") == "confirm-cancel"
    dashboard.press("Escape")
    dashboard.wait_for("!document.getElementById('confirm').open")
    assert victim in management.images
    assert dashboard.evaluate("document.activeElement.ariaLabel") == f"Delete {victim}"

    dashboard.press("Enter")
    dashboard.wait_for("document.getElementById('confirm').open")
    dashboard.press("Tab")
    assert dashboard.evaluate("document.activeElement.id") == "confirm-do"
    dashboard.press("Enter")
    wait_until(lambda: victim not in management.images, "it is deleted")
    dashboard.wait_for(f"document.querySelector('#images .id').innerText !== {json.dumps(victim)}")

    assert dashboard.text("#note-text") == f"Deleted {victim}"
    dashboard.wait_for("document.getElementById('announcement').textContent.startsWith('Deleted')")
    # The next row's: a keyboard goes on where it was.
    assert dashboard.evaluate("document.activeElement.textContent") == "Delete"
    assert dashboard.problems == []


def test_images_are_queued_and_taken_out(dashboard, management):
    dashboard.type("#queue-field", "new image/1.img")
    dashboard.press("Enter")
    wait_until(lambda: "new image/1.img" in management.get_queued_images(), "it is queued")
    dashboard.wait_for("document.querySelectorAll('#queue tr').length === 5")
    assert dashboard.evaluate("document.getElementById('queue-field').value") == ""

    dashboard.click(button("Remove new image/1.img from the queue", "#queue"))
    dashboard.click("#confirm-do")
    wait_until(lambda: "new image/1.img" not in management.get_queued_images(), "it is removed")
    dashboard.wait_for("document.querySelectorAll('#queue tr').length === 4")
    assert dashboard.problems == []


def test_image_that_cannot_be_queued_is_refused_with_the_reason(dashboard, management):
    dashboard.type("#queue-field", "unknown.img")
    dashboard.press("Enter")

    dashboard.wait_for("!document.getElementById('note').hidden")
    assert dashboard.text("#note-text") == "Not done: no request named how it is fetched"
    assert "unknown.img" not in management.get_queued_images()
    assert dashboard.evaluate("document.getElementById('queue-field').value") == "unknown.img"


def test_queue_says_what_failed_and_tries_again(dashboard, management):
    row = next(row for row in dashboard.texts("#queue tr") if "retired" in row)
    assert "Gave up 8 times: the app answered 404" in row
    assert "Set aside" in row

    dashboard.click(button("Retry golden/retired-2024.img", "#queue"))
    wait_until(lambda: not any(item["set_aside"] for item in management.queue), "it is begun anew")


def test_failed_fills_have_their_reasons(dashboard):
    assert "sha256 is 9f86d081…" in dashboard.text("#invalid tr")


def test_answer_to_one_question_is_not_taken_for_another(dashboard, management):
    """A dialog tells that it was closed only later, when the next question may be open."""
    management.jobs = []
    dashboard.evaluate("""(() => {
        const click = (id) => document.getElementById(id).click();
        click('prune-button');
        return new Promise((resolve) => setTimeout(() => {
            click('confirm-cancel');
            click('clean-button');
            setTimeout(resolve, 200);
        }, 50));
    })()""")
    assert dashboard.text("#confirm-title") == "Clean the cache?"
    dashboard.click("#confirm-do")
    wait_until(lambda: management.jobs, "the job is started")

    assert [job["kind"] for job in management.jobs] == ["clean"]


@pytest.mark.parametrize("kind", ["prune", "clean", "check"])
def test_jobs_are_started_after_a_question_and_followed(dashboard, management, kind):
    management.jobs = []
    dashboard.click(f"#{kind}-button")
    dashboard.press("Escape")
    dashboard.wait_for("!document.getElementById('confirm').open")
    dashboard.click(f"#{kind}-button")
    if kind == "check":
        dashboard.click("#confirm-choice")
    dashboard.click("#confirm-do")
    wait_until(lambda: management.jobs, "the job is started")

    assert [job["kind"] for job in management.jobs] == [kind]
    assert management.jobs[0]["options"] == ({"repair": True} if kind == "check" else {})
    dashboard.wait_for("document.querySelector('#jobs tr progress')?.hidden === false")
    finding = {"kind": "cut", "name": "a.img", "image_id": "a.img", "problem": "6 of 9 bytes"}
    finding |= {"mend": "remove it", "is_mended": True}
    result = {"images": 12, "bytes": 5 * 2**30, "findings": [finding]}
    management.jobs[0].update(state="done", done=100, result=result)
    dashboard.wait_for("document.querySelector('#jobs tr progress').hidden")
    assert "12 images, 5.00 GiB, 1 findings" in dashboard.text("#jobs tr")
    finding_text = dashboard.evaluate("document.querySelector('#jobs details li').textContent")
    assert finding_text == "a.img: 6 of 9 bytes; mended: remove it"
    assert dashboard.problems == []


def test_list_is_searched_sorted_and_paged(dashboard, management):
    assert dashboard.text("#page") == "1 to 50 of 120"
    dashboard.click("#next")
    dashboard.wait_for("document.getElementById('page').innerText.startsWith('51 to 100')")
    dashboard.click("#next")
    dashboard.wait_for("document.getElementById('page').innerText === '101 to 120 of 120'")
    assert dashboard.evaluate("document.getElementById('next').disabled")
    assert dashboard.evaluate("document.activeElement.id") == "images-title"
    dashboard.click("#previous")
    dashboard.wait_for("document.getElementById('page').innerText.startsWith('51 to 100')")

    dashboard.click("button[data-sort=size]")
    dashboard.wait_for("document.querySelector('[data-column=size]').ariaSort === 'descending'")
    biggest = max(management.images.values(), key=lambda image: image["size"])["image_id"]
    assert dashboard.text("#images .id") == biggest
    assert dashboard.text("#page") == "1 to 50 of 120"

    dashboard.type("#search", "-00007")
    dashboard.wait_for("document.querySelectorAll('#images tr').length === 1")
    assert dashboard.text("#images .id") == "netboot-00007.tar.gz"
    assert dashboard.text("#page") == "1 to 1 of 1"
    dashboard.type("#search", "nothing of the kind")
    dashboard.wait_for("!document.getElementById('images-empty').hidden")
    assert dashboard.text("#images-empty") == "No image has this in its id."
    assert dashboard.problems == []


def test_ids_are_text_wherever_they_appear(page, management, url):
    """Also in the question, in labels, and in the path of a request."""
    record = {"size": 5 * 2**40, "hits": 10**6, "last_accessed": 0.0, "last_modified": 1.0}
    management.images[HOSTILE] = {"image_id": HOSTILE, "checksum": HOSTILE, **record}
    management.queue_image(HOSTILE, reason=HOSTILE, tries=1)
    management.fills[0]["image_id"] = HOSTILE
    management.invalid[0] |= {"image_id": HOSTILE, "reason": HOSTILE}
    management.jobs[0]["error"] = HOSTILE
    page.open(url)
    page.wait_for(LOADED)
    page.type("#search", "onerror")
    page.wait_for("document.querySelectorAll('#images tr').length === 1")

    shown = "<img src=x onerror='window.hacked=1'>\"</td>&amp;/../?a=1#b%2F\\u{202e}gpj.exe\\u{7}"
    for selector in ("#images .id", "#queue tr:last-child .id", "#fills .id", "#invalid .id"):
        assert page.text(selector) == shown
    assert shown in page.texts("#hottest .id")
    page.click("#images button")
    assert page.text("#confirm-subject") == shown
    page.click("#confirm-do")
    wait_until(lambda: HOSTILE not in management.images, "that one is deleted")
    page.click("#queue tr:last-child .actions button:last-child")
    page.click("#confirm-do")
    wait_until(lambda: HOSTILE not in management.get_queued_images(), "it is removed")

    assert len(management.images) == 120
    assert page.evaluate("document.querySelectorAll('main img').length") == 0
    assert page.evaluate("window.hacked") is None
    assert page.problems == []


def test_id_with_octets_that_are_no_text_is_deleted(page, management, url):
    """Python has such an octet as a lone surrogate."""
    record = {"size": 1, "hits": 10**6, "last_accessed": time.time() + 60, "last_modified": 1.0}
    management.images["a\udcffb"] = {"image_id": "a\udcffb", "checksum": None, **record}
    page.open(url)
    page.wait_for(LOADED)
    page.click("#images button")
    page.click("#confirm-do")

    wait_until(lambda: "a\udcffb" not in management.images, "it is deleted")
    assert len(management.images) == 120


@pytest.mark.parametrize("image_id", [".", ".."])
def test_id_that_no_url_can_name_deletes_nothing_else(page, management, url, image_id):
    """A URL drops such a part of its path: the request would delete all images."""
    record = {"size": 1, "hits": 10**6, "last_accessed": time.time() + 60, "last_modified": 1.0}
    management.images[image_id] = {"image_id": image_id, "checksum": None, **record}
    page.open(url)
    page.wait_for(LOADED)
    page.click(button(f"Delete {image_id}"))
    page.click("#confirm-do")

    page.wait_for("!document.getElementById('note').hidden")
    assert page.text("#note-text").startswith(f"Not done: No URL can name the image “{image_id}”")
    assert len(management.images) == 121
    assert not [asked for asked in management.asked if asked[0] == "DELETE"]


def test_token_is_asked_for_once_and_kept_for_the_tab(page, management, url):
    management.token = "s3cret"
    page.open(url)
    page.wait_for("document.getElementById('token').open")
    page.type("#token-field", "wrong")
    page.press("Enter")
    page.wait_for("!document.getElementById('token-refused').hidden")
    page.type("#token-field", "s3cret")
    page.press("Enter")
    page.wait_for(LOADED)
    assert len(page.texts("#images tr")) == 50

    page.open(url + "?again")
    page.wait_for(LOADED)
    assert page.evaluate("document.getElementById('token').open") is False
    assert page.evaluate("Object.values(localStorage).includes('s3cret')") is False
    assert "s3cret" not in page.evaluate("location.href + document.cookie")


def test_without_a_token_the_page_waits_to_be_given_one(page, management, url):
    management.token = "s3cret"
    page.open(url)
    page.wait_for("document.getElementById('token').open")
    page.press("Escape")
    page.wait_for("!document.getElementById('unlock').hidden")
    time.sleep(2.5)
    assert page.evaluate("document.getElementById('token').open") is False

    page.click("#unlock")
    page.wait_for("document.getElementById('token').open")
    page.type("#token-field", "s3cret")
    page.press("Enter")
    page.wait_for(LOADED)
    assert page.evaluate("document.getElementById('trouble').hidden")


@pytest.mark.parametrize(
    ("mount", "is_filter"),
    [("/", False), ("/cache/", False), ("/.cachemw/", False), ("/.cachemw/", True)],
)
def test_page_may_be_mounted_anywhere(page, mount, is_filter):
    """As a filter serves it, /v1 and /v2 are not below the page but beside it."""
    management = Management(make_images(3, time.time()), mount=mount, is_filter=is_filter)
    with served(management, mount) as address:
        page.open(address)
        page.wait_for(LOADED)
        page.wait_for("document.querySelectorAll('#images tr').length === 3")
        page.type("#queue-field", "a/b c")
        page.press("Enter")
        wait_until(lambda: management.get_queued_images() == ["a/b c"], "it is queued")


def test_theme_is_chosen_and_kept(dashboard, url):
    script = "getComputedStyle(document.body).backgroundColor"
    light = dashboard.evaluate(script)
    dashboard.evaluate(
        "document.getElementById('theme').value = 'dark',"
        "document.getElementById('theme').dispatchEvent(new Event('change'))"
    )
    dark = dashboard.evaluate(script)
    assert dark != light

    dashboard.open(url + "?again")
    assert dashboard.evaluate(script) == dark
    assert dashboard.evaluate("document.getElementById('theme').value") == "dark"
    dashboard.evaluate("localStorage.clear()")


def test_charts_say_what_they_show(dashboard):
    label = "document.querySelector('#ratio-chart svg[role=img]').ariaLabel"
    said = re.match(
        r"Hit ratio, the last 24 hours: of requests: (\d+\.\d) % last, between",
        dashboard.evaluate(label),
    )
    assert 90.0 < float(said[1]) < 99.0
    dashboard.click("#ratio-chart summary")
    rows = dashboard.wait_for(
        "[...document.querySelectorAll('#ratio-chart tbody tr')].map((row) => row.innerText)"
    )
    assert 10 < len(rows) <= 24
    # Two hours were switched off: a line through them would be made up.
    assert (
        len(
            dashboard.evaluate(
                "[...document.querySelectorAll('#ratio-chart path.line.first')].length.toString()"
            )
        )
        == 1
    )
    assert (
        dashboard.evaluate(
            "document.querySelectorAll('#ratio-chart .canvas path.line.first').length"
        )
        == 2
    )

    dashboard.click("input[name=span][value=live]")
    dashboard.wait_for(f"{label}.startsWith('Hit ratio, the last 5 minutes: of requests: 96.8 %')")
    assert dashboard.problems == []


def test_page_stays_small_and_smooth_over_many_images(page):
    """What is shown of 100,000 images is what is shown of 100."""
    now = time.time()
    management = Management(make_images(100_000, now))
    fill_with_work(management, now)
    with served(management) as address:
        page.open(address)
        page.wait_for(LOADED)
        assert page.text("#page") == "1 to 50 of 100,000"
        assert page.evaluate("document.querySelectorAll('*').length") < 2000
        # Work of the page's own in each update; the machine may be busy with others'.
        spent = []
        for _ in range(5):
            before = busy_seconds(page)
            seen = page.text("#updated")
            page.wait_for(f"document.getElementById('updated').innerText !== {json.dumps(seen)}")
            spent.append(busy_seconds(page) - before)
    assert min(spent) < 0.1, spent


def busy_seconds(page):
    """Give how long the page has run scripts and laid itself out so far."""
    metrics = {
        found["name"]: found["value"] for found in page.call("Performance.getMetrics")["metrics"]
    }
    return metrics["ScriptDuration"] + metrics["LayoutDuration"] + metrics["RecalcStyleDuration"]


@pytest.fixture(scope="module")
def axe():
    """The accessibility checker's script."""
    path = os.environ.get("CACHEMW_AXE")
    if not path:
        pytest.skip("CACHEMW_AXE does not name the axe.min.js of the npm package axe-core")
    return Path(path).read_text(encoding="utf-8")


def found_by(axe, page):
    page.evaluate(f"{axe}; undefined")
    report = page.evaluate("axe.run(document, { resultTypes: ['violations', 'incomplete'] })")
    return [
        f"{violation['impact']} {violation['id']}: {node['html']}"
        for violation in report["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_accessibility_check_finds_nothing(page, management, url, axe, scheme, size):
    page.view(*size, scheme=scheme)
    page.open(url)
    page.wait_for(LOADED)
    page.evaluate("for (const found of document.querySelectorAll('details')) found.open = true")
    assert found_by(axe, page) == []

    page.click("#check-button")
    assert found_by(axe, page) == []
    page.press("Escape")

    page.type("#queue-field", "unknown.img")
    page.press("Enter")
    page.wait_for("!document.getElementById('note').hidden")
    management.failure = "503 Service Unavailable"
    page.wait_for("!document.getElementById('trouble').hidden")
    assert found_by(axe, page) == []


def test_accessibility_check_finds_nothing_on_an_empty_cache(page, axe):
    with served(Management(token="s3cret")) as address:
        page.open(address)
        page.wait_for("document.getElementById('token').open")
        assert found_by(axe, page) == []
        page.type("#token-field", "s3cret")
        page.press("Enter")
        page.wait_for(LOADED)
        assert page.text("#images-empty") == "Nothing is cached yet."
        assert found_by(axe, page) == []
