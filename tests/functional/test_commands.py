"""The commands about what is in a cache directory, over every driver."""

import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from cachemw import ImageCache
from cachemw.commands import main
from tests.terminals import Terminal, without_rich

COMMAND = [sys.executable, "-c", "import sys; from cachemw.commands import main; sys.exit(main())"]
ODD = "http://x/a b\t\x1b[31m?\\"
SHOWN = r"http://x/a b\t\x1b[31m?" + "\\\\"


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cache(directory, driver_name):
    """A directory with three images, read 0, 1 and 2 times, and some of everything else."""
    cache = ImageCache(dir=directory, driver=driver_name, min_free=0)
    for number, image_id in enumerate(("cat", "dog", ODD)):
        cache.cache_image_iter(image_id, [bytes(100 * (number + 1))])
        time.sleep(0.002)
        for _ in range(number):
            with cache.open_for_read(image_id):
                pass
    cache.queue_image("waiting")
    sink = cache.driver.start_fill("failed")
    sink.write(bytes(7))
    sink.rollback("wrong checksum\x1b[0m")
    sink.close()
    (directory / "incomplete" / "abandoned").write_bytes(bytes(5))
    cache.close()
    cache = ImageCache(dir=directory, driver=driver_name, min_free=0)
    yield cache
    cache.close()


@pytest.fixture
def run(cache, directory, capsys):
    """Run a command; gives its status, what it printed, and what it complained of."""

    def run(command, *arguments):
        status = main([command, "--dir", str(directory), *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def lines(run):
    """Run a command that has nothing to complain of; gives its lines, in columns."""

    def lines(*arguments):
        status, out, err = run(*arguments)
        assert (status, err) == (0, "")
        return [line.split("\t") for line in out.splitlines()]

    return lines


@pytest.fixture
def document(run):
    """Run a command with ``--json``; gives what it printed."""

    def document(*arguments):
        status, out, err = run(*arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return document


def ids(cache):
    return [image["image_id"] for image in cache.get_cached_images()]


def files(directory):
    """Every file that holds bytes of an image."""
    return {
        str(path): path.read_bytes()
        for path in Path(directory).rglob("*")
        if path.is_file() and not path.name.startswith(("cache.db", ".lock", ".deletions"))
    }


# Which cache


def test_a_wrong_directory_is_a_mistake_and_is_not_made(tmp_path, capsys):
    for command in (["list"], ["show", "x"], ["stats"], ["top", "--once"], ["prune"], ["clean"]):
        assert main([*command, "--dir", str(tmp_path / "nowhere")]) == 2
        assert "there is no cache directory" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_the_servers_driver_is_used_where_nothing_else_is_said(cache, directory, run, driver_name):
    assert run("list")[0] == 0
    assert json.loads((directory / ".lock").read_text())["driver"] == driver_name
    other = {"sqlite": "xattr", "xattr": "sqlite"}[driver_name]
    assert run("list", "--set", f"driver={other}")[0] == 0
    assert json.loads((directory / ".lock").read_text())["driver"] == other


def test_a_broken_lock_file_tells_nothing(cache, directory, run):
    for content in (b"", b"nonsense", b'{"boot":"","driver":7,"changing":[],"total":0}'):
        (directory / ".lock").write_bytes(content)
        assert run("list")[0] == 0


# list


def test_list_prints_a_line_an_image_by_id(lines, cache):
    rows = lines("list")

    assert [row[:3] for row in rows] == [
        ["cat", "100", "0"],
        ["dog", "200", "1"],
        [SHOWN, "300", "2"],
    ]
    image = cache.get_cached_images()[0]
    assert rows[0][3:] == [
        str(image["last_accessed"]),
        str(image["last_modified"]),
        image["checksum"],
    ]


def test_list_as_json_is_what_the_cache_says(document, cache):
    assert document("list") == cache.get_cached_images()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sort", "size"], [ODD, "dog", "cat"]),
        (["--sort", "hits"], [ODD, "dog", "cat"]),
        (["--sort", "size", "--reverse"], ["cat", "dog", ODD]),
        (["--sort", "modified", "--limit", "2"], [ODD, "dog"]),
        (["--sort", "accessed", "--limit", "1"], [ODD]),
        (["--sort", "id"], ["cat", "dog", ODD]),
        (["--reverse"], [ODD, "dog", "cat"]),
        (["--search", "o"], ["dog"]),
        (["--search", "://"], [ODD]),
        (["--search", "nothing"], []),
        (["--limit", "1"], ["cat"]),
    ],
)
def test_list_sorts_searches_and_limits(document, arguments, expected):
    assert [image["image_id"] for image in document("list", *arguments)] == expected


def test_list_shows_what_is_not_an_image(lines, cache):
    assert [row[:2] for row in lines("list", "--invalid")] == [["failed", "7"]]
    assert lines("list", "--invalid")[0][3] == r"wrong checksum\x1b[0m"
    assert [row[0] for row in lines("list", "--queue")] == ["waiting"]
    assert lines("list", "--partial") == []


def test_list_shows_parts(cache, document):
    from cachemw.drivers.base import Record

    sink = cache.driver.start_fill("half")
    sink.announce(Record("half", 0, ""), 10)
    sink.write(bytes(4))
    sink.leave()
    sink.close()

    (row,) = document("list", "--partial")

    assert (row["image_id"], row["size"], row["length"]) == ("half", 4, 10)
    assert document("show", "half")["state"] == ["partial"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--invalid", "--sort", "hits"], "--sort hits does not go with --invalid"),
        (["--queue", "--sort", "size"], "--sort size does not go with --queue"),
    ],
)
def test_list_refuses_what_it_cannot_sort_by(run, arguments, complaint):
    status, out, err = run("list", *arguments)

    assert (status, out) == (2, "")
    assert complaint in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--limit", "0"], "'0': expected a number from 1"),
        (["--limit", "x"], "'x': expected a number from 1"),
        (["--sort", "name"], "invalid choice: 'name'"),
        (["--queue", "--invalid"], "not allowed with argument"),
    ],
)
def test_list_refuses_what_is_no_argument(run, arguments, complaint, capsys):
    with pytest.raises(SystemExit) as exit_info:
        run("list", *arguments)
    assert exit_info.value.code == 2
    assert complaint in capsys.readouterr().err


def test_list_is_a_table_on_a_terminal_without_control_characters(cache, directory, monkeypatch):
    without_rich(monkeypatch)
    terminal = Terminal()
    with redirect_stdout(terminal):
        assert main(["list", "--dir", str(directory)]) == 0

    shown = terminal.getvalue()
    assert shown.splitlines()[0].split() == ["ID", "SIZE", "HITS", "LAST", "READ", "STORED"]
    assert shown.replace("\n", "").isprintable()
    assert SHOWN in shown


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_whoever_wants_only_the_first_lines_meets_no_complaint(cache, directory, unbuffered):
    for number in range(600):
        cache.cache_image_iter(f"image-{number:0190}", [b"x"])
    process = subprocess.Popen(
        [*COMMAND, "list", "--dir", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    with process:
        assert process.stdout.readline().startswith("cat\t")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_whoever_wants_nothing_at_all_meets_no_complaint(cache, directory):
    """What is left in the buffer is not tried once more at exit."""
    process = subprocess.Popen(
        [*COMMAND, "list", "--dir", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    with process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


# show


def test_show_tells_all_of_an_image(document, cache, directory, driver_name):
    image = document("show", "dog")

    (variant,) = image["variants"]
    listed = cache.get_cached_images()[1]
    assert image["state"] == ["cached"]
    assert (image["image_id"], image["hits"]) == ("dog", 1)
    assert variant["path"] == str(directory / "dog")
    for key in ("size", "hits", "last_accessed", "last_modified", "checksum"):
        assert variant[key] == listed[key]


def test_show_tells_headers_and_variants(document, lines, cache):
    import dataclasses

    from cachemw.drivers.base import Record

    for variant, language in enumerate(("de", "en")):
        sink = cache.driver.start_fill("page", variant)
        sink.write(bytes(variant + 1))
        record = cache.driver.describe("page", sink)
        headers = (("Content-Language", language), ("ETag", '"x"'))
        vary = (("accept-language", language),)
        sink.commit(dataclasses.replace(record, headers=headers, vary=vary, variant=variant))
        sink.close()
    assert isinstance(record, Record)

    image = document("show", "page")
    rows = lines("show", "page")

    assert [v["size"] for v in image["variants"]] == [1, 2]
    assert image["variants"][1]["vary"] == [["accept-language", "en"]]
    assert image["variants"][1]["headers"][0] == ["Content-Language", "en"]
    assert os.path.getsize(image["variants"][1]["path"]) == 2
    assert ["variant 1 header Content-Language", "en"] in rows
    assert ["variant 0 selected by accept-language", "de"] in rows


def test_show_takes_any_id(document):
    assert document("show", ODD)["image_id"] == ODD


def test_show_says_that_an_image_is_not_stored_and_why(lines, document):
    assert ["state", "invalid"] in lines("show", "failed")
    assert ["invalid reason", r"wrong checksum\x1b[0m"] in lines("show", "failed")
    assert document("show", "waiting")["state"] == ["queued"]


def test_show_of_an_unknown_image_is_a_failure(run):
    assert run("show", "no\x1bthing") == (
        1,
        "",
        "cachemw show: no\\x1bthing: not in the cache\n",
    )
    assert run("show", "x" * 2001)[0] == 2


def test_show_of_a_damaged_image_says_so(run, directory):
    with open(directory / "dog", "ab") as file:
        file.write(b"more")

    status, out, err = run("show", "dog", "--json")

    assert status == 0
    assert json.loads(out)["state"] == ["invalid"]
    assert "201 bytes long instead of 200" in err or "204 bytes long instead of 200" in err


# delete


def test_delete_removes_what_is_named(lines, cache):
    assert lines("delete", "dog", ODD) == [["dog", "200"], [SHOWN, "300"]]
    assert ids(cache) == ["cat"]


def test_delete_says_what_was_not_there_and_deletes_the_rest(run, cache):
    assert run("delete", "dog", "cow", "dog") == (
        1,
        "dog\t200\n",
        "cachemw delete: cow: not in the cache\n",
    )
    assert ids(cache) == ["cat", ODD]


@pytest.mark.parametrize(
    ("pattern", "left"),
    [("?og", ["cat", ODD]), ("http://*", ["cat", "dog"]), ("*", []), ("[A-Z]*", None)],
)
def test_delete_by_pattern(run, cache, pattern, left):
    before = ids(cache)

    status, _, err = run("delete", "--glob", pattern)

    assert (status, err) == (0, "")
    assert ids(cache) == (before if left is None else left)


def test_delete_all_removes_parts_too(lines, cache):
    from cachemw.drivers.base import Record

    sink = cache.driver.start_fill("half")
    sink.announce(Record("half", 0, ""), 10)
    sink.write(bytes(4))
    sink.leave()
    sink.close()

    assert sorted(row[0] for row in lines("delete", "--all")) == ["cat", "dog", "half", SHOWN]
    assert ids(cache) == cache.get_partial_images() == []


def test_delete_from_the_queue_leaves_the_cache_alone(run, lines, cache):
    cache.queue_image("other")

    assert run("delete", "--queue", "cat")[0] == 1
    assert lines("delete", "--queue", "--glob", "wait*") == [["waiting"]]
    assert cache.get_queued_images() == ["other"]
    assert lines("delete", "--queue", "--all") == [["other"]]
    assert cache.get_queued_images() == []
    assert len(ids(cache)) == 3


@pytest.mark.parametrize("arguments", [[], ["cat", "--all"], ["--all", "--glob", "*"]])
def test_delete_wants_exactly_one_way_to_choose(run, cache, arguments):
    status, out, err = run("delete", *arguments)

    assert (status, out) == (2, "")
    assert "expected ids, or --all, or --glob PATTERN" in err
    assert len(ids(cache)) == 3


# prune and clean


def test_prune_deletes_what_was_read_longest_ago(lines, cache):
    assert lines("prune", "--max-size", "500") == [
        ["failed", "7", "invalid"],
        ["abandoned", "5", "fill"],
        ["cat", "100", "image"],
    ]
    assert ids(cache) == ["dog", ODD]
    assert lines("prune", "--max-size", "500") == []


def test_prune_goes_by_the_option_else(directory, run, cache):
    assert run("prune", "--set", "max_size=300")[1].splitlines()[-1] == "dog\t200\timage"
    assert ids(cache) == [ODD]
    assert run("prune") == (0, "", "")


def test_prune_reports_in_steps_and_lets_go_of_the_lock_between(cache, monkeypatch):
    from cachemw.core import capacity

    monkeypatch.setattr(capacity, "STEP", 1)
    steps = []
    for number in range(20):
        cache.cache_image_iter(f"image-{number:02}", [bytes(10)])

    def report(victims, done, total):
        assert not cache.driver.lock.is_mine()
        steps.append((sum(victim.size for victim in victims), done, total))

    images, freed = cache.prune(0, report)

    assert (images, freed) == (23, 812)
    assert len(steps) > 10
    assert [done for _, done, _ in steps] == [
        sum(size for size, _, _ in steps[: place + 1]) for place in range(len(steps))
    ]
    assert {total for _, _, total in steps} == {812}


def test_clean_prints_how_many_files_went(run, directory):
    assert run("clean", "--stall-time", "0") == (0, "2\n", "")
    assert run("clean", "--stall-time", "0") == (0, "0\n", "")


def test_clean_as_json_says_which(document):
    assert sorted(row["image_id"] for row in document("clean", "--stall-time", "0")) == [
        "abandoned",
        "failed",
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["prune", "--max-size", "450"],
        ["clean", "--stall-time", "0"],
        ["delete", "--all"],
        ["delete", "--glob", "*o*"],
        ["delete", "dog"],
        ["delete", "--queue", "--all"],
    ],
    ids=" ".join,
)
def test_dry_run_says_the_same_and_changes_nothing(document, cache, directory, command):
    before, listed = files(directory), cache.get_cached_images()

    planned = document(*command, "--dry-run")

    assert files(directory) == before
    assert cache.get_cached_images() == listed
    assert planned
    assert document(*command) == planned
    assert files(directory) != before


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["prune", "--max-size", "lots"], "--max-size 'lots': expected bytes or a size"),
        (["top", "--interval", "often"], "--interval 'often': expected seconds"),
        (["delete", ""], "expected 1 to 2000 characters"),
    ],
)
def test_a_bad_value_is_one_clear_line(run, command, complaint):
    status, out, err = run(*command)

    assert (status, out) == (2, "")
    assert complaint in err
    assert len(err.splitlines()) == 1


# stats


def test_stats_are_named_by_where_they_stand(run, monkeypatch):
    from cachemw.core import statistics
    from tests.unit.commands.snapshots import snapshot

    monkeypatch.setattr(statistics, "snapshot", lambda cache: snapshot())
    status, out, _ = run("stats")
    rows = dict(line.split("\t") for line in out.splitlines())

    assert status == 0
    assert rows["totals.requests.hit"] == "10000"
    assert rows["size.max"] == str(10 * 2**30)
    assert rows["rates.10s.hit_ratio"] == "0.9"
    assert rows["rates.10m.hit_ratio"] == ""
    assert (rows["fills"], rows["queue"]) == ("2", "2")
    assert json.loads(run("stats", "--json")[1]) == snapshot()


def test_stats_are_rounded_on_a_terminal(cache, directory, monkeypatch):
    from cachemw.core import statistics
    from tests.unit.commands.snapshots import snapshot

    monkeypatch.setattr(statistics, "snapshot", lambda cache: snapshot())
    terminal = Terminal()
    with redirect_stdout(terminal):
        assert main(["stats", "--dir", str(directory)]) == 0
    rows = dict(line.split(maxsplit=1) for line in terminal.getvalue().splitlines())

    assert rows["size.max"] == "10.0 GiB"
    assert rows["rates.10s.hit_ratio"] == "90 %"
    assert rows["rates.10s.bytes_app"] == "512.0 KiB/s"
    assert rows["rates.10s.requests"] == "1.5/s"
    assert rows["totals.bytes.cache"] == "5.0 TiB"
    assert rows["totals.requests.hit"] == "10,000"
