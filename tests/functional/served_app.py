"""The app that tests/functional/test_servers.py has real servers load.

``CACHEMW_TEST_DIR`` holds the images, in ``origin``, and the cache.
"""

import os

from cachemw import CacheFilter
from cachemw.web.apps.images import ImagesApp

DIRECTORY = os.environ["CACHEMW_TEST_DIR"]

app = CacheFilter(
    ImagesApp(os.path.join(DIRECTORY, "origin")),
    dir=os.path.join(DIRECTORY, "cache"),
    min_free=0,
)
