"""Those who watch the server and those who change it while it serves."""

import json
import random
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from tests.support.chaos import right
from tests.support.chaos.world import END, OK, World, outcome
from tests.support.http import ask
from tritonclient.grpc import service_pb2 as wire

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def load_request(model: str, config: str = "") -> bytes:
    request = wire.RepositoryModelLoadRequest(model_name=model)
    if config:
        request.parameters["config"].string_param = config
    payload: bytes = request.SerializeToString()
    return payload


def unload_request(model: str) -> bytes:
    payload: bytes = wire.RepositoryModelUnloadRequest(model_name=model).SerializeToString()
    return payload


def override(rng: random.Random) -> str:
    """A configuration for `reloaded` or `moving` that is right."""
    return json.dumps(
        {
            "backend": "fixture",
            "default_model_filename": "model.txt",
            "max_batch_size": rng.choice([4, 8, 32]),
            "instance_group": [{"count": rng.randint(1, 3), "kind": "KIND_CPU"}],
            "dynamic_batching": {
                "max_queue_delay_microseconds": rng.choice([0, 500, 5000]),
                "preserve_ordering": rng.random() < 0.5,
            },
        }
    )


async def change(world: World, rng: random.Random, actor: str, rpc: str, payload: bytes) -> None:
    code, text = await outcome(world.client(rng).unary(rpc, payload))
    assert code is OK, f"{actor}: {code} {text!r}"
    world.count(actor, code)


async def reload(world: World, rng: random.Random) -> None:
    """Changes a model while it serves; some of the changes are wrong and change nothing."""
    if rng.random() < 0.7:
        payload = load_request("reloaded", override(rng) if rng.random() < 0.8 else "")
        await change(world, rng, "reload", "RepositoryModelLoad", payload)
        return
    config = rng.choice(["{", "[]", '{"max_batch_size": -3}', '{"nonsense": 1}'])
    call = world.client(rng).unary("RepositoryModelLoad", load_request("reloaded", config))
    code, text = await outcome(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT, f"wrong reload: {code} {text!r}"
    world.count("wrong reload", code)


async def move(world: World, rng: random.Random) -> None:
    """Unloads and loads a model."""
    if rng.random() < 0.5:
        await change(world, rng, "unload", "RepositoryModelUnload", unload_request("moving"))
    else:
        await change(world, rng, "load", "RepositoryModelLoad", load_request("moving"))


async def ask_moving(world: World, rng: random.Random) -> None:
    """A model that is there or not: an answer or a clear status."""
    made = right.moving(world, rng)
    code, reply = await outcome(world.client(rng).unary("ModelInfer", made.payload))
    assert code in {OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND}, f"{code} {reply}"
    if code is OK:
        made.check(wire.ModelInferResponse.FromString(reply))
    world.count("moving", code)


async def load_broken(world: World, rng: random.Random) -> None:
    """Loads that cannot succeed, some given up by their callers."""
    model = rng.choice(["broken", "nobody", "../simple", ""])
    call = world.client(rng).unary("RepositoryModelLoad", load_request(model))
    if rng.random() < 0.3:
        call.cancel()
        code = await call.code()
        assert code is not OK
    else:
        code, text = await outcome(call)
        assert code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND}, f"{code} {text!r}"
    world.count("load broken", code)


async def look(world: World, rng: random.Random) -> None:
    """Metadata, configuration, statistics, index."""
    name = rng.choice(["simple", "digits", "slow", "reloaded"])
    requests: dict[str, Any] = {
        "ServerLive": wire.ServerLiveRequest(),
        "ServerReady": wire.ServerReadyRequest(),
        "ServerMetadata": wire.ServerMetadataRequest(),
        "ModelReady": wire.ModelReadyRequest(name=name),
        "ModelMetadata": wire.ModelMetadataRequest(name=name),
        "ModelConfig": wire.ModelConfigRequest(name=name),
        "ModelStatistics": wire.ModelStatisticsRequest(name=rng.choice([name, ""])),
        "RepositoryIndex": wire.RepositoryIndexRequest(),
    }
    rpc = rng.choice(list(requests))
    call = world.client(rng).unary(rpc, requests[rpc].SerializeToString())
    code, text = await outcome(call)
    assert code is OK, f"{rpc} of {name}: {code} {text!r}"
    world.count("look", code)


async def watch_health(world: World, rng: random.Random) -> None:
    """Watches health for a moment; the stream is cancelled or its connection is closed."""
    async with world.passing_client() as client:
        stub = health_pb2_grpc.HealthStub(client.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert await watch.read() is not END
        if rng.random() < 0.5:
            watch.cancel()
    world.tally["watch"] += 1


async def samples(port: int) -> Samples:
    """All metrics."""
    reply = await ask(port, "/metrics")
    assert reply.status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


def total(found: Samples, name: str) -> float:
    return sum(value for (each, _), value in found.items() if each == name)


async def scrape(world: World, _rng: random.Random) -> None:
    """At every moment: as many in flight as were accepted and not completed."""
    found = await samples(world.port("metrics"))
    accepted = total(found, "penstock_accepted_total")
    completed = total(found, "penstock_completed_total")
    inflight = total(found, "penstock_inflight_requests")
    assert accepted - completed == inflight, (accepted, completed, inflight)
    world.tally["scrape"] += 1
