"""Requests of the fixture models, as HTTP has them."""

from typing import Any

from tests.support.http import HttpReply


def simple_json(start: int = 1) -> dict[str, Any]:
    """Of `simple`: one row from `start` on, and zeroes."""
    return {
        "inputs": [
            {
                "name": name,
                "shape": [1, 16],
                "datatype": "INT32",
                "data": [list(range(begin, begin + 16)) if name == "INPUT0" else [0] * 16],
            }
            for name, begin in (("INPUT0", start), ("INPUT1", 0))
        ]
    }


def identity_json(*values: float) -> dict[str, Any]:
    """Of an identity of FP32: one row."""
    tensor = {"name": "INPUT0", "shape": [1, len(values)], "datatype": "FP32"}
    return {"inputs": [{**tensor, "data": list(values)}]}


def outputs(reply: HttpReply) -> dict[str, list[Any]]:
    """The outputs of a response by name."""
    assert reply.status == 200, reply.body
    return {each["name"]: each["data"] for each in reply.json["outputs"]}
