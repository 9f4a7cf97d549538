"""What the site says of RLlib is true of the RLlib that is installed."""

import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from extensions.catalogue import SUPPORT
from extensions.results import pinned
from extensions.settings import defaults
from extensions.settings import formatter as settings_table
from tests.conftest import ROOT


def test_the_shown_defaults_are_those_of_the_installed_rllib():
    code = "import json; from tools.defaults import read_defaults; print('#', json.dumps(read_defaults()))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    installed = json.loads(result.stdout.splitlines()[-1].removeprefix("# "))
    assert defaults() == installed, "results/rllib_defaults.json is out of step; renew it with: make defaults"


@pytest.mark.slow
@pytest.mark.training("tools/support.py", "results/rllib_support.json", "requirements.txt")
def test_the_support_matrix_is_that_of_the_installed_rllib():
    code = "import json; from tools.support import read_support; print('#', json.dumps(read_support()))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=1200
    )
    assert result.returncode == 0, result.stderr[-2000:]
    tried = json.loads(result.stdout.splitlines()[-1].removeprefix("# "))
    shown = json.loads(SUPPORT.read_text(encoding="utf-8"))
    works = {
        name: {feature: error is None for feature, error in features.items()}
        for name, features in shown.items()
    }
    assert works == {
        name: {feature: error is None for feature, error in features.items()}
        for name, features in tried.items()
    }, "results/rllib_support.json is out of step; renew it with: make defaults"


@pytest.mark.parametrize("name", ["requirements", "requirements-site", "requirements-cluster"])
def test_every_package_is_pinned(name):
    lines = (ROOT / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    packages = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    assert len(packages) > 50
    for package in packages:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+", package), package
    pinned_names = {re.split("==", package)[0].lower().replace("_", "-") for package in packages}
    for line in (ROOT / f"{name}.in").read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text and not text.startswith("-r"):
            assert Requirement(text).name.lower() in pinned_names


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE))


def test_the_environments_agree():
    every = pins("requirements.txt")
    site = pins("requirements-site.txt")
    cluster = pins("requirements-cluster.txt")
    assert {name: every.get(name) for name in site} == site
    shared = set(cluster) & set(every)
    assert "ray" in shared and len(shared) > 20
    assert {name: cluster[name] for name in shared} == {name: every[name] for name in shared}


def test_the_site_needs_no_ray_no_torch_no_tensorflow():
    text = (ROOT / "requirements-site.txt").read_text(encoding="utf-8")
    for name in ("ray", "torch", "tensorflow", "gymnasium"):
        assert not re.search(rf"^{name}==", text, flags=re.MULTILINE)
    code = "import sys; from mkdocs.__main__ import cli; import extensions.results, extensions.diagrams; "
    code += "print([name for name in ('ray', 'torch', 'tensorflow') if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize(
    "package", ["ray", "torch", "tensorflow", "gymnasium", "stable-baselines3", "mkdocs-material"]
)
def test_the_pinned_version_is_installed(package):
    assert version(package).split("+")[0] == pinned()[package]


PPO_MODULES = """\
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from ray.rllib.algorithms.ppo import PPOConfig
observation_space = Box(-1, 1, (3,), np.float32)
one, two = Discrete(2), Box(-1, 1, (2,), np.float32)
for action_space in (one, MultiDiscrete([2, 3]), two, Dict({"a": one, "b": two}), Tuple([one, two])):
    config = PPOConfig().environment(observation_space=observation_space, action_space=action_space)
    module = config.get_rl_module_spec().build()
    out = module.forward_exploration({"obs": torch.zeros(4, 3)})
    module.get_exploration_action_dist_cls().from_logits(out["action_dist_inputs"]).sample()
config = PPOConfig().environment(observation_space=observation_space, action_space=one)
assert config.rl_module(model_config={"use_lstm": True}).get_rl_module_spec().build().is_stateful()
"""


@pytest.mark.slow
def test_ppo_takes_the_action_spaces_and_memory_that_its_page_claims():
    command = [sys.executable, "-W", "ignore", "-c", PPO_MODULES]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]


def test_a_settings_table_can_name_its_last_column():
    fence = "config: PPOConfig\nexample: algorithms/ppo\n{}settings: {{lr: {{does: it, turn: that way}}}}"
    for line, heading in (("", "when learning stalls"), ("last: when to change it\n", "when to change it")):
        assert f">{heading}</th>" in settings_table(fence.format(line), "settings", "settings", {}, None)
