"""RLlib steps a simulator in JavaScript through a socket; the simulator is killed once.

It needs Node.js, and cartpole.js in the same folder.
"""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.env_errors import StepFailedRecreateEnvError

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; acting at random gives about 22


class Simulator(gym.Env):
    """An environment at the other end of a socket: lines of JSON, there and back."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, env_config):
        # RLlib makes a new environment after an error. So wait here until the simulator
        # is back and answers, but not for ever.
        deadline = time.monotonic() + env_config["patience"]
        while True:
            try:
                address = "127.0.0.1", env_config["port"]
                self.link = socket.create_connection(address, timeout=5)
                self.lines = self.link.makefile("r")
                self.ask(None)
                break
            except (OSError, StepFailedRecreateEnvError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def ask(self, message):
        try:
            self.link.sendall(json.dumps(message).encode() + b"\n")
            answer = json.loads(self.lines.readline())
        except (OSError, ValueError) as error:  # cut, or no answer within 5 seconds
            # In step(), RLlib does the same with any other error, and logs a traceback.
            raise StepFailedRecreateEnvError("the simulator is gone") from error
        return np.array(answer["observation"], np.float32), answer

    def reset(self, *, seed=None, options=None):
        observation, _ = self.ask(None)
        return observation, {}

    def step(self, action):
        observation, answer = self.ask(int(action))
        reward = float(answer["reward"])
        return observation, reward, answer["terminated"], answer["truncated"], {}

    def close(self):
        self.lines.close()
        self.link.close()


def greedy_return_of(module, first_seed, episodes=20):
    """The mean return of whole episodes, in Gymnasium's CartPole."""
    envs = gym.make_vec("CartPole-v1", num_envs=episodes)
    observations, _ = envs.reset(seed=first_seed)  # first_seed, first_seed + 1, ...
    returns, running = np.zeros(episodes), np.ones(episodes, bool)
    while running.any():
        with torch.no_grad():
            out = module.forward_inference({"obs": torch.tensor(observations)})
        actions = out["action_dist_inputs"].argmax(-1).numpy()
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns += rewards * running
        running &= ~(terminated | truncated)
    envs.close()
    return float(returns.mean())


if __name__ == "__main__":  # so that another program can import the class
    warnings.filterwarnings("ignore", ".*Overriding environment")  # at each new one
    torch.set_num_threads(1)  # so small a network is slower with more threads
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
    node = shutil.which("node") or sys.exit("This program needs Node.js.")
    # The program itself, not one that starts it: it shall be killed.
    node = subprocess.check_output([node, "-p", "process.execPath"], text=True).strip()
    ray.init(
        "local", include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    with socket.socket() as probe:  # a free port
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [node, Path(__file__).with_name("cartpole.js"), str(port)]
    # The pipe takes it along, however this program ends.
    simulator = subprocess.Popen(command, stdin=subprocess.PIPE)

    config = (
        PPOConfig()
        .environment(Simulator, env_config={"port": port, "patience": 30})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)  # 8 connections
        .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6)
        # Make a new environment and go on, instead of ending with the first error.
        .fault_tolerance(restart_failed_sub_environments=True)
        .debugging(seed=SEED)
    )
    algo = config.build_algo()

    start = time.perf_counter()
    for iteration in range(1, 61):
        result = algo.train()
        print(
            f"iteration {iteration:3d}   "
            f"env steps {int(result['num_env_steps_sampled_lifetime']):7,d}   "
            f"mean return {result['env_runners']['episode_return_mean']:6.1f}   "
            f"seconds {time.perf_counter() - start:5.1f}"
        )
        if iteration == 4:
            simulator.kill()
            simulator.wait()
            print("--- the simulator was killed, and starts again")
            simulator = subprocess.Popen(command, stdin=subprocess.PIPE)
        if iteration < 6:
            continue
        if greedy_return_of(algo.get_module(), 10**6 + 20 * iteration) > 1.3 * TARGET:
            break

    module = algo.get_module()
    algo.stop()
    ray.shutdown()
    simulator.kill()
    simulator.wait()

    greedy_return = greedy_return_of(module, 1000 * SEED)
    print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
    if greedy_return < TARGET:
        sys.exit(f"The agent did not learn: it should reach {TARGET}.")
