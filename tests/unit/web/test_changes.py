"""What is remembered of changed images."""

from cachemw.web.changes import Changes


def test_change_is_after_what_was_before_it_and_before_what_is_after():
    changes = Changes()
    before = changes.count
    changes.note("cat")

    assert changes.since("cat", before)
    assert not changes.since("cat", changes.count)
    assert not changes.since("dog", before)


def test_second_change_counts():
    changes = Changes()
    changes.note("cat")
    between = changes.count
    changes.note("cat")

    assert changes.since("cat", between)


def test_what_is_forgotten_may_have_changed():
    """It costs a copy that is not stored, never an old one that is."""
    changes = Changes(most=2)
    before = changes.count
    for image_id in ("cat", "dog", "emu"):
        changes.note(image_id)

    assert changes.since("cat", before)
    assert changes.since("fox", before)
    assert not changes.since("fox", 1)
    assert not changes.since("cat", changes.count)


def test_memory_is_bounded():
    changes = Changes(most=10)
    for number in range(1000):
        changes.note(str(number))

    assert len(changes._last) == 10
