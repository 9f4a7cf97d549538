"""A simulator in JavaScript, cut twice: it connects again, and PPO learns all the same.

It needs Node.js, and cartpole.js and rllink_client.js in the same folder.
"""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # Ray's own words about dead processes

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.external.env_runner_server_for_external_inference import (
    EnvRunnerServerForExternalInference,
)

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 150_000
BATCH = 1024  # env steps of one update: here, and in what the simulator sends
AWAY = 8.0  # seconds that a killed simulator stays away

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
logging.getLogger("ray.rllib.utils.actor_manager").setLevel(logging.CRITICAL)
node = shutil.which("node") or sys.exit("This program needs Node.js.")
# The program itself, not one that starts it: it shall be killed.
node = subprocess.check_output([node, "-p", "process.execPath"], text=True).strip()
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
with socket.socket() as probe:  # a free port
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

config = (
    PPOConfig()
    .environment(
        observation_space=gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
        action_space=gym.spaces.Discrete(2),
        env_config={"port": port - 1},  # env runner number 1 listens at `port`
    )
    .env_runners(
        env_runner_cls=EnvRunnerServerForExternalInference,
        num_env_runners=1,
        create_local_env_runner=False,
        sample_timeout_s=None,  # wait for the simulator as long as it takes
        merge_env_runner_states=False,  # see rllink.py
        broadcast_env_runner_states=False,
    )
    .training(
        lr=[[0, 1e-3], [MAX_ENV_STEPS, 1e-4]],
        train_batch_size_per_learner=BATCH,
        minibatch_size=256,
        num_epochs=10,
        gamma=0.98,
        lambda_=0.8,
        use_kl_loss=False,
        vf_clip_param=float("inf"),
        vf_loss_coeff=0.5,
        grad_clip=0.5,
    )
    # The network that rllink_client.js can compute: layers of tanh.
    .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
    # If an error ends the env runner, say because the simulator died while the weights
    # were on their way: not to sleep for a minute first.
    .fault_tolerance(delay_between_env_runner_restarts_s=0)
    .debugging(seed=SEED, log_level="ERROR")
)
algo = config.build_algo()
algo.env_runner_group.sync_weights(
    from_worker_or_learner_group=algo.learner_group, inference_only=True
)

client = Path(__file__).with_name("rllink_client.js")
simulators = []


def start_simulator():
    arguments = [str(port), str(BATCH), str(SEED + len(simulators))]
    # The pipe takes it along, however this program ends.
    simulators.append(
        subprocess.Popen([node, client, *arguments], stdin=subprocess.PIPE)
    )


def kill_simulator():
    simulators[-1].kill()
    simulators[-1].wait()
    threading.Timer(AWAY, start_simulator).start()
    print(f"--- simulator killed; another one starts after {AWAY:.0f} s")


def kill_env_runner():
    [pid] = algo.env_runner_group.foreach_env_runner(
        lambda env_runner: os.getpid(), local_env_runner=False
    )
    os.kill(pid, signal.SIGKILL)
    print("--- env runner killed; the simulator loses its connection")


def trained_module():
    """The network with the learner's weights: no env runner has to be there."""
    module = config.get_rl_module_spec().build()
    module.set_state(algo.learner_group.get_weights()["default_policy"])
    return module


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


def too_long(*_):
    """End all, and at once: Ray's wait may swallow the exception of sys.exit()."""
    print("No batch came: the simulator did not connect again.", file=sys.stderr)
    sys.stdout.flush()
    os._exit(1)


start_simulator()
signal.signal(signal.SIGALRM, too_long)  # sample() itself would wait for ever
signal.alarm(120)
cuts = {6: kill_simulator, 14: kill_env_runner}
start, env_steps, updates, good = time.perf_counter(), 0, 0, 0
may_double = False  # one update, after an env runner has restarted
while env_steps < MAX_ENV_STEPS and (cuts or good < 2):
    result = algo.train()
    steps = int(result["num_env_steps_sampled_lifetime"]) - env_steps
    if steps == 0:
        time.sleep(0.5)  # train() came back without samples: no env runner
        continue
    signal.alarm(120)
    env_steps += steps
    updates += 1
    print(
        f"iteration {updates:3d}   env steps {env_steps:7,d} (+{steps:,})   "
        f"mean return {result['env_runners']['episode_return_mean']:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
    if steps != BATCH:
        if not (may_double and steps == 2 * BATCH):
            sys.exit(f"An update used {steps} env steps, not {BATCH}.")
        may_double = False
    if updates in cuts:
        cuts.pop(updates)()
        may_double = True
    elif updates % 5 == 0:
        evaluated = greedy_return_of(trained_module(), 10**6 + 20 * updates)
        good = good + 1 if evaluated >= TARGET else 0

signal.alarm(0)
module = trained_module()
simulators[-1].kill()
simulators[-1].wait()
algo.stop()
ray.shutdown()
if cuts:
    sys.exit("The training ended before the simulator was cut twice.")

greedy_return = greedy_return_of(module, 1000 * SEED)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed {TARGET} within {MAX_ENV_STEPS:,} env steps.")
