"""The housekeeper: a process that prunes, cleans, and looks whether the bounds hold.

``python -m tests.stress.storm.house OPTIONS SEED`` works until its standard
input ends, and then prints what it saw.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachemw import ImageCache, names

#: Bytes by which a file may take more of the device than it is long.
PAGE = 4096


class House:
    """Keeps house, and remembers.

    :ivar largest: the most that was ever seen: bytes by the files' lengths, by the device's
        blocks (less what they are rounded up by), and by the driver's own account.
    """

    def __init__(self, cache: ImageCache, seed: str) -> None:
        self.cache = cache
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.largest = {"length": 0, "blocks": 0, "usage": 0}
        self._seed = seed
        self._stop = threading.Event()

    def work(self) -> None:
        """Work until the standard input ends."""
        jobs = [
            threading.Thread(target=self._guard, args=(job,)) for job in (self._watch, self._keep)
        ]
        for job in jobs:
            job.start()
        sys.stdin.read()
        self._stop.set()
        for job in jobs:
            job.join()

    def _guard(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            self.wrong.append(traceback.format_exc())

    def _watch(self) -> None:
        """As somebody sees it who holds the directory's lock, so that nothing moves meanwhile."""
        while not self._stop.wait(0.1):
            with self.cache.driver.exclusive():
                now = {**used(Path(self.cache.driver.directory))}
                now["usage"] = self.cache.driver.get_usage()
            self.largest = {kind: max(most, now[kind]) for kind, most in self.largest.items()}
            self.seen["looked"] += 1

    def _keep(self) -> None:
        choice = random.Random(f"house {self._seed}")
        while not self._stop.wait(choice.uniform(0.3, 2)):
            what = choice.random()
            if what < 0.5:
                limit = int(self.cache.settings.max_size * choice.uniform(0.3, 1))
                self.cache.prune(limit)
                self.seen["pruned"] += 1
            else:
                self.cache.clean(0 if what < 0.75 else None)
                self.seen["cleaned"] += 1


def used(directory: Path) -> dict[str, int]:
    """Give the bytes of entries, fills under way and failed fills; lock held.

    What is kept of a fill may have holes, so its length says nothing; state files are not
    counted.
    """
    length = blocks = 0
    for where in (directory, directory / "incomplete", directory / "invalid"):
        for file in where.iterdir():
            if where == directory and not names.is_entry_name(file.name):
                continue
            if where.name == "incomplete" and file.name.startswith("."):
                continue
            try:
                status = file.lstat()
            except FileNotFoundError:
                continue  # invalid/ is emptied without the lock
            if file.is_file():
                if where.name == "incomplete":
                    length += min(status.st_size, status.st_blocks * 512)
                else:
                    length += status.st_size
                blocks += max(0, status.st_blocks * 512 - PAGE)
    return {"length": length, "blocks": blocks}


def main(options: str, seed: str) -> None:
    cache = ImageCache(**json.loads(options))
    house = House(cache, seed)
    try:
        house.work()
    finally:
        cache.close()
    report: dict[str, Any] = {"seen": house.seen, "wrong": house.wrong, "largest": house.largest}
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
