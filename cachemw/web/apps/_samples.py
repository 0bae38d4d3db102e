"""A few images to try the server with: the same bytes on every machine.

The disks are random bytes, so that nothing on the way can compress them.

Imports: nothing of ours.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterable, Iterator

_BLOCK = 2**20

#: Sizes of the sample disks, in MiB.
_DISKS = (8, 64)

_PHOTO = b"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 400" role="img" aria-label="A lake">
  <defs>
    <linearGradient id="sky" x2="0" y2="1">
      <stop offset="0" stop-color="#20306b"/>
      <stop offset=".6" stop-color="#e2876b"/>
      <stop offset="1" stop-color="#f9dca0"/>
    </linearGradient>
  </defs>
  <rect width="640" height="400" fill="url(#sky)"/>
  <circle cx="450" cy="215" r="38" fill="#fff4cf"/>
  <path d="M0 260 110 150 190 225 300 110 420 240 520 170 640 255V400H0Z" fill="#3b3f6b"/>
  <path d="M0 290Q160 245 320 285T640 275V400H0Z" fill="#262a4d"/>
  <rect y="318" width="640" height="82" fill="#51608f"/>
  <path d="M405 330H495M420 345H480M432 360H468" stroke="#f9dca0" stroke-width="4"/>
</svg>
"""


def add_samples(directory: str) -> None:
    """Put sample images into a directory that is missing or empty; leave any other alone.

    Each file appears under its name only when all of it is on the disk. Two
    processes that do this at once put the same bytes there.

    :raises OSError: they could not be written.
    """
    os.makedirs(directory, exist_ok=True)
    if any(not name.startswith(".") for name in os.listdir(directory)):
        return
    _write(directory, "photo.svg", [_PHOTO])
    for mebibytes in _DISKS:
        _write(directory, f"disk-{mebibytes}MiB.img", _noise(mebibytes))
    _sync_directory(directory)


def _noise(mebibytes: int) -> Iterator[bytes]:
    generator = random.Random(mebibytes)
    for _ in range(mebibytes):
        yield generator.randbytes(_BLOCK)


def _write(directory: str, name: str, blocks: Iterable[bytes]) -> None:
    """Write under a temporary name, sync, then rename."""
    descriptor, temporary = tempfile.mkstemp(prefix=".sample-", dir=directory)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            for block in blocks:
                file.write(block)
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.rename(temporary, os.path.join(directory, name))
    except BaseException:
        os.unlink(temporary)
        raise


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
