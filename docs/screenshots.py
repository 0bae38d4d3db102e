"""Make the pictures of the dashboard that the README and the how-to show.

``python docs/screenshots.py`` writes them into ``docs/images/``. It needs what the tests
need, and a Chromium; with ``pngquant`` the files are a third as large. The numbers in them
are made up, by ``tests/management.py``, and the same each time.

Imports: nothing of ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser import Page, chromium  # noqa: E402 - after its folder is known
from tests.management import Management, fill_with_work, make_images, served  # noqa: E402

IMAGES = ROOT / "docs" / "images"

#: When the pictures were taken, if one believes them.
NOW = 1_790_001_000.0

#: Name: width, height, theme, pixels of the picture for each of the page's.
PICTURES = {
    "dashboard-light": (1440, 1120, "light", 1.0),
    "dashboard-dark": (1440, 1120, "dark", 1.0),
    "dashboard-phone": (390, 844, "light", 1.5),
}

#: The README has room for no larger ones (bytes).
LARGEST = 150_000


def take(page: Page, url: str, name: str) -> bytes:
    """Give one picture."""
    width, height, scheme, scale = PICTURES[name]
    page.view(width, height, scheme=scheme, scale=scale)
    page.open(url)
    page.wait_for("document.querySelectorAll('#images tr').length")
    page.wait_for("document.querySelectorAll('.canvas path.line').length")
    return page.screenshot()


def reduce(path: Path) -> None:
    """Give it as many colours as it needs, where there is a program for that."""
    if program := shutil.which("pngquant"):
        subprocess.run(
            [program, "--force", "--skip-if-larger", "--output", path, "128", path], check=False
        )
    if path.stat().st_size > LARGEST:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}")


def main() -> None:
    os.environ["TZ"] = "UTC"
    management = Management(make_images(2000, NOW), clock=lambda: NOW)
    fill_with_work(management, NOW)
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        served(management) as url,
        chromium(Path(folder)) as browser,
        browser.page() as page,
    ):
        for name in PICTURES:
            path = IMAGES / f"{name}.png"
            path.write_bytes(take(page, url, name))
            reduce(path)
            print(path.relative_to(ROOT), path.stat().st_size)


if __name__ == "__main__":
    main()
