"""Messages of externalscaler.ExternalScaler, which KEDA calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from penstock._messages import scaler_pb
from penstock.errors import InvalidArgumentError

_MAX_INT64 = (1 << 63) - 1


def parse_scaled_object(rpc: str, request: bytes) -> Mapping[str, str]:
    """The trigger's metadata that IsActive, StreamIsActive or GetMetricSpec come with."""
    message = scaler_pb.ScaledObjectRef()
    _parse(message, request, rpc)
    return dict(message.scalerMetadata)


def parse_metrics_request(request: bytes) -> tuple[Mapping[str, str], str]:
    """The trigger's metadata, and the name of the metric that is asked for."""
    message = scaler_pb.GetMetricsRequest()
    _parse(message, request, "GetMetrics")
    return dict(message.scaledObjectRef.scalerMetadata), message.metricName


def encode_is_active(is_active: bool) -> bytes:
    """The IsActiveResponse message."""
    return scaler_pb.IsActiveResponse(result=is_active).SerializeToString()


def encode_metric_spec(name: str, target: float) -> bytes:
    """The GetMetricSpecResponse message of one metric.

    The whole number beside the exact one is for releases of KEDA that know nothing else.
    """
    spec = scaler_pb.MetricSpec(
        metricName=name, targetSize=max(1, _whole(target)), targetSizeFloat=target
    )
    return scaler_pb.GetMetricSpecResponse(metricSpecs=[spec]).SerializeToString()


def encode_metric_value(name: str, value: float) -> bytes:
    """The GetMetricsResponse message of one metric; a zero is a zero in both of its fields."""
    found = scaler_pb.MetricValue(
        metricName=name, metricValue=_whole(value), metricValueFloat=value
    )
    return scaler_pb.GetMetricsResponse(metricValues=[found]).SerializeToString()


def _whole(value: float) -> int:
    return min(_MAX_INT64, math.ceil(value))


def _parse(message: Any, request: bytes, rpc: str) -> None:
    try:
        message.ParseFromString(request)
    except DecodeError:
        raise InvalidArgumentError(f"{rpc}: the request is no message of its type") from None
