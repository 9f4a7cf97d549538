"""What starts a cluster: valid by the schemas of whoever reads it, and of the pinned versions."""

import copy
import json
import re
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

from extensions.results import pinned
from tests.conftest import ROOT

SCALING = ROOT / "examples" / "scaling"
SCHEMAS = json.loads((ROOT / "tests" / "kuberay.json").read_text(encoding="utf-8"))
MANIFESTS = ["raycluster", "rayjob"]
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?")  # the schema of a pod takes any text
NEEDED = {"RayJob": ["entrypoint", "rayClusterSpec"], "RayCluster": ["headGroupSpec", "workerGroupSpecs"]}


def read(name: str) -> dict:
    return yaml.safe_load((SCALING / f"{name}.yaml").read_text(encoding="utf-8"))


def cluster_of(manifest: dict) -> dict:
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def pods(manifest: dict) -> list[dict]:
    groups = [cluster_of(manifest)["headGroupSpec"], *cluster_of(manifest)["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def problem(manifest: dict) -> str | None:
    """What is wrong with a manifest for KubeRay; Kubernetes itself drops a misspelt field without a word."""
    if manifest.get("apiVersion") != "ray.io/v1" or manifest.get("kind") not in SCHEMAS:
        return "apiVersion or kind"
    if not re.fullmatch(r"[a-z][-a-z0-9]*", manifest.get("metadata", {}).get("name", "")):
        return "metadata"
    for key in NEEDED[manifest["kind"]]:
        if key not in manifest["spec"]:
            return f"{key} is missing"
    mode = manifest["spec"].get("submissionMode", "K8sJobMode")
    if mode not in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"):
        return mode
    try:
        jsonschema.validate(manifest["spec"], SCHEMAS[manifest["kind"]])
        for pod in pods(manifest):
            whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod["spec"]}
            kubernetes_validate.validate(whole, "1.34", strict=True)
            for amount in [
                str(amount)
                for container in pod["spec"]["containers"]
                for amounts in container.get("resources", {}).values()
                for amount in amounts.values()
            ]:
                if not QUANTITY.fullmatch(amount):
                    return f"{amount} is no quantity"
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return error.message
    return None


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_takes_the_manifest(name):
    assert problem(read(name)) is None


def changed(manifest: dict, path: str, value: object) -> dict:
    """The manifest with one value changed, or removed where it is None."""
    manifest = copy.deepcopy(manifest)
    part = manifest
    *folders, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in folders:
        part = part[key]
    part.pop(last) if value is None else part.__setitem__(last, value)
    return manifest


POD = "spec/headGroupSpec/template/spec"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "RayClusters"),
        ("apiVersion", "ray.io/v1alpha"),
        ("metadata/name", "My_Cluster"),
        ("spec/workerGroupSpecs", None),
        ("spec/workerGroupSpecs/0/groupName", None),
        ("spec/workerGroupSpecs/0/replicas", "2"),
        ("spec/workerGroupSpecs/0/replica", 2),
        ("spec/headGroupSpec/rayStartParams/num-cpus", 0),
        ("spec/authOptions/mode", "tokens"),
        (f"{POD}/container", []),
        (f"{POD}/containers/0/name", None),
        (f"{POD}/containers/0/img", "ray"),
        (f"{POD}/containers/0/resources/limits/cpu", "two"),
        (f"{POD}/volumes/0/persistentVolumeClaims", {}),
    ],
)
def test_a_mistake_in_the_manifest_is_seen(path, value):
    assert problem(changed(read("raycluster"), path, value)) is not None


@pytest.mark.parametrize(
    ("path", "value"),
    [("spec/entrypoint", None), ("spec/submissionMode", "Nope"), ("spec/shutdownAfterJobFinish", True)],
)
def test_a_mistake_in_the_job_is_seen(path, value):
    assert problem(changed(read("rayjob"), path, value)) is not None


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_volume_that_is_mounted_is_there(name):
    for pod in pods(read(name)):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        mounted = {
            mount["name"]
            for container in pod["spec"]["containers"]
            for mount in container.get("volumeMounts", [])
        }
        assert mounted == volumes


def test_the_workers_hold_what_the_program_asks_for():
    program = (SCALING / "train.py").read_text(encoding="utf-8")
    env_runners = int(re.search(r"num_env_runners=(\d+)", program)[1])
    for name in MANIFESTS:
        [group] = cluster_of(read(name))["workerGroupSpecs"]
        [container] = group["template"]["spec"]["containers"]
        assert group["replicas"] * int(container["resources"]["limits"]["cpu"]) >= env_runners


def ray_takes(config: dict) -> None:
    """What `ray up` does with its file before it starts anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_ray_up_takes_the_cluster():
    ray_takes(read("cluster"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("provider", None),
        ("provider/type", 3),
        ("max_worker", 4),
        ("head_node_type", "heads"),
        ("available_node_types/head/node_config", None),
        ("available_node_types/samplers/resources/CPU", "eight"),
        ("available_node_types/samplers/min_worker", 1),
    ],
)
def test_a_mistake_in_the_cluster_is_seen(path, value):
    with pytest.raises((jsonschema.ValidationError, ValueError, KeyError, NotImplementedError)):
        ray_takes(changed(read("cluster"), path, value))


def test_every_launcher_names_the_pinned_versions():
    for name in ("cluster", *MANIFESTS):
        text = (SCALING / f"{name}.yaml").read_text(encoding="utf-8")
        found = re.findall(r"(ray|torch)(?:\[[\w,]+\])?(?:==|:)(\d[\d.]*\d)", text)
        found += re.findall(r'(ray)Version: "([\d.]+)"', text)
        assert "ray" in dict(found), name
        assert {(package, pinned()[package]) for package, _ in found} == set(found)


def test_the_script_for_slurm_is_bash_and_asks_for_nodes():
    script = SCALING / "train.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text and re.search(r"^#SBATCH --nodes=\d+$", text, flags=re.MULTILINE)


def test_every_file_among_the_examples_is_on_a_page():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    for file in (ROOT / "examples").rglob("*"):
        ours = not any(part.startswith(".") or part == "__pycache__" for part in file.parts)
        if file.is_file() and ours and file.name != "ruff.toml":
            assert f'--8<-- "{file.relative_to(ROOT)}"' in pages, file
