"""A snapshot of statistics, as the core takes it."""

from __future__ import annotations

import copy
import time

#: Noon, where the test runs.
NOON = time.mktime((2026, 1, 2, 12, 0, 0, 0, 0, -1))

RATE = {
    "requests": 1.5,
    "bytes": 2.5 * 2**20,
    "bytes_cache": 2 * 2**20,
    "bytes_app": 2**19,
    "hit_ratio": 0.9,
    "byte_hit_ratio": 0.8,
}

SNAPSHOT = {
    "time": NOON,
    "version": "0.1.0",
    "dir": "/var/cache/images",
    "driver": "sqlite",
    "size": {
        "used": 5 * 2**30,
        "entries": 4 * 2**30,
        "max": 10 * 2**30,
        "free": 120 * 2**30,
        "min_free": 2**30,
    },
    "images": 1234,
    "partial_images": 1,
    "totals": {
        "requests": {
            "hit": 10000,
            "miss": 200,
            "collapsed": 30,
            "revalidated": 0,
            "stale": 0,
            "pass": 4,
            "bypass": 0,
            "error": 0,
        },
        "bytes": {"sent": 6 * 2**40, "cache": 5 * 2**40, "app": 2**40},
        "fills": {
            "started": 205,
            "committed": 200,
            "resumed": 3,
            "taken_over": 1,
            "rolled_back": {"checksum": 1, "length": 1},
        },
        "evictions": {"images": 17, "bytes": 3 * 2**30},
        "verification_failures": 2,
    },
    "rates": {
        "10s": RATE,
        "1m": {**RATE, "requests": 120.4, "hit_ratio": 0.5},
        "10m": {
            "requests": 0,
            "bytes": 0,
            "bytes_cache": 0,
            "bytes_app": 0,
            "hit_ratio": None,
            "byte_hit_ratio": None,
        },
    },
    "fills": [
        {
            "image_id": "http://images.example/ubuntu-24.04-live-server-amd64.iso",
            "received": 2**30,
            "length": 3 * 2**30,
            "followers": 3,
            "since": NOON - 100,
            "rate": 10 * 2**20,
        },
        {
            "image_id": "unknown-length\x1b[31m",
            "received": 5 * 2**20,
            "length": None,
            "followers": 0,
            "since": NOON - 5,
            "rate": 2**20,
        },
    ],
    "queue": [{"image_id": "q1", "set_aside": False}, {"image_id": "q2", "set_aside": True}],
    "invalid": [
        {"image_id": "bad", "size": 1, "reason": "checksum", "last_modified": NOON},
    ],
    "biggest": [],
    "hottest": [
        {
            "image_id": f"image-{number}",
            "size": number * 2**20,
            "hits": 10000 // number,
            "last_accessed": NOON - 30 * number,
            "last_modified": NOON - 1000,
            "checksum": "sha256:00",
        }
        for number in range(1, 11)
    ],
    "coldest": [],
    "jobs": [],
}


def snapshot(**changes):
    """Give a snapshot of its own, with some parts changed."""
    return {**copy.deepcopy(SNAPSHOT), **changes}
