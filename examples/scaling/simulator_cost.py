"""CartPole in RLlib, behind a socket and behind RLlink: env steps a second of each.

It needs Node.js, and in the same folder: rllink.py, simulator_env.py, cartpole.js and
rllink_client.js.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import ray
import rllink
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.external.env_runner_server_for_external_inference import (
    EnvRunnerServerForExternalInference,
)
from simulator_env import Simulator

SEED = int(os.environ.get("SEED", 0))
BATCH = rllink.BATCH
ITERATIONS = 10


def in_rllib(environment, number):
    """RLlib steps the environments, in an env runner of its own."""
    return (
        PPOConfig()
        .environment(environment, env_config=ENV_CONFIG.get(environment, {}))
        .env_runners(
            num_env_runners=1,
            num_envs_per_env_runner=number,
            rollout_fragment_length=BATCH // number,
        )
    )


def by_rllink():
    """The simulator plays by itself; an env runner waits for what it sends."""
    return (
        PPOConfig()
        .environment(
            observation_space=gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
            action_space=gym.spaces.Discrete(2),
            env_config={"port": rllink_port - 1},
        )
        .env_runners(
            env_runner_cls=EnvRunnerServerForExternalInference,
            num_env_runners=1,
            sample_timeout_s=None,
        )
    )


def steps_per_second(config, client):
    """Of whole iterations: sampling, sending and a short update."""
    algo = (
        config.env_runners(
            create_local_env_runner=False,
            merge_env_runner_states=False,  # RLlink needs it so: see rllink.py
            broadcast_env_runner_states=False,
        )
        .training(
            train_batch_size_per_learner=BATCH, minibatch_size=BATCH, num_epochs=1
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .debugging(seed=SEED, log_level="ERROR")
        .build_algo()
    )
    signal.alarm(240)
    process = client()
    for _ in range(3):  # until all of it is warm
        before = algo.train()["num_env_steps_sampled_lifetime"]
    start = time.perf_counter()
    for _ in range(ITERATIONS):
        result = algo.train()
    seconds = time.perf_counter() - start
    steps = result["num_env_steps_sampled_lifetime"] - before
    if process:
        process.kill()
        process.wait() if isinstance(process, subprocess.Popen) else process.join()
    algo.stop()
    signal.alarm(0)
    return steps / seconds


def python_client():
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=rllink.simulator, args=[rllink_port], daemon=True)
    process.start()
    return process


def javascript(file, port, *arguments):
    command = [node, Path(__file__).with_name(file), str(port), *map(str, arguments)]
    # The pipe takes it along, however this program ends.
    return subprocess.Popen(command, stdin=subprocess.PIPE)


if __name__ == "__main__":
    torch.set_num_threads(1)  # so small a network is slower with more threads
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
    node = shutil.which("node") or sys.exit("This program needs Node.js.")
    # The program itself, not one that starts it: it shall be killed.
    node = subprocess.check_output([node, "-p", "process.execPath"], text=True).strip()
    ray.init(
        "local", include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    signal.signal(signal.SIGALRM, rllink.too_long)  # sample() would wait for ever
    port, rllink_port = rllink.free_port(), rllink.free_port()
    ENV_CONFIG = {Simulator: {"port": port, "patience": 30}}
    ways = {
        "inside RLlib, 1 environment": (lambda: in_rllib("CartPole-v1", 1), None),
        "inside RLlib, 8 environments": (lambda: in_rllib("CartPole-v1", 8), None),
        "socket, JavaScript, 1 connection": (lambda: in_rllib(Simulator, 1), None),
        "socket, JavaScript, 8 connections": (lambda: in_rllib(Simulator, 8), None),
        "RLlink, client in Python": (by_rllink, python_client),
        "RLlink, client in JavaScript": (
            by_rllink,
            lambda: javascript("rllink_client.js", rllink_port, BATCH, SEED),
        ),
    }
    simulator = javascript("cartpole.js", port)
    measured = {}
    print(f"{'':35s} env steps/s   against the first")
    for name, (config, client) in ways.items():
        measured[name] = steps_per_second(config(), client or (lambda: None))
        ratio = measured[name] / measured["inside RLlib, 1 environment"]
        print(f"{name:35s} {measured[name]:11,.0f}   {ratio:17.2f}", flush=True)
    simulator.kill()
    simulator.wait()
    ray.shutdown()
    if (
        measured["RLlink, client in JavaScript"]
        < measured["inside RLlib, 1 environment"]
    ):
        sys.exit("RLlink in JavaScript took fewer steps a second than RLlib itself.")
