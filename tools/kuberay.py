"""`python -m tools.kuberay FILE ...`: derives tests/kuberay.json from KubeRay's definitions of its resources.

The definitions are 2.3 MB, most of it descriptions and the parts of a pod. The tests need names and types,
and check the pods by themselves. Kubernetes drops a field that it does not know without a word; so here no
other field is allowed than those that are named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from extensions.cache import write_whole

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "tests" / "kuberay.json"
FROM = "ray-project/kuberay, helm-chart/kuberay-operator/crds/, commit feeaf72 (2026-08-19), Apache-2.0"
PODS = ("template", "submitterPodTemplate")
KEPT = ("type", "enum", "required", "pattern", "minimum", "maximum", "minLength", "maxLength")


def strict(schema: dict) -> dict:
    """Names and types of a schema, with no other field allowed; a pod's template is any object."""
    kept: dict = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
    if "properties" in schema:
        kept["properties"] = {
            name: {"type": "object"} if name in PODS else strict(part)
            for name, part in schema["properties"].items()
        }
        kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = strict(schema["items"])
    return kept


def main(files: list[str]) -> int:
    """Write the schema of version v1 of each resource."""
    if not files:
        print("Name the files of KubeRay's definitions: ray.io_rayjobs.yaml ...", file=sys.stderr)
        return 1
    resources = {}
    for file in files:
        with open(file, encoding="utf-8") as text:
            definition = yaml.load(text, yaml.CSafeLoader)
        [version] = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        resources[definition["spec"]["names"]["kind"]] = strict(spec)
    lines = [
        f"{json.dumps(kind)}: {json.dumps(schema, sort_keys=True)}" for kind, schema in resources.items()
    ]
    write_whole(SCHEMA, "{" + ",\n".join([f'"from": {json.dumps(FROM)}', *lines]) + "}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
