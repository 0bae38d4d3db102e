"""A stand-in for Keystone's ``authtoken`` filter: a token says itself who its bearer is.

``X-Auth-Token: project.user.role-role`` becomes the fields that the real
filter would set, and such fields from the client are dropped as it would.

Runs in Glance's own environment: imports nothing of ours.
"""

from __future__ import annotations

_IDENTITY = (
    "HTTP_X_IDENTITY_STATUS",
    "HTTP_X_PROJECT_ID",
    "HTTP_X_ROLES",
    "HTTP_X_USER_ID",
)


def filter_factory(global_conf, **local_conf):
    """Take the place of ``keystonemiddleware.auth_token:filter_factory``."""

    def make_filter(app):
        def with_identity(environ, start_response):
            for key in _IDENTITY:
                environ.pop(key, None)
            values = environ.get("HTTP_X_AUTH_TOKEN", "").split(".")
            if len(values) == 3:
                project, user, roles = values
                identity = ("Confirmed", project, roles.replace("-", ","), user)
            else:
                identity = ("Invalid", "", "", "")
            environ.update(zip(_IDENTITY, identity, strict=True))
            return app(environ, start_response)

        return with_identity

    return make_filter
