"""The files for clusters against Ray's own schema, against each other, and against the pipeline that they are for."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import load_pipeline
from cluster.placement import Demand, Node, demand_of, shortage
from cluster.ray_session import INLINE_BYTES_MAX

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "deploy" / "kuberay"
HEALTH = {
    "health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3,
}  # fmt: skip
UPLOAD_BYTES_MAX = 2 * 2**20


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def pinned(package: str) -> str:
    """The version in constraints.txt."""
    found = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found, package
    return found[1]


def demands() -> list[Demand]:
    """What the actors of the example pipeline ask for."""
    config = load_pipeline(ROOT / "jobs" / "pipelines" / "clicks-cluster.yaml").cluster
    return [demand_of("shard", config)] * config.shards + [demand_of("worker", config)] * config.workers


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """ray-cluster.yaml with Ray's defaults filled in, as `ray up` does it, without asking a cloud."""
    from ray.autoscaler._private.util import prepare_config

    monkeypatch.chdir(ROOT)
    prepared: dict[str, Any] = prepare_config(read(ROOT / "ray-cluster.yaml"))
    return prepared


def pods() -> list[dict[str, Any]]:
    """The head's group and the worker groups of the Kubernetes cluster."""
    spec = read(KUBERAY / "cluster.yaml")["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_ray_takes_the_cluster_file(ray_cluster: dict[str, Any]) -> None:
    """Ray's own schema: no key is misspelt, each node type has its limits."""
    from ray.autoscaler._private.util import validate_config

    validate_config(ray_cluster)
    types = ray_cluster["available_node_types"]
    assert ray_cluster["max_workers"] >= sum(kind["max_workers"] for kind in types.values())
    assert types["head"]["resources"]["CPU"] == 0


def test_a_misspelt_key_of_the_cluster_file_is_found(ray_cluster: dict[str, Any]) -> None:
    """Proof that the check above can fail."""
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(Exception, match="'max_worker' was unexpected"):
        validate_config(ray_cluster | {"max_worker": 3})


def test_every_value_of_the_cluster_file_has_its_reason() -> None:
    """A number without a reason is never changed again, because nobody knows what for it is there."""
    lines = (ROOT / "ray-cluster.yaml").read_text().splitlines()
    bare = [
        line for before, line in zip(["", *lines], lines, strict=False)
        if re.match(r" *[a-z_]+: *[\w{]", line) and "#" not in line and not before.lstrip().startswith("#")
    ]  # fmt: skip
    plain = re.compile(  # what says it by itself, or has its reason at its first place
        r" *(type: aws|InstanceType|CPU: 8|container_name|worker_image: rayproject/ray:|cluster_name|head_node_type"
        r"|min_workers: 0|max_workers: 0)"
    )
    assert [line for line in bare if not plain.match(line)] == []


def test_the_pipeline_fits_the_ray_cluster(ray_cluster: dict[str, Any]) -> None:
    """Custom resources have the same names in both, and all nodes together have room for all actors."""
    nodes = [
        Node(f"{name}-{number}", kind["resources"])
        for name, kind in ray_cluster["available_node_types"].items()
        for number in range(kind["max_workers"])
    ]
    assert shortage(nodes, demands()) == ""


def test_the_pipeline_fits_the_kubernetes_cluster() -> None:
    """The same for KubeRay, whose parameters of `ray start` are texts in texts."""
    nodes = [
        Node(f"{group['groupName']}-{number}", offered(group["rayStartParams"]))
        for group in pods()[1:]
        for number in range(group["maxReplicas"])
    ]
    assert shortage(nodes, demands()) == ""


def offered(parameters: dict[str, str]) -> dict[str, float]:
    """Resources of a pod by Ray's names."""
    names = {"num-cpus": "CPU", "num-gpus": "GPU", "memory": "memory"}
    known = {name: float(parameters[key]) for key, name in names.items() if key in parameters}
    custom: dict[str, float] = json.loads(parameters["resources"].strip("'"))
    return known | custom


def test_inline_calls_and_health_checks_are_set_alike_everywhere(ray_cluster: dict[str, Any]) -> None:
    """What was measured is what is deployed, and what our own local Ray is started with."""
    wanted = {"max_direct_call_object_size": INLINE_BYTES_MAX, **HEALTH}
    found = re.search("--system-config='(.+?)'", ray_cluster["head_start_ray_commands"][-1])
    assert found
    assert json.loads(found[1]) == wanted
    assert json.loads(pods()[0]["rayStartParams"]["system-config"].strip("'")) == wanted


def test_versions_of_ray_and_fsspec_are_those_of_the_constraints(ray_cluster: dict[str, Any]) -> None:
    """Driver and nodes must agree on them: the constraints have moved on, and so must the files for clusters."""
    texts = [(ROOT / name).read_text() for name in ("ray-cluster.yaml", "deploy/Dockerfile")]
    for text in texts:
        assert set(re.findall(r"rayproject/ray:([\d.]+)-py311", text)) == {pinned("ray")}
        assert set(re.findall(r"s3fs==([\d.]+)", text)) == {pinned("fsspec")}
    assert read(KUBERAY / "cluster.yaml")["spec"]["rayVersion"] == pinned("ray")
    for local in ray_cluster["file_mounts"].values():
        assert local.startswith("~") or local == "./millrace.env" or (ROOT / local).is_file()


def test_kubernetes_files_belong_together() -> None:
    """Kinds, names and labels by which they find one another; every container asks for what it may have."""
    names = ("cluster", "job", "network-policy", "pod-monitor")
    cluster, job, policy, monitor = (read(KUBERAY / f"{name}.yaml") for name in names)
    kinds = [one["kind"] for one in (cluster, job, policy, monitor)]
    assert kinds == ["RayCluster", "RayJob", "NetworkPolicy", "PodMonitor"]
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    pipeline = job["spec"]["entrypoint"].split()[-1]
    assert (ROOT / pipeline).is_file()
    label = policy["spec"]["podSelector"]["matchLabels"]
    assert monitor["spec"]["selector"]["matchLabels"] == label
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for group in pods():
        template = group["template"]
        assert template["metadata"]["labels"] == label
        (container,) = template["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        memory = int(group["rayStartParams"].get("memory", 0))
        assert memory < int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30


def test_the_image_gets_all_that_a_job_needs() -> None:
    """Each folder that is copied into the image is there, and none of the code is forgotten."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = re.findall(r"^COPY --chown=ray (.+) \S+$", dockerfile, re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names == {"pyproject.toml", "constraints.txt", "learning", "actors", "cluster", "jobs"}
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text()
    assert all(f"!{name}\n" in ignored for name in names)


def test_the_runtime_environment_installs_the_tested_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray reads the file as `ray job submit --runtime-env` does; a stopped job is given its time."""
    from ray.runtime_env import RuntimeEnv

    monkeypatch.chdir(ROOT)
    environment = RuntimeEnv(**read(ROOT / "runtime-env.yaml"))
    packages = environment.pip_config()["packages"]
    assert f"ray=={pinned('ray')}" in packages
    assert f"kafka-python=={pinned('kafka-python')}" in packages
    assert environment.env_vars() == {"RAY_JOB_STOP_WAIT_TIME_S": "600"}


def test_what_is_uploaded_with_a_job_is_small_and_whole(tmp_path: Path) -> None:
    """Code, pipelines and lists of packages; no tests, no documents, nothing that git ignores."""
    from ray._private.runtime_env.packaging import create_package

    archive = tmp_path / "package.zip"
    create_package(str(ROOT), archive, include_gitignore=True, excludes=[".git", ".venv"])
    with zipfile.ZipFile(archive) as package:
        names = {name for name in package.namelist() if not name.endswith("/")}
    assert archive.stat().st_size < UPLOAD_BYTES_MAX
    assert {"jobs/train.py", "jobs/pipelines/shuttle.yaml", "constraints.txt", "pyproject.toml"} <= names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "cluster").rglob("*.py")} <= names
    folders = {name.partition("/")[0] for name in names if "/" in name}
    assert folders == {"learning", "actors", "cluster", "jobs"}
    assert not any(name.endswith((".env", ".nbi", ".nbc", ".pyc")) for name in names)
