"""Renders the chart into server/deploy/helm/rendered/ with Helm's own engine, case by case.

Run after every change of the chart, in an environment of its own, for the package is 240 MB:

    pip install helm-python-sdk==0.2.2    # Helm 4's Go library, no binary, no cluster
    python .ci/render_chart.py

Each file says what it was made of; a test compares that with the chart.
"""

import hashlib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "server" / "deploy" / "helm"
CHART = FOLDER / "penstock"
_MONITORED: dict[str, Any] = {"serviceMonitor": {"enabled": True}}
_MONITORED_BY_TLS: dict[str, Any] = {
    "settings": {
        "PENSTOCK_METRICS_USE_SSL": "true",
        "PENSTOCK_METRICS_SERVER_CERT": "/certificates/tls.crt",
        "PENSTOCK_METRICS_SERVER_KEY": "/certificates/tls.key",
    },
    "volumes": [{"name": "certificates", "secret": {"secretName": "metrics"}}],
    "volumeMounts": [{"name": "certificates", "mountPath": "/certificates", "readOnly": True}],
    "serviceMonitor": {
        "enabled": True,
        "scheme": "https",
        "tlsConfig": {
            "ca": {"secret": {"name": "metrics", "key": "ca.crt"}},
            "serverName": "metrics",
        },
    },
}
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "hpa": {"hpa": {"enabled": True, "pendingRequests": 8}, **_MONITORED_BY_TLS},
    "keda": {"keda": {"enabled": True}, **_MONITORED},
    "gpu": {
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "runtimeClassName": "nvidia",
        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "startupSeconds": 8000,
        "cacheClaim": "engines",
        "cacheSize": "100Gi",
        "settings": {"PENSTOCK_ENGINE_CACHE_BYTES": "68719476736"},
    },
}


def digest() -> str:
    """SHA-256 over the names and bytes of the chart's files, and the cases."""
    found = hashlib.sha256(repr(CASES).encode())
    for path in sorted(each for each in CHART.rglob("*") if each.is_file()):
        found.update(f"{path.relative_to(CHART)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def main() -> None:
    """Lints and renders."""
    import helm_python  # type: ignore[import-not-found]  # not among the project's own packages

    (FOLDER / "rendered").mkdir(exist_ok=True)
    with helm_python.Chart.load(CHART) as chart:
        for case, values in CASES.items():
            print(case, helm_python.lint(CHART, values=values))
            made = chart.render(values=values, name="demo", namespace="serving")
            parts = [
                f"# Source: {name}\n{text.strip()}\n"
                for name, text in sorted(made.items())
                if name.endswith(".yaml") and text.strip()
            ]
            by = f"# By .ci/render_chart.py, with Helm {helm_python.helm_sdk_version()}.\n"
            head = f"{by}# {digest()}\n"
            (FOLDER / "rendered" / f"{case}.yaml").write_text(head + "---\n" + "---\n".join(parts))


if __name__ == "__main__":
    main()
