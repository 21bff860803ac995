"""The grpcio transport against a bare grpc.aio echo, interleaved in one run.

Run: .venv/bin/python bench/transport.py [--rounds 7] [--requests 10000]

Both servers stay up; each round loads one, then the other, with `h2load -c 1 -m 64` and the same
one-row digits request. Prints requests per second and server CPU per request, and the ratio of
each round. Penstock's own success counter must have grown by exactly the requests sent (h2load
sees HTTP status only).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import _measure
import grpc
import numpy as np
import uvloop
from tritonclient.grpc import service_pb2

import penstock_client

INFER = "/inference.GRPCInferenceService/ModelInfer"


class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    """Answers every unary call with its own bytes."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The same handler for every method."""

        async def echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo)


async def serve_echo() -> None:
    """Runs the bare echo on a free port until killed."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"echo is ready: 127.0.0.1:{port}", file=sys.stderr, flush=True)
    await server.wait_for_termination()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=10_000, help="per server and round")
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.echo:
        uvloop.run(serve_echo())
        return
    with (
        _measure.digits_repository() as repository,
        _measure.penstock(repository, "--transport=grpcio") as (ours, our_address),
        _measure.server([sys.executable, __file__, "--echo"], r"echo is ready: (\S+)") as (
            bare,
            found,
        ),
        tempfile.NamedTemporaryFile() as body,
    ):
        Path(body.name).write_bytes(_measure.grpc_frame(request_bytes()))
        servers = {"echo": (bare.pid, found[1]), "penstock": (ours.pid, our_address)}
        measure(servers, Path(body.name), args.rounds, args.requests)


def request_bytes() -> bytes:
    """A one-row digits request that wants the probabilities."""
    request = service_pb2.ModelInferRequest(model_name="digits")
    request.inputs.add(name="X", datatype="FP32", shape=[1, 64])
    request.outputs.add(name="probabilities")
    request.raw_input_contents.append(np.arange(64, dtype=np.float32).tobytes())
    message: bytes = request.SerializeToString()
    return message


def measure(servers: dict[str, tuple[int, str]], body: Path, rounds: int, requests: int) -> None:
    """Loads the servers in turn and prints what they reached."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    cpu_us: dict[str, list[float]] = {name: [] for name in servers}
    before = successes(servers["penstock"][1])
    for round_ in range(rounds + 1):
        for name, (pid, address) in servers.items():
            start_s = _measure.cpu_seconds(pid)
            rate = _measure.h2load(address, INFER, body, requests, clients=1, streams=64)
            if round_ == 0:  # warm-up
                continue
            rates[name].append(rate)
            cpu_us[name].append((_measure.cpu_seconds(pid) - start_s) / requests * 1e6)
    done = successes(servers["penstock"][1]) - before
    if done != (rounds + 1) * requests:
        raise SystemExit(f"penstock answered {done} of {(rounds + 1) * requests} requests")
    for name in servers:
        print(f"{name:9} {_measure.Spread(tuple(rates[name]))} req/s,", end=" ")
        print(f"{_measure.Spread(tuple(cpu_us[name]))} us of server CPU per request")
    ratios = [ours / echo for ours, echo in zip(rates["penstock"], rates["echo"], strict=True)]
    print(f"ratio     {median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})")


def successes(address: str) -> int:
    """Requests that the digits model has answered, by the server's own statistics."""
    with penstock_client.Client(address) as client:
        return client.statistics("digits")[0].success.count


if __name__ == "__main__":
    main()
