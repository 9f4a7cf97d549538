"""PPO in mixed precision, on a GPU where there is one and on the CPU where not."""

import logging
import os
import sys
import time

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import (
    DefaultPPOTorchRLModule,
)
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; acting at random gives about 22
MAX_ENV_STEPS = 200_000

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
gpus = 1 if torch.cuda.is_available() else 0
print(f"the learner computes on the {'GPU' if gpus else 'CPU'}")


class MixedPrecisionModule(DefaultPPOTorchRLModule):
    """PPO's networks; encoder and policy head learn in bfloat16.

    Parameters, loss and optimizer stay float32. bfloat16 has the range of float32,
    so the loss needs no scaling (float16 would: `_torch_grad_scaler_class`).
    """

    dtypes = set()  # of what the layers give while they learn

    def _forward_train(self, batch, **kwargs):
        with torch.autocast(batch["obs"].device.type, dtype=torch.bfloat16):
            out = super()._forward_train(batch, **kwargs)
        self.dtypes.add(str(out["action_dist_inputs"].dtype))
        return {
            key: value.float() if torch.is_tensor(value) else value
            for key, value in out.items()
        }


config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    # The learner is in this process; with a GPU, its networks and batches move there.
    .learners(num_learners=0, num_gpus_per_learner=gpus)
    .rl_module(rl_module_spec=RLModuleSpec(module_class=MixedPrecisionModule))
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
    """The mean return of greedy episodes, one for each seed, on the CPU."""
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


algo = config.build_algo()
start, env_steps, iteration, evaluated = time.perf_counter(), 0, 0, 0.0
while evaluated < TARGET + 25 and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
    if mean_return >= 0.7 * TARGET:  # exploring; how good is it without?
        evaluated = play(algo.get_module(), range(20))

module = algo.get_module()  # the env runner's copy: on the CPU, float32
algo.stop()
ray.shutdown()
assert MixedPrecisionModule.dtypes == {"torch.bfloat16"}, MixedPrecisionModule.dtypes
greedy_return = play(module, range(1000 * SEED + 20, 1000 * SEED + 40))
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
