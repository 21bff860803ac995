"""How tests of properties draw their examples: always the same, however slow the machine is."""

from hypothesis import HealthCheck, settings

EXAMPLES = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
