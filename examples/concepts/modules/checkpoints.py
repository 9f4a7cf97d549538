"""What is in a checkpoint, and which ways lead back from it."""

import logging
import os
import sys
import tempfile
from pathlib import Path

import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModule

SEED = int(os.environ.get("SEED", 0))

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")


def config(**training):
    return (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(train_batch_size_per_learner=500, num_epochs=2, **training)
        .debugging(seed=SEED)
    )


def describe(algo):
    """What a checkpoint has to bring back."""
    learner = algo.learner_group._learner
    optimizer = learner.get_optimizer("default_policy")
    return {
        "weights": total(learner.module["default_policy"]),
        "steps": int(next(iter(optimizer.state.values()))["step"]),
        "iteration": algo.iteration,
        "lr": algo.config.lr,
        "lr in use": optimizer.param_groups[0]["lr"],
    }


def total(module):
    return sum(tensor.double().sum().item() for tensor in module.parameters())


def show(title, found):
    print(f"{title:20s}" + ", ".join(f"{k} {v:.6g}" for k, v in found.items()))


with tempfile.TemporaryDirectory() as folder:
    algo = config(lr=1e-3).build_algo()
    for _ in range(3):
        algo.train()
    saved = describe(algo)
    show("saved", saved)
    path = Path(algo.save_to_path(folder))
    algo.stop()

    for file in sorted(path.rglob("*")):
        if file.is_file():
            size = file.stat().st_size / 1000
            print(f"  {file.relative_to(path).as_posix():72s}{size:6.1f} kB")

    # 1. The whole algorithm, as it was.
    algo = Algorithm.from_checkpoint(path)
    again = describe(algo)
    algo.stop()
    show("from_checkpoint", again)

    # 2. Its state into an algorithm that you have built with other settings.
    algo = config(lr=1e-4).build_algo()
    algo.restore_from_path(path)
    other = describe(algo)
    algo.train()
    later = describe(algo)
    algo.stop()
    show("restore_from_path", other)
    show("  and after train()", later)

    # 3. Only the network.
    module = RLModule.from_checkpoint(
        path / "learner_group" / "learner" / "rl_module" / "default_policy"
    )
    show("RLModule only", {"weights": total(module)})
ray.shutdown()

if again != saved:
    sys.exit("from_checkpoint did not bring everything back.")
if (other["lr"], other["lr in use"], later["lr in use"]) != (1e-4, 1e-3, 1e-4):
    sys.exit("restore_from_path did something else than this page says.")
if total(module) != saved["weights"]:
    sys.exit("The RLModule has other weights.")
