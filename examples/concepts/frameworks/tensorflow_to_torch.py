"""A policy learned in TensorFlow goes on in PyTorch: same weights, same outputs."""

import logging
import os
import sys
import time

os.environ["TF_USE_LEGACY_KERAS"] = (
    "1"  # RLlib's TensorFlow code needs Keras 2 (package tf-keras)
)

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 150_000

# Each weight of the TensorFlow model, and where it belongs in PPO's RLModule.
LAYERS = {
    "fc_1": "encoder.actor_encoder.net.mlp.0",
    "fc_2": "encoder.actor_encoder.net.mlp.2",
    "fc_out": "pi.net.mlp.0",
    "fc_value_1": "encoder.critic_encoder.net.mlp.0",
    "fc_value_2": "encoder.critic_encoder.net.mlp.2",
    "value_out": "vf.net.mlp.0",
}

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    # TensorFlow lives in the old API stack only.
    .api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    .framework("tf2", eager_tracing=True)  # eager_tracing: compiled, so faster
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=3e-3,
        train_batch_size=2048,  # the old stack's name
        minibatch_size=256,
        num_epochs=6,
        gamma=0.98,
        lambda_=0.9,
        clip_param=0.2,
        kl_coeff=0.0,  # no KL loss
        vf_clip_param=float("inf"),
        vf_loss_coeff=0.5,
        grad_clip=0.5,
        model={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"},
    )
    # 20 greedy episodes, one after another, when algo.evaluate() is called. Only with
    # an interval does evaluation get an env runner of its own, which acts greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 1},
    )
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
start, env_steps, iteration, evaluated = time.perf_counter(), 0, 0, 0.0
while evaluated < TARGET + 20 and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = result["num_env_steps_sampled_lifetime"]
    # episode_return_mean covers 100 episodes here; the last 20 tell earlier.
    mean_return = np.mean(result["env_runners"]["hist_stats"]["episode_reward"][-20:])
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   seconds {seconds:5.1f}"
    )
    if mean_return >= TARGET:
        evaluated = algo.evaluate()["env_runners"]["episode_return_mean"]


# 1. The outputs of the TensorFlow model, for 1000 observations.
rng = np.random.default_rng(SEED)
observations = rng.normal(0, 1, (1000, 4)).astype(np.float32)
model = algo.get_policy().model  # only the old API stack has it
logits, _ = model({"obs": observations})
values = model.value_function()
weights = {weight.name: weight.numpy() for weight in model.trainable_variables()}
algo.stop()
ray.shutdown()

# 2. PPO's RLModule of the new API stack, of the same shape, with these weights.
new_config = PPOConfig().environment("CartPole-v1")
new_config.rl_module(
    model_config={
        "fcnet_hiddens": [64, 64],
        "fcnet_activation": "tanh",
        "vf_share_layers": False,  # a network each for policy and values, as above
    }
)
env = gym.make("CartPole-v1")
spec = new_config.get_rl_module_spec(env=env, inference_only=False)
module = spec.build()
state = module.get_state()
for theirs, ours in LAYERS.items():
    state[f"{ours}.weight"] = weights[f"{theirs}/kernel:0"].T  # PyTorch: out x in
    state[f"{ours}.bias"] = weights[f"{theirs}/bias:0"]
module.set_state(state)

# 3. The same numbers?
batch = {"obs": torch.from_numpy(observations)}
with torch.no_grad():
    torch_logits = module.forward_inference(batch)["action_dist_inputs"].numpy()
    torch_values = module.compute_values(batch).numpy()
apart = [np.abs(torch_logits - logits).max(), np.abs(torch_values - values).max()]
print(f"largest difference: logits {apart[0]:.0e}, values {apart[1]:.0e}")

# 4. And it plays.
returns = []
for seed in range(20):
    observation, _ = env.reset(seed=seed)
    episode_return, done = 0.0, False
    while not done:
        with torch.no_grad():
            out = module.forward_inference({"obs": torch.from_numpy(observation[None])})
        action = out["action_dist_inputs"].argmax().item()
        observation, reward, terminated, truncated, _ = env.step(action)
        episode_return += reward
        done = terminated or truncated
    returns.append(episode_return)
greedy_return = np.mean(returns)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The policy missed its target of {TARGET} after the move.")
if max(apart) > 1e-3:
    sys.exit("The two networks should give the same numbers.")
