"""From the settings of HTTP to what the gateway is told."""

from __future__ import annotations

import os

from penstock.http_settings import HttpSettings
from penstock_gateway.options import CloudRoutes, Options

__all__ = ["gateway_options"]


def gateway_options(settings: HttpSettings) -> Options:
    """Also reads the environment variables with which clouds say their routes."""
    return Options(
        max_body_bytes=settings.http_max_input_size,
        max_json_bytes=settings.http_max_json_size,
        max_buffered_bytes=settings.http_max_buffered_bytes,
        max_header_bytes=settings.http_max_header_bytes,
        max_connections=settings.http_max_connections,
        header_timeout_s=settings.http_header_timeout_secs,
        body_timeout_s=settings.http_body_timeout_secs,
        write_timeout_s=settings.http_write_timeout_secs,
        cors_origins=settings.http_cors_origin,
        forward_headers=tuple(name.lower() for name in settings.http_forward_header),
        has_docs=settings.http_docs,
        clouds=CloudRoutes.of(os.environ, settings.http_default_model),
    )
