"""When does a GPU pay? The time of a gradient step, by network and minibatch size."""

import logging
import os
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

WIDTHS, MINIBATCHES, OBSERVATION = (64, 256, 1024), (128, 1024, 8192), 32
torch.manual_seed(int(os.environ.get("SEED", 0)))
logging.getLogger("ray").setLevel(logging.ERROR)  # no warnings about RLlib's own calls
space = gym.spaces.Box(-1, 1, (OBSERVATION,), np.float32), gym.spaces.Discrete(4)


def seconds_of_a_step(device, width, size):
    """The median over several gradient steps of PPO's own learner."""
    config = (
        PPOConfig()
        .environment(observation_space=space[0], action_space=space[1])
        .learners(num_gpus_per_learner=0 if device == "cpu" else 1)
        .rl_module(model_config={"fcnet_hiddens": [width, width]})
    )
    learner = config.build_learner(spaces={"default_policy": space})
    rows = {
        Columns.OBS: torch.randn(size, OBSERVATION),
        Columns.ACTIONS: torch.randint(4, (size,)),
        Columns.ACTION_LOGP: torch.full((size,), -1.4),
        Columns.ACTION_DIST_INPUTS: torch.zeros(size, 4),
        "advantages": torch.randn(size),
        "value_targets": torch.randn(size),
    }
    batch = SampleBatch({name: rows[name].to(device) for name in rows})
    batch = MultiAgentBatch({"default_policy": batch}, size)
    times = []
    while len(times) < 5 or (sum(times) < 0.5 and len(times) < 50):
        start = time.perf_counter()
        learner.update(batch=batch, minibatch_size=size, num_epochs=1)
        if device != "cpu":
            torch.cuda.synchronize()  # a GPU works on after the call has returned
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))  # the first one warms up


if torch.cuda.is_available():  # RLlib asks Ray for the number of the GPU
    ray.init("local", include_dashboard=False, logging_level="error")
devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
print(f"{torch.get_num_threads()} threads; milliseconds of one gradient step")
print("device  width  " + "  ".join(f"minibatch {size:5d}" for size in MINIBATCHES))
step = {}
for device in devices:
    for width in WIDTHS:
        for size in MINIBATCHES:
            step[device, width, size] = 1000 * seconds_of_a_step(device, width, size)
        row = "  ".join(f"{step[device, width, size]:15.1f}" for size in MINIBATCHES)
        print(f"{device:6s}  {width:5d}  {row}", flush=True)
