# SPDX-License-Identifier: Apache-2.0
"""The whole environment of an app, built from empty (spec runtime §1.6, §3.7)."""

from __future__ import annotations

from rkt.stage0.contract import DEFAULT_ENVIRONMENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.schema.appc import App


def build_environment(app_name: str, app: App, metadata_url: str) -> dict[bytes, bytes]:
    """Defaults, what the manifest says, and what tells the app where it is."""
    values = {
        **DEFAULT_ENVIRONMENT,
        **{str(name): value for name, value in app.environment.items()},
        "AC_APP_NAME": app_name,
        "container": "rkt",
    }
    if metadata_url:
        values["AC_METADATA_URL"] = metadata_url
    return {name.encode(): value.encode("utf-8", "surrogateescape") for name, value in values.items()}
