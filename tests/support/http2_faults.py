"""HTTP/2 and gRPC as they must not be spoken: bytes, and what a server makes of them.

What is expected are words of `http2_peer.Findings.outcome`. Where RFC 9113 leaves a choice (a fault
of a stream may be treated as one of the connection) each is right.
"""

import gzip
import struct
from dataclasses import dataclass

from tests.support import raw_http2 as http2
from tests.support.requests import simple_request

MAX_MESSAGE_BYTES = 4 << 20
"""The limit that the server under test is given."""

CLOSED = frozenset({"closed"})
STREAM = frozenset({"closed", "reset"})
CALL = frozenset({"refused"})
ANY_ERROR = frozenset({"closed", "reset", "refused"})
HARMLESS = frozenset({"ignored"})
LAX = frozenset({"closed", "told", "reset", "refused", "answered", "ignored"})
"""gRPC's C core lets it pass, or not always: all that is asked is that nobody else suffers."""

REQUEST: bytes = simple_request().SerializeToString()
MESSAGE = http2.message(REQUEST)
CALL_HEADERS = http2.headers(1)
ENDED_CALL = CALL_HEADERS + http2.data(1, MESSAGE)

_LARGEST_WINDOW = (1 << 31) - 1
_DEFAULT_WINDOW = 65535
_INITIAL_WINDOW, _MAX_FRAME, _ENABLE_PUSH = 4, 5, 2
_SETTINGS = http2.SETTINGS


class Attack:
    """Something done to a server, and the outcomes of which one must come.

    Attributes:
        expected: they.
        grpcio: the same for grpcio's own transport, where that is otherwise.
    """

    expected: frozenset[str]
    grpcio: frozenset[str] | None

    def expected_of(self, transport: str) -> frozenset[str]:
        if transport == "grpcio" and self.grpcio is not None:
            return self.grpcio
        return self.expected


@dataclass(frozen=True)
class Fault(Attack):
    """Bytes, sent after the preface and empty settings unless they are `bare`."""

    sent: bytes
    expected: frozenset[str] = CLOSED
    grpcio: frozenset[str] | None = None
    bare: bool = False


def _block(block: bytes, flags: int = http2.END_HEADERS) -> bytes:
    return http2.frame(http2.HEADERS, flags, 1, block)


def _call(block: bytes) -> bytes:
    """A right call but for its header block."""
    return _block(block) + http2.data(1, MESSAGE)


def _body(*messages: bytes, **headers: str) -> bytes:
    further = {name.replace("_", "-"): value for name, value in headers.items()}
    return http2.headers(1, further=further) + http2.data(1, b"".join(messages))


def _raw(kind: int, stream: int, payload: bytes, flags: int = 0) -> bytes:
    return http2.frame(kind, flags, stream, payload)


PREFACES = {
    "wrong_preface": Fault(http2.PREFACE.replace(b"SM", b"XX"), bare=True),
    "garbage": Fault(bytes(range(256)) * 40, bare=True),
    "http1_get": Fault(b"GET / HTTP/1.1\r\nHost: chaos\r\n\r\n", bare=True),
    "http1_post": Fault(
        b"POST /x HTTP/1.1\r\nHost: chaos\r\nContent-Length: 99\r\n\r\n", bare=True
    ),
    "http1_upgrade": Fault(
        b"GET / HTTP/1.1\r\nHost: chaos\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        bare=True,
    ),
    "tls_hello": Fault(b"\x16\x03\x01\x02\0\1\0\1\xfc\3\3" + bytes(500), bare=True),
    "call_before_settings": Fault(http2.PREFACE + ENDED_CALL, bare=True),
    "preface_twice": Fault(http2.PREFACE),
}

FRAMES = {
    "ping_within_headers": Fault(http2.headers(1, flags=0) + _raw(http2.PING, 0, bytes(8))),
    "data_within_headers": Fault(http2.headers(1, flags=0) + http2.data(1, MESSAGE)),
    "headers_within_headers": Fault(http2.headers(1, flags=0) + http2.headers(3)),
    "continuation_of_another_stream": Fault(
        http2.headers(1, flags=0) + _raw(http2.CONTINUATION, 3, b"", http2.END_HEADERS)
    ),
    "continuation_of_nothing": Fault(_raw(http2.CONTINUATION, 1, b"", http2.END_HEADERS)),
    "continuation_after_the_end": Fault(
        CALL_HEADERS + _raw(http2.CONTINUATION, 1, b"", http2.END_HEADERS)
    ),
    "window_of_connection_overflows": Fault(http2.window_update(0, _LARGEST_WINDOW), grpcio=LAX),
    "window_of_stream_overflows": Fault(
        CALL_HEADERS + http2.window_update(1, _LARGEST_WINDOW), STREAM, grpcio=LAX
    ),
    "initial_window_too_large": Fault(http2.settings((_INITIAL_WINDOW, 1 << 31))),
    "initial_window_overflows_a_stream": Fault(
        CALL_HEADERS
        + http2.window_update(1, _LARGEST_WINDOW - _DEFAULT_WINDOW)
        + http2.settings((_INITIAL_WINDOW, _DEFAULT_WINDOW + 1)),
        STREAM,
        grpcio=LAX,
    ),
    "window_of_connection_by_nothing": Fault(http2.window_update(0, 0)),
    "window_of_stream_by_nothing": Fault(CALL_HEADERS + http2.window_update(1, 0), STREAM),
    "window_of_idle_stream": Fault(http2.window_update(9, 1), grpcio=LAX),
    "window_update_of_3_bytes": Fault(_raw(http2.WINDOW_UPDATE, 0, bytes(3))),
    "frames_too_small": Fault(http2.settings((_MAX_FRAME, 16383))),
    "frames_too_large": Fault(http2.settings((_MAX_FRAME, 1 << 24))),
    "push_enabled_twice": Fault(http2.settings((_ENABLE_PUSH, 2))),
    "settings_of_5_bytes": Fault(_raw(_SETTINGS, 0, bytes(5))),
    "settings_of_a_stream": Fault(_raw(_SETTINGS, 1, b"")),
    "settings_ack_with_payload": Fault(_raw(_SETTINGS, 0, bytes(6), http2.ACK)),
    "ping_of_7_bytes": Fault(_raw(http2.PING, 0, bytes(7))),
    "ping_of_a_stream": Fault(_raw(http2.PING, 1, bytes(8)), grpcio=LAX),
    "reset_of_3_bytes": Fault(CALL_HEADERS + _raw(http2.RST_STREAM, 1, bytes(3))),
    "reset_of_connection": Fault(http2.reset_stream(0), grpcio=LAX),
    "reset_of_idle_stream": Fault(http2.reset_stream(9), grpcio=LAX),
    "priority_of_4_bytes": Fault(_raw(http2.PRIORITY, 1, bytes(4)), STREAM, grpcio=LAX),
    "priority_of_connection": Fault(_raw(http2.PRIORITY, 0, bytes(5)), grpcio=LAX),
    "push_promise": Fault(
        CALL_HEADERS + _raw(http2.PUSH_PROMISE, 1, bytes([0, 0, 0, 2]), http2.END_HEADERS),
        grpcio=LAX,
    ),
    "goaway_of_a_stream": Fault(_raw(http2.GOAWAY, 1, bytes(8)), grpcio=LAX),
    "data_of_connection": Fault(http2.data(0, MESSAGE), grpcio=LAX),
    "data_of_idle_stream": Fault(http2.data(9, MESSAGE), grpcio=LAX),
    "data_after_the_end": Fault(ENDED_CALL + http2.data(1, MESSAGE), STREAM, grpcio=LAX),
    # What was on its way when the stream was reset is no fault, and cannot be told from this.
    "data_after_reset": Fault(
        CALL_HEADERS + http2.reset_stream(1) + http2.data(1, MESSAGE), STREAM | HARMLESS
    ),
    "headers_of_connection": Fault(http2.headers(0), grpcio=LAX),
    "headers_of_even_stream": Fault(http2.headers(2), grpcio=LAX),
    # Such a stream counts as closed, and may have been reset.
    "headers_of_earlier_stream": Fault(http2.headers(5) + http2.headers(3), STREAM | HARMLESS, LAX),
    "trailers_that_do_not_end": Fault(
        CALL_HEADERS + http2.data(1, MESSAGE, end=False) + _block(http2.field("x", "y")), STREAM
    ),
    "padding_longer_than_its_frame": Fault(
        CALL_HEADERS + _raw(http2.DATA, 1, b"\xff" + bytes(9), http2.PADDED), grpcio=LAX
    ),
    "frame_of_16_mb": Fault(CALL_HEADERS + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(1000)),
}

HPACK = {
    "index_zero": Fault(_block(b"\x80")),
    "index_beyond_the_table": Fault(_block(b"\xff\x80\x01")),
    "table_larger_than_allowed": Fault(_block(b"\x3f\xff\xff\xff\x0f")),
    "table_resized_within_a_block": Fault(_block(http2.field("a", "b") + b"\x20"), grpcio=LAX),
    "integer_without_end": Fault(_block(b"\xff" + b"\xff" * 20)),
    "string_longer_than_its_block": Fault(_block(b"\0\x01a\x7f\xff\xff\xff\x07b")),
    "huffman_end_of_string": Fault(_block(b"\0\x01a\x84\xff\xff\xff\xff"), grpcio=LAX),
    "huffman_padding_of_zeros": Fault(_block(b"\0\x01a\x81\x00")),
}

HEADS = {
    "upper_case_name": Fault(_call(http2.header_block() + http2.field("Upper", "x")), ANY_ERROR),
    "name_without_letters": Fault(_call(http2.header_block() + http2.field("", "x")), ANY_ERROR),
    "line_break_in_a_value": Fault(
        _call(http2.header_block() + http2.field("x", "a\r\nb: c")), ANY_ERROR, grpcio=LAX
    ),
    "zero_in_a_value": Fault(
        _call(http2.header_block() + http2.field("x", "a\0b")), ANY_ERROR, grpcio=LAX
    ),
    "connection_header": Fault(
        _call(http2.header_block() + http2.field("connection", "close")), ANY_ERROR, grpcio=LAX
    ),
    "transfer_encoding": Fault(
        _call(http2.header_block() + http2.field("transfer-encoding", "chunked")),
        ANY_ERROR,
        grpcio=LAX,
    ),
    "pseudo_header_after_others": Fault(
        _call(http2.header_block() + http2.field(":path", "/late")), ANY_ERROR
    ),
    "unknown_pseudo_header": Fault(
        _call(http2.field(":odd", "x") + http2.header_block()), ANY_ERROR
    ),
    "two_paths": Fault(
        _call(http2.field(":path", "/a") + http2.header_block()), ANY_ERROR, grpcio=LAX
    ),
    "no_path": Fault(
        _call(http2.field(":method", "POST") + http2.field(":scheme", "http")), ANY_ERROR
    ),
    "empty_path": Fault(_call(http2.header_block("")), ANY_ERROR),
    "response_instead_of_request": Fault(_call(http2.field(":status", "200")), ANY_ERROR),
    "method_get": Fault(_call(http2.header_block(method="GET")), ANY_ERROR),
    "content_type_json": Fault(
        _call(http2.header_block(further={"content-type": "application/json"})),
        ANY_ERROR,
        grpcio=LAX,
    ),
    "content_length_that_lies": Fault(_body(MESSAGE, content_length="5"), ANY_ERROR, grpcio=LAX),
    "content_length_that_is_none": Fault(
        _body(MESSAGE, content_length="many"), ANY_ERROR, grpcio=LAX
    ),
    "timeout_that_is_none": Fault(_body(MESSAGE, grpc_timeout="soon"), ANY_ERROR),
    "encoding_that_nobody_has": Fault(
        _body(http2.message(REQUEST, is_compressed=True), grpc_encoding="snappy"), CALL
    ),
    "unknown_service": Fault(http2.headers(1, "/no.Such/Thing") + http2.data(1, MESSAGE), CALL),
}

MESSAGES = {
    "compressed_without_encoding": Fault(
        _body(http2.message(REQUEST, is_compressed=True)), CALL, grpcio=LAX
    ),
    "compressed_flag_that_is_none": Fault(_body(b"\x07" + MESSAGE[1:]), CALL),
    "gzip_that_is_none": Fault(
        _body(http2.message(REQUEST, is_compressed=True), grpc_encoding="gzip"), CALL
    ),
    "gzip_bomb": Fault(
        _body(
            http2.message(gzip.compress(bytes(64 << 20), mtime=0), is_compressed=True),
            grpc_encoding="gzip",
        ),
        CALL,
    ),
    "longer_than_its_prefix": Fault(
        _body(http2.message(REQUEST + b"more", claim=len(REQUEST))), CALL, grpcio=LAX
    ),
    "shorter_than_its_prefix": Fault(
        _body(http2.message(REQUEST, claim=len(REQUEST) + 1)), CALL, grpcio=LAX
    ),
    "prefix_cut_off": Fault(_body(MESSAGE[:4]), CALL, grpcio=LAX),
    "no_message": Fault(_body(), CALL, grpcio=LAX),
    "headers_alone": Fault(
        http2.headers(1, flags=http2.END_HEADERS | http2.END_STREAM), CALL, grpcio=LAX
    ),
    "two_messages": Fault(_body(MESSAGE, MESSAGE), CALL, grpcio=LAX),
    "one_byte_over_the_limit": Fault(
        CALL_HEADERS + http2.data(1, struct.pack(">BI", 0, MAX_MESSAGE_BYTES + 1), end=False),
        CALL,
        grpcio=LAX,
    ),
    "prefix_of_2_gib": Fault(
        CALL_HEADERS + http2.data(1, struct.pack(">BI", 0, 1 << 31), end=False), CALL, grpcio=LAX
    ),
    "prefix_of_4_gib": Fault(
        CALL_HEADERS + http2.data(1, struct.pack(">BI", 0, (1 << 32) - 1), end=False),
        CALL,
        grpcio=LAX,
    ),
}

FAULTS = {**PREFACES, **FRAMES, **HPACK, **HEADS, **MESSAGES}
