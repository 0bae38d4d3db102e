"""The sqlite driver's index by itself."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachemw.drivers import _finding, _index
from cachemw.drivers._index import Index, IndexBroken, IndexNew
from cachemw.drivers.listing import Query
from cachemw.errors import DriverError


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "cache.db")


@pytest.fixture
def index(path):
    index = Index(path, durable=False)
    with index.filling():
        pass
    yield index
    index.close()


def row(name, accessed=1.0, size=10, image_id=None):
    return name, (image_id or name).encode(), size, accessed, 5.0, None


def test_rows_are_listed_by_id(index):
    index.put([row("_1", image_id="zebra"), row("b"), row("a", size=5)])

    assert [image["image_id"] for image in index.listing()] == ["a", "b", "zebra"]
    assert index.total() == 25
    assert {n: size for n, (size, _) in index.stamps().items()} == {"_1": 10, "a": 5, "b": 10}
    assert index.has("a")
    assert not index.has("zebra")


def test_the_total_follows_every_change(index):
    index.put([row("a", size=7), row("b", size=5)])
    index.put([row("a", size=100)])
    assert index.total() == 105
    index.remove(["a", "none"])
    assert index.total() == 5


def test_a_row_put_again_keeps_its_hits_and_its_later_access(index):
    index.put([row("a", accessed=9.0)])
    assert index.add_hits({"a": (3, 11.0), "none": (1, 1.0)}) == ["none"]
    index.put([row("a", accessed=4.0, size=3)])

    [image] = index.listing()
    assert (image["hits"], image["last_accessed"], image["size"]) == (3, 11.0, 3)


def test_the_oldest_come_first(index):
    index.put([row("a", 3.0), row("b", 1.0), row("c", 2.0)])
    index.add_hits({"b": (1, 9.0)})

    assert [name for name, _, _ in index.oldest(2)] == ["c", "a"]
    assert index.hits("b") == 1
    assert index.hits("none") == 0


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("SELECT name, id, size FROM entries ORDER BY accessed LIMIT ?", (1,)),
        ("SELECT hits FROM entries WHERE name = ?", ("a",)),
        ("DELETE FROM entries WHERE name = ?", ("a",)),
        (_index._UPSERT, row("a")),
    ],
)
def test_no_statement_but_listing_looks_at_every_row(index, statement, parameters):
    plan = index._run(lambda c: c.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall())
    text = " ".join(row[-1] for row in plan)

    assert "TEMP B-TREE" not in text
    assert "SCAN entries" not in text or "SCAN entries USING INDEX" in text


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    "query", [{}, {"marker": "a"}, {"search": "x"}, {"search": "x", "marker": "a"}]
)
def test_a_page_by_id_is_not_sorted(index, query, descending):
    statement, *parameters = _finding.find(Query(limit=10, descending=descending, **query))
    plan = index._run(lambda c: c.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall())
    [(*_, text)] = plan

    how = "SEARCH" if "marker" in query else "SCAN"
    assert text.startswith(f"{how} entries USING INDEX entries_by_id")


def test_an_index_of_an_earlier_version_gets_what_it_is_without(index, path):
    index.put([row("a")])
    index.close()
    connection = sqlite3.connect(path)
    connection.execute("DROP INDEX entries_by_id")
    connection.commit()
    connection.close()

    assert index.total() == 10
    names = index._all("SELECT name FROM sqlite_schema WHERE type = 'index' ORDER BY name")
    assert ("entries_by_id",) in names


def test_another_connection_of_the_process_takes_no_lock_away(path, run_python):
    """fcntl(2): closing any descriptor of a file lets go of the process's locks on it."""
    output = run_python(
        """
import os, sys
from cachemw.drivers._index import Index

def locks():
    inode = os.stat(sys.argv[1]).st_ino
    lines = [line.split() for line in open("/proc/locks")]
    return sum(int(line[4]) == os.getpid() and line[5].endswith(f":{inode}") for line in lines
               if line[1] == "POSIX")

indexes = [Index(sys.argv[1], durable=False) for _ in range(2)]
with indexes[0].filling():
    pass
before = locks()
indexes[1].total()
print(before, locks())
""",
        path,
    )

    before, after = map(int, output.split())
    assert before > 0
    assert after >= before


def test_an_index_is_new_until_it_was_filled(path):
    index, other = Index(path, durable=False), Index(path, durable=False)
    for call in (index.total, other.total, index.listing, lambda: index.has("a")):
        with pytest.raises(IndexNew):
            call()
    with index.filling():
        index.put([row("a")])
        assert index.total() == 10
        with pytest.raises(IndexNew):
            other.total()
        with ThreadPoolExecutor(1) as another, pytest.raises(IndexNew):
            another.submit(index.total).result()
    assert index.total() == other.total() == 10
    index.close()
    other.close()


def test_an_index_whose_filling_failed_stays_new(path):
    index = Index(path, durable=False)
    with pytest.raises(ZeroDivisionError), index.filling():
        raise ZeroDivisionError
    with pytest.raises(IndexNew):
        index.total()
    index.close()


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE entries", "DROP TABLE totals", "DELETE FROM totals", "ALTER TABLE totals ADD x"],
)
def test_a_schema_that_is_not_ours_any_more_is_broken(index, path, statement):
    connection = sqlite3.connect(path)
    connection.executescript(f"DROP TRIGGER entry_added; {statement}")
    connection.close()

    if statement.startswith("ALTER"):
        assert index.total() == 0
    else:
        with pytest.raises(IndexBroken):
            index.total()
            index.stamps()


def test_a_file_that_is_no_database_is_broken_and_can_be_set_aside(path, tmp_path):
    (tmp_path / "cache.db").write_bytes(b"garbage" * 1000)
    index = Index(path, durable=False)
    with pytest.raises(IndexBroken, match=r"cache\.db"):
        index.total()
    index.set_aside()

    assert (tmp_path / ".broken-cache.db").read_bytes() == b"garbage" * 1000
    with index.filling():
        assert index.total() == 0
    index.set_aside()
    index.set_aside()
    index.close()


def test_a_locked_index_is_trouble_but_not_broken(index, path, monkeypatch):
    index.close()
    monkeypatch.setattr(_index, "_BUSY", 0.01)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(DriverError, match="locked") as caught:
        index.put([row("a")])
    connection.close()

    assert not isinstance(caught.value, IndexBroken | IndexNew)
    index.put([row("a")])
    assert index.total() == 10


def test_an_index_that_is_replaced_is_opened_again(index, path, tmp_path):
    index.put([row("a")])
    index.checkpoint()
    other = Index(str(tmp_path / "other.db"), durable=False)
    with other.filling():
        other.put([row("b")])
    other.close()
    os.replace(tmp_path / "other.db", path)
    for suffix in ("-wal", "-shm"):
        os.unlink(path + suffix)

    assert [image["image_id"] for image in index.listing()] == ["b"]


def test_a_link_is_not_followed(path, tmp_path):
    (tmp_path / "victim").write_bytes(b"")
    os.symlink("victim", path)
    index = Index(path, durable=False)

    with pytest.raises(DriverError, match="symbolic"):
        index.total()
    assert (tmp_path / "victim").read_bytes() == b""


def test_files_are_private(index, path):
    index.put([row("a")])
    for suffix in ("", "-wal", "-shm"):
        assert os.stat(path + suffix).st_mode & 0o777 == 0o600


def test_the_log_is_cut_when_it_is_long(index, path, monkeypatch):
    monkeypatch.setattr(_index, "CHECKPOINT_AT", 32 * 1024)
    assert not index.wants_checkpoint()
    for number in range(20):
        index.put([row(f"a{number}")])
    assert index.wants_checkpoint()
    index.checkpoint()

    assert os.path.getsize(path + "-wal") == 0
    assert not index.wants_checkpoint()
    assert index.total() == 200


def test_a_reader_that_stays_keeps_a_checkpoint_from_waiting(index, path, monkeypatch):
    monkeypatch.setattr(_index, "CHECKPOINT_AT", 1)
    monkeypatch.setattr(_index, "_CHECKPOINT_WAIT", 0.001)
    index.put([row("a")])
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM entries").fetchall()
    index.put([row("b")])
    index.checkpoint()  # not complete, and no error
    reader.close()

    index.checkpoint()
    assert os.path.getsize(path + "-wal") == 0


@pytest.mark.parametrize(
    "columns", ["image_id TEXT, other TEXT", "image_id TEXT, hits TEXT, last_accessed TEXT"]
)
def test_an_odd_table_of_glance_does_no_harm(index, path, columns):
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE cached_images ({columns})")
    values = ("a", "b", "c")[: columns.count(",") + 1]
    connection.execute(f"INSERT INTO cached_images VALUES ({','.join('?' * len(values))})", values)
    connection.commit()
    connection.close()

    assert index.glance_rows() in ({}, {"a": (0, 0.0)})


def test_no_connection_is_open_in_a_fork(index, path, run_python):
    """What SQLite knows of an open file is wrong in a child."""
    run_python(
        """
import os, sys
from cachemw.drivers._index import Index
index = Index(sys.argv[1], durable=False)
assert index.total() == 0
pid = os.fork()
links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if
         os.path.exists(f"/proc/self/fd/{fd}")]
assert not [link for link in links if "cache.db" in link], links
assert index.total() == 0
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
""",
        path,
    )
