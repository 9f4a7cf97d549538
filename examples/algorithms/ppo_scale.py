"""PPO with its env copies in this process, and spread over two env-runner actors."""

import logging

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

for num_env_runners, num_envs in [(0, 16), (2, 8)]:
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=num_env_runners, num_envs_per_env_runner=num_envs)
        # num_learners=1 would move the update into an actor too, num_learners=2 into
        # two, each with a batch of train_batch_size_per_learner of its own.
        .learners(num_learners=0)
        .training(train_batch_size_per_learner=2048, num_epochs=6)
    )
    algo = config.build_algo()
    for _ in range(5):
        result = algo.train()
    actors = algo.env_runner_group.num_healthy_remote_workers()
    algo.stop()

    timers = result["timers"]
    print(
        f"{actors} actors, {num_envs} envs each: "
        f"{result['env_runners']['num_env_steps_sampled']:,.0f} env steps in "
        f"{timers['env_runner_sampling_timer']:.2f} s, "
        f"update {timers['learner_update_timer']:.2f} s, "
        f"weights {timers['synch_weights']:.3f} s"
    )
    assert actors == num_env_runners, "an env runner was lost"
ray.shutdown()
