"""The hot path must not grow unnoticed: instructions per request; no busy machine moves them."""

import asyncio

import instructions
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.any_transport]


async def test_instructions_per_request_are_those_kept_in_the_tree() -> None:
    counted = await asyncio.to_thread(instructions.count)
    assert counted == pytest.approx(instructions.baseline(), rel=instructions.TOLERANCE)
