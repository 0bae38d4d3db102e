"""Lines of the access log: one a request, whole, from any number of writers."""

import threading
import urllib.parse

from hypothesis import given
from hypothesis import strategies as st

from cachemw.web.access_log import AccessLog, line, quoted


def test_line_has_time_outcome_status_size_bytes_and_id():
    assert line(1700000000.1234, "hit", "206", 1048576, 200, "http://a/b c") == (
        b"1700000000.123 hit 206 1048576 200 http://a/b%20c\n"
    )


def test_unknown_size_is_a_dash():
    assert line(0, "pass", "404", None, 0, "x") == b"0.000 pass 404 - 0 x\n"


@given(st.text(min_size=1))
def test_id_is_one_field_of_one_line_and_can_be_read_again(image_id):
    text = quoted(image_id)

    assert len(text.split()) == 1
    assert len(text.splitlines()) == 1
    again = urllib.parse.unquote(text, encoding="utf-8", errors="surrogatepass")
    assert again == image_id


def test_threads_do_not_mix_their_lines(tmp_path):
    log = AccessLog(str(tmp_path / "log"))

    def write(number):
        for _ in range(200):
            log.write(0, "hit", "200", None, 0, str(number) * 50)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1000
    assert {one.split()[-1] for one in lines} == {str(number) * 50 for number in range(5)}


def test_file_that_was_moved_away_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("cachemw.web.access_log._LOOK_AGAIN", -1.0)
    log = AccessLog(str(tmp_path / "log"))
    log.write(0, "hit", "200", 1, 1, "one")
    (tmp_path / "log").rename(tmp_path / "log.1")

    log.write(0, "hit", "200", 1, 1, "two")

    assert "one" in (tmp_path / "log.1").read_text()
    assert (tmp_path / "log").read_text().split()[-1] == "two"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


def test_log_that_cannot_be_written_is_said_once_and_taken_up_again(tmp_path, caplog):
    log = AccessLog(str(tmp_path / "missing" / "log"))
    log.write(0, "hit", "200", 1, 1, "one")
    log.write(0, "hit", "200", 1, 1, "two")
    (tmp_path / "missing").mkdir()
    log.write(0, "hit", "200", 1, 1, "three")

    assert caplog.text.count("cannot be written") == 1
    assert (tmp_path / "missing" / "log").read_text().split()[-1] == "three"
