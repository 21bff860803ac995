import pytest

from penstock.codec import VersionPolicy
from penstock.errors import ConfigError
from penstock.repository.policy import choose_versions, missing_versions, version_number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("1", 1),
        ("42", 42),
        ("9" * 18, int("9" * 18)),
        ("9" * 19, None),
        ("0", None),
        ("01", None),
        ("-1", None),
        ("+1", None),
        ("1.old", None),
        ("", None),
        ("one", None),
        ("١", None),  # a digit, but not one of ours
        ("²", None),
    ],
)
def test_version_number(name: str, number: int | None) -> None:
    assert version_number(name) == number


LATEST_2 = VersionPolicy("latest", num_versions=2)
SPECIFIC = VersionPolicy("specific", versions=(3, 1, 3))


@pytest.mark.parametrize(
    ("policy", "available", "chosen"),
    [
        (None, [1, 2, 10], [10]),
        (VersionPolicy(), [3, 1, 2], [3]),
        (LATEST_2, [3, 1, 2], [2, 3]),
        (LATEST_2, [7], [7]),
        (VersionPolicy("all"), [3, 1, 2], [1, 2, 3]),
        (SPECIFIC, [1, 2, 3], [1, 3]),
        (SPECIFIC, [2, 3], [3]),
    ],
)
def test_chosen_versions(
    policy: VersionPolicy | None, available: list[int], chosen: list[int]
) -> None:
    assert list(choose_versions(policy, available)) == chosen


@pytest.mark.parametrize(
    ("policy", "available", "faults"),
    [
        (None, [], ["no version directory: expected at least one named 1, 2, ..."]),
        (
            SPECIFIC,
            [2, 4],
            ["version_policy.specific.versions: expected 3, 1, 3, found 2, 4"],
        ),
        (
            VersionPolicy("specific"),
            [2],
            ["version_policy.specific.versions: expected at least one, found 2"],
        ),
    ],
)
def test_faults_of_the_choice(
    policy: VersionPolicy | None, available: list[int], faults: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_versions(policy, available)
    assert list(caught.value.faults) == faults


@pytest.mark.parametrize(
    ("policy", "missing"),
    [(None, []), (VersionPolicy("all"), []), (SPECIFIC, [1])],
)
def test_missing_versions(policy: VersionPolicy | None, missing: list[int]) -> None:
    assert list(missing_versions(policy, [2, 3])) == missing
