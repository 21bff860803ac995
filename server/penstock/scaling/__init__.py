"""How many replicas a model needs: signals of the fleet, a pure policy, and hooks that act on it.

`signals` says what is measured, `policy` decides, `fleet` asks the replicas, `triggers` answers
KEDA, `webhook` and `plugins` tell others, `simulator` replays arrivals against the policy.
"""
