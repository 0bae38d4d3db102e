"""The tree of exceptions is what its module says."""

import inspect
import pickle
import re

import pytest

from cachemw import errors

CLASSES = {
    name: thing
    for name, thing in vars(errors).items()
    if inspect.isclass(thing) and thing.__module__ == "cachemw.errors" and not name.startswith("_")
}


def drawn_tree():
    """Read the docstring's drawing: (class, the one that it hangs from)."""
    above = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"^    ((?:[| ]  )*)(?:\|- |`- )?([A-Z]\w+)", line)
        if match is None:
            continue
        branch = line.index(match.group(2)) - 4
        depth = branch // 3
        del above[depth:]
        yield match.group(2), above[-1] if above else None
        above.append(match.group(2))


def public_parent(cls):
    return next((base.__name__ for base in cls.__mro__[1:] if base.__name__ in CLASSES), None)


def test_exports_are_all_there_is():
    assert sorted(errors.__all__) == list(errors.__all__)
    assert set(errors.__all__) == set(CLASSES)


def test_the_tree_in_the_docstring_is_true():
    assert dict(drawn_tree()) == {name: public_parent(cls) for name, cls in CLASSES.items()}


def test_catching_the_root_catches_all():
    assert all(issubclass(cls, errors.CacheMwError) for cls in CLASSES.values())


@pytest.mark.parametrize("cls", CLASSES.values(), ids=lambda cls: cls.__name__)
def test_every_error_says_what_it_is_for(cls):
    assert cls.__doc__


@pytest.mark.parametrize(
    "cls",
    [cls for cls in CLASSES.values() if issubclass(cls, (errors.DriverError, errors.FillError))],
    ids=lambda cls: cls.__name__,
)
def test_an_error_about_an_image_names_image_and_reason(cls):
    error = cls("cat", "the reason")

    assert (error.image_id, error.reason) == ("cat", "the reason")
    assert str(error) == "cat: the reason"


def test_a_bad_configuration_names_driver_directory_and_mend():
    error = errors.BadDriverConfiguration("xattr", "/cache", "it is broken", "mend it")

    assert (error.driver, error.directory) == ("xattr", "/cache")
    assert (error.reason, error.mend) == ("it is broken", "mend it")
    assert str(error) == "driver 'xattr' cannot use '/cache': it is broken; mend it"


@pytest.mark.parametrize(
    "error",
    [
        errors.BadDriverConfiguration("xattr", "/cache", "no attributes", "mount it so"),
        errors.ImageNotFound("cat", "not in the cache"),
        errors.ChecksumMismatch("cat", "md5 is wrong"),
        errors.ConfigError("no"),
    ],
)
def test_error_survives_the_way_to_another_process(error):
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
