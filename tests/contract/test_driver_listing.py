"""Searching, sorting and paging through what a driver has."""

import random

import pytest

from cachemw.drivers.listing import SORTS
from cachemw.errors import ImageNotFound

from .drivers import hit, store

IDS = ("a", "a/b", "Zebra", "cat", "dog", "ä", "\udcff", "http://host/b%20c?d", "zz")


@pytest.fixture
def filled(driver):
    chance = random.Random(5)
    for image_id in IDS:
        store(driver, image_id, bytes(chance.choice((3, 5, 8))))
        for _ in range(chance.randrange(3)):
            hit(driver, image_id)
    return driver


def ids_of(images):
    return [image["image_id"] for image in images]


def pages(driver, *, by_value=False, **query):
    """Go through a listing page by page."""
    images = page = driver.find_images(**query)
    while page:
        last = page[-1]
        value = last[query["sort"]] if by_value and query["sort"] != "image_id" else None
        page = driver.find_images(marker=last["image_id"], marker_value=value, **query)
        images = images + page
    return images


def test_by_default_it_is_the_whole_listing(filled):
    assert filled.find_images() == filled.get_cached_images()
    assert filled.count_images() == len(IDS)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", SORTS)
def test_each_order_is_the_one_of_all_and_pages_add_up_to_it(filled, sort, descending):
    whole = filled.find_images(sort=sort, descending=descending)

    expected = filled.get_cached_images()
    expected.sort(key=lambda image: (image[sort], image["image_id"]), reverse=descending)
    assert whole == expected
    for limit in (1, 2, 100):
        query = {"sort": sort, "descending": descending, "limit": limit}
        assert len(filled.find_images(**query)) == min(limit, len(IDS))
        assert pages(filled, **query) == whole
        assert pages(filled, by_value=True, **query) == whole


def test_a_search_finds_a_part_of_an_id_wherever_it_is(filled):
    assert ids_of(filled.find_images(search="b")) == ["Zebra", "a/b", "http://host/b%20c?d"]
    assert ids_of(filled.find_images(search="%20")) == ["http://host/b%20c?d"]
    assert ids_of(filled.find_images(search="\udcff")) == ["\udcff"]
    assert filled.find_images(search="_") == filled.find_images(search="A") == []
    assert filled.count_images("b") == 3
    assert filled.count_images("nothing") == 0


def test_a_search_is_paged_too(filled):
    query = {"search": "a", "sort": "size", "limit": 1, "descending": True}

    assert sorted(ids_of(pages(filled, **query))) == ["Zebra", "a", "a/b", "cat"]


@pytest.mark.parametrize("sort", SORTS)
def test_a_marker_that_was_deleted_keeps_its_place_if_that_is_given(filled, sort):
    whole = filled.find_images(sort=sort)
    marker = whole[3]
    filled.delete_cached_image(marker["image_id"])
    value = None if sort == "image_id" else marker[sort]

    rest = filled.find_images(sort=sort, marker=marker["image_id"], marker_value=value)

    assert rest == whole[4:]


def test_a_marker_that_nobody_knows_is_an_error(filled):
    assert ids_of(filled.find_images(marker="b", limit=1)) == ["cat"]
    with pytest.raises(ImageNotFound, match="none: is no marker"):
        filled.find_images(sort="hits", marker="none")


def test_an_unknown_order_is_an_error(filled):
    with pytest.raises(ValueError, match="sort 'name': expected one of image_id, size"):
        filled.find_images(sort="name")


def test_variants_of_one_image_stay_on_one_page(driver):
    for variant in range(3):
        store(driver, "cat", b"image", variant=variant)
    store(driver, "dog")

    for sort in ("image_id", "size"):
        first = driver.find_images(sort=sort, limit=1)
        rest = driver.find_images(sort=sort, limit=1, marker="cat")
        assert ids_of(first) == ["cat"] * 3
        assert ids_of(rest) == ["dog"]
    assert driver.count_images() == 4
    assert ids_of(driver.find_image("cat")) == ["cat"] * 3


def test_one_image_is_described(filled):
    listed = {image["image_id"]: image for image in filled.get_cached_images()}

    for image_id in IDS:
        assert filled.find_image(image_id) == [listed[image_id]]
    assert filled.find_image("none") == []
