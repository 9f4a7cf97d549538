"""Kills an env runner and then a learner in mid-training, and learns all the same."""

import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # Ray's own words about dead processes

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; acting at random gives about 22

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
logging.getLogger("ray.rllib.utils.actor_manager").setLevel(logging.CRITICAL)
ray.init(
    "local",
    num_cpus=4,
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)
folder = tempfile.TemporaryDirectory()

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=2, num_envs_per_env_runner=8)
    .learners(num_learners=1)  # an actor of its own
    .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6)
    .debugging(seed=SEED, log_level="ERROR")
)


def kill_env_runner(algo):
    [pid] = algo.env_runner_group.foreach_env_runner(
        lambda env_runner: os.getpid(), remote_worker_ids=[1], local_env_runner=False
    )
    os.kill(pid, signal.SIGKILL)


def kill_learner(algo):
    pids = algo.learner_group.foreach_learner(lambda learner: os.getpid())
    os.kill(next(iter(pids)).get(), signal.SIGKILL)


def greedy_return_of(module, first_seed, episodes=20):
    """The mean return of whole episodes that choose the likeliest action."""
    env, total = gym.make("CartPole-v1"), 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=first_seed + episode)
        done = False
        while not done:
            with torch.no_grad():
                out = module.forward_inference({"obs": torch.tensor(observation)[None]})
            action = out["action_dist_inputs"].argmax().item()
            observation, reward, terminated, truncated, _ = env.step(action)
            total += reward
            done = terminated or truncated
    return total / episodes


algo = config.build_algo()
checkpoint = None
kills = {3: kill_env_runner, 6: kill_learner}
iteration, env_steps, again, born = 0, 0, "", time.perf_counter()
while iteration < 60:
    if iteration + 1 in kills:
        kill = kills.pop(iteration + 1)
        print(f"--- {kill.__name__.replace('_', ' ')}, with SIGKILL")
        kill(algo)
    start = time.perf_counter()
    try:
        result = algo.train()
    except Exception as error:
        print(f"--- train() raised {type(error).__name__}")
        print("   ", str(error).splitlines()[0])
        # RLlib does not restart a learner. So build all anew from the last checkpoint.
        lost = iteration - int(checkpoint.name)
        start = time.perf_counter()
        algo.stop()
        algo = config.copy(copy_frozen=False).build_algo()
        algo.restore_from_path(checkpoint)
        iteration, again = algo.iteration, "   "
        print(
            f"--- built anew from checkpoint {checkpoint.name} in "
            f"{time.perf_counter() - start:.1f} s, {lost + 1} iterations lost"
        )
        continue
    iteration = algo.iteration
    env_steps += int(result["env_runners"]["num_env_steps_sampled"])  # lost ones too
    print(
        f"{again}iteration {iteration:3d}   "
        f"env steps {int(result['num_env_steps_sampled_lifetime']):7,d}   "
        f"mean return {result['env_runners']['episode_return_mean']:6.1f}   "
        f"env runners {result['fault_tolerance']['num_healthy_workers']}   "
        f"took {time.perf_counter() - start:5.1f}   "
        f"seconds {time.perf_counter() - born:5.1f}"
    )
    if iteration % 2 == 0:
        checkpoint = Path(folder.name) / str(iteration)
        algo.save_to_path(checkpoint)
    if kills or iteration % 3:
        continue
    if greedy_return_of(algo.get_module(), first_seed=10**6) > 1.3 * TARGET:
        break

module = algo.get_module()
algo.stop()
ray.shutdown()
folder.cleanup()
if kills:
    sys.exit("Not all was killed that should be.")

greedy_return = greedy_return_of(module, 1000 * SEED)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The agent did not learn: it should reach {TARGET}.")
