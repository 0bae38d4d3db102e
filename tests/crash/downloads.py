"""Download some images through the filter, and see that each came right.

``python -m tests.crash.downloads DIRECTORY DRIVER REPORT`` is what runs under
strace.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cachemw import CacheFilter
from cachemw.errors import BadDriverConfiguration

from .origin import LARGE, ROUTES, Origin, download

#: 1 KB, 700 KB, 3 MiB, then so many small ones that every call is made 50 times.
NUMBERS = (0, 7, LARGE, *range(12, 12 * 60, 12), 0, 7, LARGE)

#: The large ones are evicted by the others.
OPTIONS: dict[str, Any] = {"max_size": 3_850_000, "min_free": 0}


def main(directory: str, driver: str, report: str) -> int:
    """Write what happened as JSON; whatever is wrong with a response ends it with a traceback."""
    result: dict[str, Any] = {"statuses": []}
    try:
        options = {"dir": directory, "driver": driver, "driver_fallback": False, **OPTIONS}
        app = CacheFilter(Origin(), routes=ROUTES, **options)
        app._background.end()  # whose calls would be counted too
    except BadDriverConfiguration as exc:
        result["refused"] = str(exc)
    else:
        for number in NUMBERS:
            answer = download(app, number)
            answer.assert_right(number)
            result["statuses"].append(answer.cache_status)
        app.cache.close()
    Path(report).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
