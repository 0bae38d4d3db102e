"""What the management API has done in the background.

Imports: core.cache, core.jobs, web.manage.answers, web.manage.asked.
"""

from __future__ import annotations

from typing import Any

from ...core.cache import ImageCache
from ...core.jobs import Job, Jobs
from .answers import Answer, Problem, as_json
from .asked import Asked

#: Seconds that an answer waits for a job that is done quickly.
_PATIENCE = 1.0


def start_job(cache: ImageCache, asked: Asked) -> Answer:
    """``POST /v2/cache/prune|clean|check``, with options as JSON."""
    jobs = Jobs(cache)
    try:
        job = jobs.start(asked.argument, asked.options())
    except ValueError as exc:
        raise Problem(400, str(exc)) from None
    job = jobs.wait(job, _PATIENCE)
    location = f"{asked.base}/v2/cache/jobs/{job.id}"
    return as_json({**job.as_dict(), **_for_glance(job)}, 202, {"Location": location})


def list_jobs(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /v2/cache/jobs``: the newest first."""
    return as_json({"jobs": [job.as_dict() for job in Jobs(cache).list()]})


def show_job(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /v2/cache/jobs/{job}``."""
    job = Jobs(cache).get(asked.argument)
    if job is None:
        raise Problem(404, "there is no such job")
    return as_json(job.as_dict())


def _for_glance(job: Job) -> dict[str, Any]:
    """Give what Glance's client prints of a prune."""
    if job.kind != "prune" or job.result is None:
        return {}
    return {
        "total_files_pruned": job.result["images"],
        "total_bytes_pruned": job.result["bytes"],
    }
