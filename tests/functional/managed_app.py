"""The pipeline that tests/functional/test_manage_servers.py has a real server load.

``CACHEMW_TEST_DIR`` has ``managed.ini``, and pruning takes as long as it has a file ``hold``.
"""

import os
import time

from paste.deploy import loadapp

from cachemw import ImageCache

DIRECTORY = os.environ["CACHEMW_TEST_DIR"]

prune = ImageCache.prune


def slow_prune(self, max_size=None, *more, **options):
    while os.path.exists(os.path.join(DIRECTORY, "hold")):
        time.sleep(0.02)
    return prune(self, max_size, *more, **options)


ImageCache.prune = slow_prune

app = loadapp(f"config:{DIRECTORY}/managed.ini")
