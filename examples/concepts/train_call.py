"""What happens inside one call of algo.train(): the real calls, seen while they run."""

import logging
import os
import sys

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup

SEED = int(os.environ.get("SEED", 0))

# Which methods of RLlib to watch. Of a callback: every one.
WATCHED = {
    Algorithm: {"train", "step", "training_step", "evaluate", "log_result"},
    EnvRunnerGroup: {"sync_weights", "sync_env_runner_states"},
    EnvRunner: {"sample", "get_metrics", "set_state"},
    ConnectorV2: {"__call__"},
    RLModule: {"forward_exploration", "forward_inference", "forward_train"},
    gym.vector.SyncVectorEnv: {"reset", "step"},
    LearnerGroup: {"update", "get_state"},
    Learner: {"update", "before_gradient_based_update", "after_gradient_based_update"}
    | {"compute_losses", "compute_gradients", "apply_gradients"},
    RLlibCallback: {name for name in vars(RLlibCallback) if name.startswith("on_")},
}

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0)  # sample in this process, where we can watch
    .learners(num_learners=0)  # and learn in it
    .training(train_batch_size_per_learner=256, minibatch_size=64, num_epochs=2)
    .evaluation(
        evaluation_interval=1,  # evaluate in every train()
        evaluation_duration=2,  # 2 episodes
        evaluation_config={"explore": False},  # without this it explores here too
    )
    .debugging(seed=SEED)
)
algo = config.build_algo()

root = {}  # what was called, in order of the first call: {name: [how often, {inside}]}
stack = [("", root)]


def watch(frame, event, _):
    """Python calls this at each call and return of any function."""
    receiver, name = frame.f_locals.get("self"), frame.f_code.co_name
    if not any(isinstance(receiver, cls) and name in WATCHED[cls] for cls in WATCHED):
        return
    call, (caller, inside) = f"{type(receiver).__name__}.{name}", stack[-1]
    if event == "return":
        stack.pop()
    elif event == "call" and call == caller:  # it calls super(): no new line
        stack.append(stack[-1])
    elif event == "call":
        count = inside.setdefault(call, [0, {}])
        count[0] += 1
        stack.append((call, count[1]))


sys.setprofile(watch)
algo.train()
sys.setprofile(None)
algo.stop()
ray.shutdown()


def show(calls, depth=0):
    """Prints the tree and returns its names in that order."""
    names = []
    for call, (count, inside) in calls.items():
        print("  " * depth + call + (f"  x {count}" if count > 1 else ""))
        names += [call, *show(inside, depth + 1)]
    return names


seen = show(root)
places = [
    seen.index("PPO.training_step"),
    seen.index("SingleAgentEnvRunner.sample"),
    seen.index("DefaultPPOTorchRLModule.forward_exploration"),
    seen.index("PPOTorchLearner.update"),
    seen.index("DefaultPPOTorchRLModule.forward_train"),
    seen.index("EnvRunnerGroup.sync_weights"),
    seen.index("PPO.evaluate"),
    seen.index("DefaultPPOTorchRLModule.forward_inference"),
    seen.index("RLlibCallback.on_train_result"),
]
if places != sorted(places):
    sys.exit("RLlib did not sample, learn, sync weights and evaluate in this order.")
