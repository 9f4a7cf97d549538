"""`make defaults`: reads RLlib's default settings into `results/rllib_defaults.json`.

The site shows them without having RLlib installed; a test compares them with the RLlib that is.
"""

import contextlib
import importlib
import json
import logging
import sys
from pathlib import Path

from extensions.cache import write_whole

# RLlib imports TensorFlow where it is installed, which takes longer than all else here; no default needs it.
sys.modules.setdefault("tensorflow", None)

FILE = Path(__file__).resolve().parent.parent / "results" / "rllib_defaults.json"
# Where each config class stands whose settings a page shows.
CONFIGS = {
    "AlgorithmConfig": "ray.rllib.algorithms",
    "APPOConfig": "ray.rllib.algorithms.appo",
    "BCConfig": "ray.rllib.algorithms.bc",
    "CQLConfig": "ray.rllib.algorithms.cql",
    "DQNConfig": "ray.rllib.algorithms.dqn",
    "DreamerV3Config": "ray.rllib.algorithms.dreamerv3",
    "IMPALAConfig": "ray.rllib.algorithms.impala",
    "IQLConfig": "ray.rllib.algorithms.iql",
    "MARWILConfig": "ray.rllib.algorithms.marwil",
    "PPOConfig": "ray.rllib.algorithms.ppo",
    "SACConfig": "ray.rllib.algorithms.sac",
    "TQCConfig": "ray.rllib.algorithms.tqc",
}


def read_defaults() -> dict[str, dict[str, object]]:
    """The default of every public setting that is a plain value, by config class."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    found = {}
    for name, module in CONFIGS.items():
        config = getattr(importlib.import_module(module), name)()
        found[name] = {
            setting: value
            for setting, value in sorted(vars(config).items())
            if not setting.startswith("_") and isinstance(value, bool | int | float | str | None)
        }
        # A property: unless set, it is train_batch_size divided among the learners.
        with contextlib.suppress(ValueError):  # DreamerV3 has neither
            found[name]["train_batch_size_per_learner"] = config.train_batch_size_per_learner
    return found


def main() -> None:
    """Write the file, whole or not at all."""
    write_whole(FILE, json.dumps(read_defaults(), indent=1) + "\n")
    print(f"Wrote {FILE.name}.")


if __name__ == "__main__":
    main()
