"""Draws one call of algo.train() as a Mermaid sequence diagram, from the real calls."""

import logging
import sys

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup

SYNC = ["sync_weights", "sync_env_runner_states"]
GRADIENTS = ["compute_losses", "compute_gradients", "apply_gradients"]
# The calls to show, and the column of the diagram that they go to.
WATCHED = [
    (Algorithm, ["train", "training_step"], "Algorithm"),
    (EnvRunnerGroup, SYNC, "EnvRunner"),
    (EnvRunner, ["sample", "get_metrics", "set_state"], "EnvRunner"),
    (ConnectorPipelineV2, ["__call__"], "Connectors"),
    (RLModule, ["forward_exploration", "forward_train"], "RLModule"),
    (gym.vector.SyncVectorEnv, ["reset", "step"], "Env"),
    (Learner, ["update", *GRADIENTS], "Learner"),
    (RLlibCallback, [n for n in vars(RLlibCallback) if "on_" in n], "Callback"),
]

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0)
    # So few steps that no episode ends: each turn of a loop is like the one before.
    .training(train_batch_size_per_learner=4, minibatch_size=4, num_epochs=3)
    .debugging(seed=0)
)
algo = config.build_algo()

arrows, stack = [], [("You", "")]


def watch(frame, event, _):
    """Python calls this at each call and return of any function."""
    receiver, name = frame.f_locals.get("self"), frame.f_code.co_name
    for cls, names, column in WATCHED:
        if isinstance(receiver, cls) and name in names:
            if event == "return":
                stack.pop()
            elif event == "call":
                what = type(receiver).__name__ if name == "__call__" else f"{name}()"
                source = stack[-1][0]
                if column == "Callback":
                    arrows.append(f"Note over {source}: callback {name}")
                elif stack[-1] != (column, what):  # else it only calls super()
                    arrows.append(f"{source}->>{column}: {what}")
                stack.append((column, what))


sys.setprofile(watch)
algo.train()
sys.setprofile(None)
algo.stop()
ray.shutdown()

lines, place = [], 0
while place < len(arrows):
    part, turns = arrows[place : place + 1], 1
    for size in range(8, 0, -1):  # what comes twice in a row is a loop
        if arrows[place : place + size] == arrows[place + size : place + 2 * size]:
            part, turns = arrows[place : place + size], 2
    while arrows[place : place + len(part)] == part:
        place += len(part)
    lines += ["loop until enough", *part, "end"] if turns > 1 else part

print("sequenceDiagram")
print("  accTitle: One call of algo.train()")
print("  accDescr: The calls between RLlib's parts that a run of PPO made, in order.")
print("  actor You")
for column in dict.fromkeys(column for *_, column in WATCHED[:-1]):
    print(f"  participant {column}")
for line in lines:
    print(f"  {line}")
if lines.count("end") != 2:
    sys.exit("There should be two loops, one that samples and one that learns.")
