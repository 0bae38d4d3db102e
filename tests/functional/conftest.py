"""What several functional suites share."""

import pytest

# Its assertions tell what they compared, as those of tests do.
pytest.register_assert_rewrite("tests.functional.fills")

from tests.functional.fills import world_in  # noqa: E402


@pytest.fixture
def world(request, tmp_path):
    """An origin, and servers on one cache directory; indirect parameter: the driver."""
    driver = getattr(request, "param", "sqlite")
    if driver == "xattr":
        request.getfixturevalue("attributes")
    with world_in(tmp_path, driver) as made:
        yield made
