"""PPO on CartPole with two env runners: on this machine, or on the cluster you name."""

import logging
import os
import sys
import time

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 300  # mean return of 20 greedy episodes; acting at random gives about 22
MAX_ENV_STEPS = 150_000

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks

# The one line. Without RAY_ADDRESS: a Ray of its own, on this machine. With
# RAY_ADDRESS=host:port: the cluster whose head listens there.
address = os.environ.get("RAY_ADDRESS", "local")
ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment("CartPole-v1")
    # Two actors, each with one CPU of some node and eight copies of the environment.
    .env_runners(num_env_runners=2, num_envs_per_env_runner=8)
    .training(
        lr=3e-3,  # default 5e-5, which suits far longer runs
        train_batch_size_per_learner=2048,  # default 4000: update more often
        minibatch_size=256,  # default 128: fewer, larger gradient steps
        num_epochs=6,  # default 30: reuse each batch less
        gamma=0.98,  # default 0.99
        lambda_=0.9,  # default 1.0: less variance in the advantages, some bias
        use_kl_loss=False,  # the clip alone keeps the policy near the old one
        vf_clip_param=float("inf"),  # default 10, far below squared errors here
        grad_clip=0.5,  # default: none
    )
    .debugging(seed=SEED)
)


def play(module, seeds):
    """The mean return of greedy episodes, one for each seed, in this process."""
    env, returns = gym.make("CartPole-v1"), []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        episode_return, done = 0.0, False
        while not done:
            with torch.no_grad():
                batch = {"obs": torch.tensor(observation)[None]}
                logits = module.forward_inference(batch)["action_dist_inputs"]
            observation, reward, terminated, truncated, _ = env.step(
                logits.argmax().item()
            )
            episode_return += reward
            done = terminated or truncated
        returns.append(episode_return)
    return sum(returns) / len(returns)


def sits_on(env_runner):
    """The id of the node that an env runner runs on."""
    return ray.get_runtime_context().get_node_id()


algo = config.build_algo()
start, env_steps, iteration, evaluated, places = time.perf_counter(), 0, 0, 0.0, None
while evaluated < 1.2 * TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    nodes = algo.env_runner_group.foreach_env_runner(sits_on, local_env_runner=False)
    if (len(nodes), len(set(nodes))) != places:  # at the start, and when one is lost
        places = len(nodes), len(set(nodes))
        print("env runners {}, on different nodes {}".format(*places))
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}",
        flush=True,
    )
    if mean_return >= 0.8 * TARGET:  # exploring; how good is it without?
        evaluated = play(algo.get_module(), range(10**6, 10**6 + 20))

module = algo.get_module()
algo.stop()
ray.shutdown()
greedy_return = play(module, range(1000 * SEED, 1000 * SEED + 20))
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
