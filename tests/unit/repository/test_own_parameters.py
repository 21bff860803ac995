"""The server's own parameters of a model: what they mean, and what is wrong with them."""

import pytest

from penstock.codec import InstanceGroup, ModelConfig, read_config_text
from penstock.repository.own_parameters import (
    InstanceBounds,
    instance_bounds,
    is_pinned,
    least_faults,
    memory_bytes,
    operations_per_inference,
    own_faults,
    peak_operations_per_second,
    without_own,
)


def config(count: int = 1, **parameters: str) -> ModelConfig:
    return of_groups(f"instance_group {{ count: {count} }}", **parameters)


def of_groups(groups: str, **parameters: str) -> ModelConfig:
    entry = 'parameters {{ key: "{}" value {{ string_value: "{}" }} }}\n'
    text = "".join(entry.format(key, value) for key, value in parameters.items())
    reading = read_config_text(text + groups, "config.pbtxt")
    assert not reading.faults
    return reading.config


@pytest.mark.parametrize(
    ("count", "parameters", "bounds"),
    [
        (2, {}, None),
        (2, {"instances_min": "2", "instances_max": "8"}, InstanceBounds(2, 8)),
        (2, {"instances_max": "8"}, InstanceBounds(1, 8)),
        (4, {"instances_min": "2"}, InstanceBounds(2, 4)),
    ],
)
def test_bounds(count: int, parameters: dict[str, str], bounds: InstanceBounds | None) -> None:
    assert instance_bounds(config(count, **parameters)) == bounds
    assert list(own_faults(config(count, **parameters))) == []


def test_bound_that_is_not_written_is_of_all_gpus_together() -> None:
    group = InstanceGroup(count=2, gpus=(0, 1, 2))
    written = ModelConfig(instance_groups=(group,), parameters={"instances_min": "1"})
    assert instance_bounds(written) == InstanceBounds(1, 6)


FOUR = "instance_group { gpus: [0, 1, 2, 3] }"
TWO_EACH = "instance_group { gpus: [0, 1] count: 2 }"


@pytest.mark.parametrize(
    ("groups", "parameters", "got"),
    [
        (FOUR, {"instances_min": "4"}, None),
        (FOUR, {"instances_min": "5"}, "5, 4, 5"),
        (FOUR, {"instances_max": "4"}, None),
        (FOUR, {"instances_max": "3"}, "1, 4, 3"),
        (TWO_EACH, {"instances_min": "3"}, None),
        (TWO_EACH, {"instances_min": "4", "instances_max": "4"}, None),
        (TWO_EACH, {"instances_max": "3"}, "1, 4, 3"),
        ("instance_group [{ gpus: [0] }, { gpus: [1] }]", {"instances_min": "2"}, None),
    ],
)
def test_bounds_are_of_the_instances_on_all_gpus_together(
    groups: str, parameters: dict[str, str], got: str | None
) -> None:
    written = of_groups(groups, **parameters)
    faults = [*own_faults(written), *least_faults(written)]
    said = "parameters['instances_max']: expected instances_min <= instance_group.count, on all of "
    said += "its gpus together, <= instances_max, got "
    assert faults == ([] if got is None else [said + got])


def test_what_is_not_written_is_measured_and_not_pinned() -> None:
    assert memory_bytes(config()) is None
    assert not is_pinned(config())
    assert memory_bytes(config(memory_bytes="0")) == 0
    assert is_pinned(config(memory_pinned="true"))


def test_operations_are_what_is_written_or_not_known() -> None:
    assert operations_per_inference(config()) is None
    assert operations_per_inference(config(operations_per_inference="8174000000")) == 8174000000
    assert peak_operations_per_second(config()) is None
    assert peak_operations_per_second(config(peak_operations_per_second="3")) == 3


@pytest.mark.parametrize(
    ("count", "parameters", "fault"),
    [
        (1, {"instances_min": "0"}, "parameters['instances_min']: expected a whole number from 1"),
        (1, {"instances_max": "many"}, "parameters['instances_max']: expected a whole number"),
        (1, {"instances_max": "9" * 30}, "from 1 to 1024, got '999"),
        (1, {"memory_bytes": "-1"}, "parameters['memory_bytes']: expected a whole number from 0"),
        (1, {"memory_pinned": "yes"}, "parameters['memory_pinned']: expected true or false"),
        (
            1,
            {"operations_per_inference": "0"},
            "expected a whole number from 1 to 10000000000000000",
        ),
        (1, {"operations_per_inference": "8e9"}, "parameters['operations_per_inference']: expect"),
        (1, {"peak_operations_per_second": "0"}, "parameters['peak_operations_per_second']: exp"),
        (3, {"instances_max": "2"}, "expected instances_min <= instance_group.count, on"),
        (1, {"instances_min": "2", "instances_max": "4"}, "got 2, 1, 4"),
        (1, {"instances_min": "4", "instances_max": "2"}, "got 4, 1, 2"),
    ],
)
def test_fault_names_the_parameter(count: int, parameters: dict[str, str], fault: str) -> None:
    written = config(count, **parameters)
    (found,) = [*own_faults(written), *least_faults(written)]
    assert fault in found


def test_backends_do_not_see_them() -> None:
    own = {"instances_min": "1", "instances_max": "2", "memory_bytes": "3", "memory_pinned": "true"}
    own |= {"operations_per_inference": "5", "peak_operations_per_second": "6"}
    assert without_own({**own, "threads": "4"}) == {"threads": "4"}
