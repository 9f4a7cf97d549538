"""An environment of your own on other nodes: what gets there, and what does not."""

import importlib
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import ray
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks


class Shelf(CartPoleEnv):
    """An environment that stands in this program."""

    def __init__(self, config=None):
        super().__init__()


MODULE = """
from gymnasium.envs.classic_control import CartPoleEnv

class Warehouse(CartPoleEnv):
    def __init__(self, config=None):
        super().__init__()
"""
folder = tempfile.TemporaryDirectory()
mine = Path(folder.name) / "mine"
mine.mkdir()
(mine / "warehouse.py").write_text(MODULE)
sys.path.insert(0, str(mine))
Warehouse = importlib.import_module("warehouse").Warehouse  # import it, as usual

# Other machines have no such folder. So it is moved away, where no path leads.
mine = mine.rename(Path(folder.name) / "moved")


def train_with(env_class, runtime_env):
    """What one iteration with an env runner in a process of its own says."""
    start = time.perf_counter()
    quiet = {"log_to_driver": False, "logging_level": "critical"}
    ray.init("local", include_dashboard=False, runtime_env=runtime_env, **quiet)
    config = (
        PPOConfig()
        .environment(env_class)
        .env_runners(num_env_runners=1)
        .training(train_batch_size_per_learner=500, minibatch_size=250, num_epochs=1)
        .fault_tolerance(restart_failed_env_runners=False)  # let the error through
        .debugging(seed=SEED)
    )
    try:
        algo = config.build_algo()
        env_steps = algo.train()["env_runners"]["num_env_steps_sampled"]
        return f"{env_steps:.0f} env steps after {time.perf_counter() - start:.1f} s"
    except Exception as error:
        return str(error).strip().splitlines()[-1]
    finally:
        ray.shutdown()


outcomes = {
    "in the program": train_with(Shelf, {}),
    "in a module": train_with(Warehouse, {}),
    # Ray packs the folder, and unpacks it on each node that works for this program.
    "in a module, with working_dir": train_with(Warehouse, {"working_dir": str(mine)}),
}
folder.cleanup()
for what, outcome in outcomes.items():
    print(f"{what:30s} {outcome}")
if ["env steps" in outcome for outcome in outcomes.values()] != [True, False, True]:
    sys.exit("Only the module without working_dir should be missing.")
if "No module named 'warehouse'" not in outcomes["in a module"]:
    sys.exit("It should be missing because there is no such module.")
