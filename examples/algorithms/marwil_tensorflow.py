"""MARWIL in TensorFlow 2, on RLlib's old API stack, from a file of mediocre play."""

import logging
import os
import sys
import tempfile
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # RLlib's TensorFlow code needs Keras 2

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.evaluation.sample_batch_builder import SampleBatchBuilder
from ray.rllib.offline.json_writer import JsonWriter

SEED = int(os.environ.get("SEED", 0))
TARGET = 200  # mean return of 20 greedy episodes; the recorded policy has about 35
MAX_ITERATIONS = 60

rng, env = np.random.default_rng(SEED), gym.make("CartPole-v1")


def behaviour(observation):
    """Pushes to the side that the pole leans to; 7 times in 10 at random instead."""
    return int(observation[2] > 0) if rng.random() > 0.7 else int(rng.integers(2))


def record(folder):
    """Write 20,000 steps as the old API stack reads them: an episode a line of JSON."""
    writer, steps, episodes = JsonWriter(folder), 0, 0
    while steps < 20_000:
        batch, done = SampleBatchBuilder(), False
        observation, _ = env.reset(seed=100_000 * SEED + episodes)
        while not done:
            action = behaviour(observation)
            step = env.step(action)
            new_observation, reward, terminated, truncated, _ = step
            batch.add_values(
                obs=observation,
                actions=action,
                rewards=reward,
                new_obs=new_observation,
                terminateds=terminated,
                truncateds=truncated,
                eps_id=episodes,
                agent_index=0,
            )
            observation, done = new_observation, terminated or truncated
            steps += 1
        writer.write(batch.build_and_reset())
        episodes += 1
    print(f"behaviour return {steps / episodes:.1f} over {episodes} episodes")


for name in ("ray", "ray.rllib"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
folder = tempfile.TemporaryDirectory()
record(folder.name)

config = (
    MARWILConfig()
    # TensorFlow lives in the old API stack only.
    .api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    .framework("tf2", eager_tracing=True)  # eager_tracing: compiled, so faster
    .environment("CartPole-v1")  # for its spaces, and to evaluate
    .env_runners(num_env_runners=0)
    .offline_data(input_=folder.name)
    .training(
        beta=1.0,  # the default; 0 would imitate good and bad steps alike
        gamma=0.95,  # default 0.99
        lr=1e-3,  # default 1e-4
        train_batch_size=2000,
        model={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"},
    )
    .evaluation(
        evaluation_interval=1_000_000,  # without one, evaluation would explore
        evaluation_duration=20,
        evaluation_config={"explore": False, "input_": "sampler"},
    )
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
start, iteration, greedy_return = time.perf_counter(), 0, 0.0
while greedy_return < TARGET and iteration < MAX_ITERATIONS:
    iteration += 1
    for _ in range(5):
        result = algo.train()
    greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
    print(
        f"iteration {iteration:3d}   "
        f"env steps {int(result['num_env_steps_trained']):7,d}   "
        f"mean return {greedy_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
algo.stop()
ray.shutdown()
folder.cleanup()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"MARWIL missed its target of {TARGET} in {iteration} iterations.")
