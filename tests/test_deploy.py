"""deploy/ without Docker and without Kubernetes: every key is one we know at its level, numbers fit each other, and a
typo in each file is caught.

The keys are a list of our own, of the fields these files use (KubeRay 1.7, Kubernetes batch/v1 and core/v1): stricter
than the real schemas, and no substitute for `kubectl apply --dry-run=server` on a real cluster.
"""

import copy
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
ANY = object()  # a value, or a mapping of free names

SECURITY = {"runAsNonRoot": bool, "runAsUser": int, "fsGroup": int}
CONTAINER = {
    "name": str,
    "image": str,
    "command": [str],
    "securityContext": {
        "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool,
        "capabilities": {"drop": [str]},
    },
    "envFrom": [{"secretRef": {"name": str, "optional": bool}}],
    "ports": [{"containerPort": int, "name": str}],
    "resources": {"requests": ANY, "limits": ANY},
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
POD = {
    "spec": {
        "serviceAccountName": str,
        "automountServiceAccountToken": bool,
        "restartPolicy": str,
        "securityContext": SECURITY,
        "nodeSelector": ANY,
        "tolerations": [{"key": str, "operator": str, "effect": str}],
        "containers": [CONTAINER],
        "volumes": [
            {
                "name": str,
                "emptyDir": {"medium": str, "sizeLimit": str},
                "configMap": {"name": str},
                "persistentVolumeClaim": {"claimName": str, "readOnly": bool},
            }
        ],
    }
}
WORKERS = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "idleTimeoutSeconds": int,
    "rayStartParams": ANY,
    "template": POD,
}
RAY_CLUSTER = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"version": str, "idleTimeoutSeconds": int},
    "authOptions": {"mode": str},
    "headGroupSpec": {"serviceType": str, "rayStartParams": ANY, "template": POD},
    "workerGroupSpecs": [WORKERS],
}
TOP = {"apiVersion": str, "kind": str, "metadata": {"name": str}}
KINDS: dict[str, dict[str, Any]] = {
    "RayJob": TOP
    | {
        "spec": {
            "entrypoint": str,
            "submissionMode": str,
            "backoffLimit": int,
            "activeDeadlineSeconds": int,
            "preRunningDeadlineSeconds": int,
            "shutdownAfterJobFinishes": bool,
            "ttlSecondsAfterFinished": int,
            "rayClusterSpec": RAY_CLUSTER,
        }
    },
    "CronJob": TOP
    | {
        "spec": {
            "schedule": str,
            "timeZone": str,
            "concurrencyPolicy": str,
            "startingDeadlineSeconds": int,
            "successfulJobsHistoryLimit": int,
            "failedJobsHistoryLimit": int,
            "jobTemplate": {"spec": {"backoffLimit": int, "activeDeadlineSeconds": int, "template": POD}},
        }
    },
    "ServiceAccount": TOP | {"automountServiceAccountToken": bool},
    "Role": TOP | {"rules": [{"apiGroups": [str], "resources": [str], "verbs": [str]}]},
    "RoleBinding": TOP
    | {"roleRef": {"apiGroup": str, "kind": str, "name": str}, "subjects": [{"kind": str, "name": str}]},
}
API = {
    "RayJob": "ray.io/v1",
    "CronJob": "batch/v1",
    "ServiceAccount": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
}


def known(found: Any, shape: Any, where: str) -> None:
    """Every key of `found` stands in `shape`, with a value of its type."""
    if shape is ANY:
        return
    if isinstance(shape, dict):
        assert isinstance(found, dict), f"{where}: expected a mapping"
        assert found.keys() <= shape.keys(), f"{where}: unknown {sorted(found.keys() - shape.keys())}"
        for key, value in found.items():
            known(value, shape[key], f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(found, list), f"{where}: expected a list"
        for number, value in enumerate(found):
            known(value, shape[0], f"{where}[{number}]")
    else:
        assert type(found) is shape, f"{where}: {found!r} is no {shape.__name__}"


def pods_of(document: Any) -> list[dict[str, Any]]:
    """Every pod's spec, however deep."""
    if isinstance(document, list):
        return [pod for part in document for pod in pods_of(part)]
    if not isinstance(document, dict):
        return []
    own = [document] if "containers" in document else []
    return own + [pod for part in document.values() for pod in pods_of(part)]


def check(documents: list[dict[str, Any]]) -> None:
    for document in documents:
        kind = document.get("kind")
        assert kind in KINDS, f"unknown kind {kind!r}"
        assert document["apiVersion"] == API[kind]
        known(document, KINDS[kind], kind)
        for pod in pods_of(document):
            _check_pod(pod)
    by_kind = {document["kind"]: document for document in documents}
    if "RayJob" in by_kind:
        _check_rayjob(by_kind["RayJob"]["spec"])
    else:
        _check_nightly(documents, by_kind["CronJob"]["spec"])


def _check_pod(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, "a mount without a volume"
        assert container["image"].endswith(":0.1.0"), "an image without this package's version"
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        resources = container["resources"]
        assert resources["requests"].keys() & {"cpu", "memory"} == {"cpu", "memory"}
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        for name in ("requests", "limits"):
            for what, amount in resources[name].items():
                assert what in ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"), what
                assert re.fullmatch(r"\d+(m|Mi|Gi)?", amount), f"{what}: {amount!r}"


def _check_rayjob(spec: dict[str, Any]) -> None:
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray"), "another Ray than constraints.txt and the image"
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "work on the head"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP", "open to the world"
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode")
    assert spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    budget = re.search(r"--budget (\d+)h", spec["entrypoint"])
    assert budget is not None
    assert int(budget[1]) * 3600 < spec["activeDeadlineSeconds"]
    from jobs.index import parser  # the command itself: a mistyped flag would be found at night

    words = spec["entrypoint"].split()
    assert words[:3] == ["python", "-m", "jobs.index"]
    parser().parse_args(words[3:])
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert groups.keys() == {"decode", "describe"}
    for group in groups.values():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    described = groups["describe"]["template"]["spec"]["containers"][0]["resources"]
    assert described["limits"].get("nvidia.com/gpu") == "1"


def _check_nightly(documents: list[dict[str, Any]], spec: dict[str, Any]) -> None:
    assert spec["concurrencyPolicy"] == "Forbid"
    assert re.fullmatch(r"(\S+ ){4}\S+", spec["schedule"])
    template = spec["jobTemplate"]["spec"]
    (rayjob,) = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
    assert template["activeDeadlineSeconds"] > rayjob["spec"]["activeDeadlineSeconds"], "its pod would give up first"
    pod = template["template"]["spec"]
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    assert pod["serviceAccountName"] in accounts
    assert {p["serviceAccountName"] for p in pods_of(rayjob)} <= accounts
    assert pod["restartPolicy"] == "Never"
    (role,) = (d for d in documents if d["kind"] == "Role")
    (binding,) = (d for d in documents if d["kind"] == "RoleBinding")
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "delete"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [pod["serviceAccountName"]]
    (container,) = pod["containers"]
    from jobs.night import _parser

    assert container["command"][:3] == ["python", "-m", "jobs.night"]
    mounted = _parser().parse_args(container["command"][3:]).rayjob
    assert str(mounted.parent) == container["volumeMounts"][0]["mountPath"]


def load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.mark.parametrize("name", ["rayjob.yaml", "nightly.yaml"])
def test_manifests_are_valid(name: str) -> None:
    check(load(name))


Change = Callable[[list[dict[str, Any]]], None]


def put(path: str, value: object) -> Change:
    """Set what lies at a dotted path from the document of a kind; `None` takes it away."""

    def change(documents: list[dict[str, Any]]) -> None:
        kind, *parents, last = path.split(".")
        at: Any = next(document for document in documents if document["kind"] == kind)
        for parent in parents:
            at = at[int(parent)] if parent.isdigit() else at[parent]
        if value is None:
            del at[last]
        else:
            at[last] = value

    return change


HEAD = "RayJob.spec.rayClusterSpec.headGroupSpec"
WORKER = "RayJob.spec.rayClusterSpec.workerGroupSpecs.0"
NIGHT = "CronJob.spec.jobTemplate.spec.template.spec"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rayjob.yaml", put("RayJob.kind", "RayJobs")),
        ("rayjob.yaml", put("RayJob.spec.activeDeadlineSecond", 10)),
        ("rayjob.yaml", put("RayJob.spec.activeDeadlineSeconds", 3600)),
        ("rayjob.yaml", put("RayJob.spec.backoffLimit", "0")),
        ("rayjob.yaml", put("RayJob.spec.entrypoint", "python -m jobs.index s3://a --output s3://b --budgt 6h")),
        ("rayjob.yaml", put("RayJob.spec.rayClusterSpec.rayVersion", "2.6.0")),
        ("rayjob.yaml", put("RayJob.spec.rayClusterSpec.authOptions.mode", "disabled")),
        ("rayjob.yaml", put(f"{HEAD}.rayStartParams.num-cpus", "4")),
        ("rayjob.yaml", put(f"{HEAD}.serviceType", "LoadBalancer")),
        ("rayjob.yaml", put(f"{WORKER}.minReplicas", 9)),
        ("rayjob.yaml", put(f"{WORKER}.template.spec.containers.0.resources.limits.memory", "100GB")),
        ("rayjob.yaml", put(f"{WORKER}.template.spec.containers.0.volumeMounts.0.name", "smh")),
        ("rayjob.yaml", put(f"{WORKER}.template.spec.containers.0.env", [{"name": "AWS_SECRET_ACCESS_KEY"}])),
        ("rayjob.yaml", put(f"{WORKER}.template.spec.securityContext.runAsNonRoot", False)),
        ("nightly.yaml", put("CronJob.spec.concurencyPolicy", "Forbid")),
        ("nightly.yaml", put("CronJob.spec.concurrencyPolicy", "Allow")),
        ("nightly.yaml", put("CronJob.spec.schedule", "0 22 * *")),
        ("nightly.yaml", put("CronJob.spec.jobTemplate.spec.activeDeadlineSeconds", 60)),
        ("nightly.yaml", put(f"{NIGHT}.serviceAccountName", "adatp-nigth")),
        ("nightly.yaml", put(f"{NIGHT}.containers.0.command", ["python", "-m", "jobs.night", "--rayjobs", "x"])),
        ("nightly.yaml", put("Role.rules.0.verbs", ["*"])),
        ("nightly.yaml", put("RoleBinding.roleRef.name", "adatp")),
    ],
)
def test_a_typo_is_caught(name: str, change: Change) -> None:
    documents = copy.deepcopy(load(name))
    change(documents)
    with pytest.raises((AssertionError, SystemExit)):
        check(documents)


def test_no_secret_stands_in_a_manifest() -> None:
    for path in DEPLOY.iterdir():
        text = path.read_text()
        assert not re.search(r"AKIA|SECRET_ACCESS_KEY\s*[:=]|RAY_AUTH_TOKEN\s*[:=]|password", text), path.name


# --- the image --------------------------------------------------------------------------------------------------------

INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER"}


def check_dockerfile(text: str) -> None:
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip() and not line.startswith("#")]
    steps = [line.split(None, 1) for line in lines]
    unknown = {step[0] for step in steps} - INSTRUCTIONS
    assert not unknown, f"unknown instructions: {unknown}"
    assert re.fullmatch(r"python:3\.(11|12|13)\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", steps[0][1]), "not pinned"
    for _, copied in (step for step in steps if step[0] == "COPY"):
        for source in copied.split()[:-1]:
            assert (ROOT / source).exists(), f"{source} is not in the repository"
    pip = [step[1] for step in steps if step[0] == "RUN" and "pip install" in step[1]]
    assert pip == ["pip install --no-cache-dir --constraint constraints.txt ."], "packages without pinned versions"
    assert [step[1] for step in steps if step[0] == "USER"] == ["ray"], "it would run as root"
    environment = dict(pair.split("=", 1) for step in steps if step[0] == "ENV" for pair in step[1].split())
    assert environment["RAY_AUTH_MODE"] == "token"
    assert "TOKEN" not in " ".join(environment)


def test_the_dockerfile_is_pinned() -> None:
    check_dockerfile((DEPLOY / "Dockerfile").read_text())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("FROM python:3.11.13-slim-bookworm", "FROM python:latest"),
        ("COPY pipeline pipeline", "COPY pipelines pipeline"),
        ("--constraint constraints.txt", "--constraint constraint.txt"),
        ("USER ray", "USR ray"),
        ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
    ],
)
def test_a_typo_in_the_dockerfile_is_caught(right: str, wrong: str) -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert right in text
    with pytest.raises(AssertionError):
        check_dockerfile(text.replace(right, wrong))
