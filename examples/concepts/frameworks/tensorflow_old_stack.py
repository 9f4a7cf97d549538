"""Which algorithms still run in TensorFlow 2, and what stops the others."""

import logging
import os
import sys
import warnings

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # RLlib's TensorFlow code needs Keras 2

import gymnasium as gym
import ray
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig

OLD_BUFFER = {"replay_buffer_config": {"type": "MultiAgentPrioritizedReplayBuffer"}}
TRIALS = [  # algorithm, environment, settings, and whether it should run
    (PPOConfig, "CartPole-v1", {}, True),
    (APPOConfig, "CartPole-v1", {}, True),
    (IMPALAConfig, "CartPole-v1", {}, True),
    (DQNConfig, "CartPole-v1", OLD_BUFFER, False),
    (SACConfig, "Pendulum-v1", OLD_BUFFER, False),
    # This one needs the package tensorflow-probability.
    (SACConfig, "Pendulum-v1", OLD_BUFFER | {"lr": 3e-4}, True),
]

for name in ("ray", "ray.rllib"):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # no banner about API stacks
warnings.filterwarnings("ignore")
gym.logger.min_level = gym.logger.ERROR  # no word about later algorithms' envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

surprises = []
for config_class, env, settings, should_run in TRIALS:
    config = (
        config_class()
        .api_stack(
            enable_rl_module_and_learner=False,
            enable_env_runner_and_connector_v2=False,
        )
        .framework("tf2", eager_tracing=True)  # compiled; plain "tf2" is slower
        .environment(env)
        .env_runners(num_env_runners=0)
        .resources(num_gpus=0)  # IMPALA asks for one
        .reporting(min_time_s_per_iteration=0)
        .debugging(seed=int(os.environ.get("SEED", 0)), log_level="ERROR")
        .training(**settings)
    )
    try:
        algo = config.build_algo()
        env_steps = algo.train()["num_env_steps_sampled_lifetime"]
        algo.stop()
        outcome, ran = f"runs: {env_steps:,} env steps in the first train()", True
    except (TypeError, ValueError, AssertionError) as error:
        text = (str(error).strip() or "without a word").splitlines()[0]
        outcome, ran = f"{type(error).__name__}: {text[:66]}", False
    shown = f"{config_class.__name__.removesuffix('Config')}, {settings.get('lr', '')}"
    print(f"{shown.rstrip(', '):12s} {outcome}")
    if ran != should_run:
        surprises.append(shown)
ray.shutdown()
if surprises:
    sys.exit(f"It went otherwise than expected with {', '.join(surprises)}.")
