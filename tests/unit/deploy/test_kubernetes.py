"""What goes to Kubernetes: the chart as Helm rendered it, and the runtime of KServe.

Kinds of Kubernetes are held against its own schemas, strictly: a field that it does not know is a
fault. Of kinds that others define, the part in use is written down here.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from penstock.config import ServerConfig, setting_fields
from penstock.engines.at_load import EngineCacheSettings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "server" / "deploy"
RENDERED = DEPLOY / "helm" / "rendered"
CASES = ("default", "hpa", "keda", "gpu")
OWN = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1", "serving.kserve.io/v1alpha1"}
VERSIONS = ("1.27", "1.31", "1.34")


def closed(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    """An object of these and no other fields."""
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
KEY = closed(("name", "key"), name=TEXT, key=TEXT)
SECONDS = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}
SPECS: dict[str, dict[str, Any]] = {
    "ScaledObject": closed(
        ("scaleTargetRef", "triggers"),
        scaleTargetRef=closed(("name",), apiVersion=TEXT, kind=TEXT, name=TEXT),
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        pollingInterval=COUNT,
        cooldownPeriod=COUNT,
        triggers={
            "type": "array",
            "minItems": 1,
            "items": closed(
                ("type", "metadata"),
                type=TEXT,
                metricType={"enum": ["AverageValue", "Value", "Utilization"]},
                metadata=TEXTS,
            ),
        },
    ),
    "ServiceMonitor": closed(
        ("selector", "endpoints"),
        selector=closed(("matchLabels",), matchLabels=TEXTS),
        endpoints={
            "type": "array",
            "minItems": 1,
            "items": closed(
                ("port",),
                port=TEXT,
                path=TEXT,
                interval=SECONDS,
                scheme={"enum": ["http", "https"]},
                tlsConfig=closed(
                    (),
                    serverName=TEXT,
                    **{name: closed((), secret=KEY, configMap=KEY) for name in ("ca", "cert")},
                    keySecret=KEY,
                    insecureSkipVerify={"type": "boolean"},
                ),
            ),
        },
    ),
    "ServingRuntime": closed(
        ("supportedModelFormats", "containers"),
        annotations=TEXTS,
        supportedModelFormats={
            "type": "array",
            "items": closed(
                ("name",), name=TEXT, version=TEXT, autoSelect={"type": "boolean"}, priority=COUNT
            ),
        },
        protocolVersions={"type": "array", "items": {"enum": ["v1", "v2", "grpc-v2"]}},
        multiModel={"type": "boolean"},
        containers={"type": "array", "minItems": 1, "maxItems": 1},
    ),
}


def manifests(case: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((RENDERED / f"{case}.yaml").read_text()))


def of_kind(case: str, kind: str) -> dict[str, Any]:
    (found,) = [each for each in manifests(case) if each["kind"] == kind]
    return found


def container(case: str = "default") -> dict[str, Any]:
    (found,) = of_kind(case, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def runtime() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "kserve" / "servingruntime.yaml").read_text()))


def all_labels(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from manifest["metadata"]["labels"].items()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_what_the_chart_renders(case: str, version: str) -> None:
    for each in manifests(case):
        if each["apiVersion"] not in OWN:
            kubernetes_validate.validate(each, version, strict=True)
        else:
            assert set(each) == {"apiVersion", "kind", "metadata", "spec"}
            jsonschema.validate(each["spec"], SPECS[each["kind"]])


def test_schemas_would_find_a_fault() -> None:
    broken = of_kind("default", "Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_rendered_files_are_those_of_the_chart() -> None:
    spec = importlib.util.spec_from_file_location("render", ROOT / ".ci" / "render_chart.py")
    assert spec is not None and spec.loader is not None
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    assert set(render.CASES) == set(CASES)
    for case in CASES:
        head = (RENDERED / f"{case}.yaml").read_text().splitlines()[:2]
        assert head[1] == f"# {render.digest()}", "run .ci/render_chart.py"


def test_every_kind_is_there() -> None:
    kinds = {each["kind"] for case in CASES for each in manifests(case)}
    assert kinds == {
        *("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"),
        *("HorizontalPodAutoscaler", "ScaledObject", "ServiceMonitor"),
    }


@pytest.mark.parametrize("case", CASES)
def test_everything_finds_the_pods(case: str) -> None:
    deployment = of_kind(case, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    services = [each for each in manifests(case) if each["kind"] == "Service"]
    selectors = [each["spec"]["selector"] for each in services]
    selectors.append(of_kind(case, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    selectors.append(of_kind(case, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    selectors.append(deployment["spec"]["selector"]["matchLabels"])
    assert [each for each in selectors if not each.items() <= labels] == []
    ports = {each["name"] for each in container(case)["ports"]}
    targets = {port["targetPort"] for each in services for port in each["spec"]["ports"]}
    assert targets <= ports


@pytest.mark.parametrize("case", ["hpa", "keda"])
def test_one_decides_how_many_replicas_there_are(case: str) -> None:
    assert "replicas" not in of_kind(case, "Deployment")["spec"]
    kind = {"hpa": "HorizontalPodAutoscaler", "keda": "ScaledObject"}[case]
    name = of_kind(case, "Deployment")["metadata"]["name"]
    assert of_kind(case, kind)["spec"]["scaleTargetRef"]["name"] == name


def test_lost_scrapes_take_no_replica_away() -> None:
    (trigger,) = of_kind("keda", "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"


@pytest.mark.parametrize("case", ["hpa", "keda"])
def test_one_service_only_is_scraped(case: str) -> None:
    wanted = of_kind(case, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    services = [each for each in manifests(case) if each["kind"] == "Service"]
    (found,) = [each for each in services if wanted <= dict(all_labels(each)).items()]
    assert "metrics" in {port["name"] for port in found["spec"]["ports"]}


def test_metrics_are_read_over_tls_where_the_values_say_so() -> None:
    (plain,) = of_kind("keda", "ServiceMonitor")["spec"]["endpoints"]
    (secure,) = of_kind("hpa", "ServiceMonitor")["spec"]["endpoints"]
    assert plain["scheme"] == "http"
    assert "tlsConfig" not in plain
    assert secure["scheme"] == "https"
    ca = {"secret": {"name": "metrics", "key": "ca.crt"}}
    assert secure["tlsConfig"] == {"ca": ca, "serverName": "metrics"}
    variables = {each["name"]: each["value"] for each in container("hpa")["env"]}
    (mounted,) = [
        each for each in container("hpa")["volumeMounts"] if each["name"] == "certificates"
    ]
    for name in ("CERT", "KEY"):
        path = variables[f"PENSTOCK_METRICS_SERVER_{name}"]
        assert path.startswith(f"{mounted['mountPath']}/")


def test_pod_is_given_the_time_that_the_server_takes() -> None:
    variables = {each["name"]: each["value"] for each in container()["env"]}
    assert set(variables) <= {field.variable for field in setting_fields()}
    takes = float(variables["PENSTOCK_SHUTDOWN_GRACE_SECS"])
    takes += float(variables["PENSTOCK_EXIT_TIMEOUT_SECS"])
    pod = of_kind("default", "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= takes + 10
    probe = container()["readinessProbe"]
    heard_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert heard_s < float(variables["PENSTOCK_SHUTDOWN_GRACE_SECS"])


def test_caches_keep_within_their_volume() -> None:
    variables = {each["name"]: each["value"] for each in container()["env"]}
    held = sum(int(variables[f"PENSTOCK_{name}_CACHE_BYTES"]) for name in ("ENGINE", "STORE"))
    volumes = of_kind("default", "Deployment")["spec"]["template"]["spec"]["volumes"]
    (cache,) = [each for each in volumes if each["name"] == "cache"]
    assert cache["emptyDir"]["sizeLimit"] == "10Gi"
    assert 0 < held < 10 << 30


def test_settings_that_are_given_stand_once() -> None:
    names = [each["name"] for each in container("gpu")["env"]]
    variables = {each["name"]: each["value"] for each in container("gpu")["env"]}
    assert len(set(names)) == len(names)
    assert variables["PENSTOCK_ENGINE_CACHE_BYTES"] == str(64 << 30)
    assert variables["PENSTOCK_STORE_CACHE_BYTES"] == str((100 << 30) * 2 // 5)


def test_a_pod_on_a_gpu_replaces_one_and_waits_for_its_engines() -> None:
    spec = of_kind("gpu", "Deployment")["spec"]
    pod = spec["template"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert pod["runtimeClassName"] == "nvidia"
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == 1
    probe = container("gpu")["startupProbe"]
    waits_s = probe["periodSeconds"] * probe["failureThreshold"]
    assert EngineCacheSettings(Path()).limit_s < waits_s < spec["progressDeadlineSeconds"]
    (cache,) = [each for each in pod["volumes"] if each["name"] == "cache"]
    assert cache["persistentVolumeClaim"] == {"claimName": "engines"}


@pytest.mark.parametrize(
    "made", [container(), runtime()["spec"]["containers"][0]], ids=["helm", "kserve"]
)
def test_probes_ask_what_the_server_answers(made: dict[str, Any]) -> None:
    paths = {name: made[name]["httpGet"]["path"] for name in made if name.endswith("Probe")}
    assert paths == {
        "startupProbe": "/v2/health/ready",
        "livenessProbe": "/v2/health/live",
        "readinessProbe": "/v2/health/ready",
    }


def test_kserve_takes_the_runtime() -> None:
    spec = runtime()["spec"]
    jsonschema.validate(spec, SPECS["ServingRuntime"])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": spec["containers"]},
    }
    for version in VERSIONS:
        kubernetes_validate.validate(pod, version, strict=True)


def test_arguments_of_the_runtime_are_the_servers() -> None:
    (made,) = runtime()["spec"]["containers"]
    command, repository, *flags = made["args"]
    pairs = (each.removeprefix("--").replace("-", "_").split("=") for each in flags)
    config = ServerConfig.from_text({"model_repository": [repository], **dict(pairs)})
    assert command == "serve"
    assert config.http_port == made["ports"][0]["containerPort"]
    assert str(config.metrics_port) == runtime()["spec"]["annotations"]["prometheus.kserve.io/port"]


def test_example_of_the_readme_names_the_runtime() -> None:
    text = (ROOT / "server" / "README.md").read_text()
    (example,) = [
        part.split("```")[0] for part in text.split("```yaml\n")[1:] if "runtime:" in part
    ]
    model = yaml.safe_load(example)["spec"]["predictor"]["model"]
    spec = runtime()["spec"]
    assert model["runtime"] == runtime()["metadata"]["name"]
    assert model["modelFormat"]["name"] in {each["name"] for each in spec["supportedModelFormats"]}
    assert model["protocolVersion"] in spec["protocolVersions"]
