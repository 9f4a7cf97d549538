"""What the RLModules of PPO, DQN and SAC return when they act and when they learn."""

import logging
import sys
import textwrap

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.apis import TargetNetworkAPI

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray").setLevel(logging.ERROR)  # no banner about API stacks
torch.manual_seed(3)
env = gym.make("CartPole-v1")
rng = np.random.default_rng(0)
batch = {
    "obs": torch.tensor(rng.normal(size=(8, 4)), dtype=torch.float32),
    "new_obs": torch.tensor(rng.normal(size=(8, 4)), dtype=torch.float32),
    "actions": torch.randint(2, (8,)),
}


def build(config, inference_only):
    """The network that env runners get (inference_only), or that of the Learner."""
    config.environment("CartPole-v1")
    return config.get_rl_module_spec(env=env, inference_only=inference_only).build()


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


for config in (PPOConfig(), DQNConfig(), SACConfig()):
    acting, learning = build(config, True), build(config, False)
    if isinstance(learning, TargetNetworkAPI):
        learning.make_target_networks()  # a Learner does this
    outputs = {
        "inference": acting.forward_inference(batch),
        "exploration": acting.forward_exploration(batch, t=0),
        "train": learning.forward_train(batch),
    }
    print(f"{type(learning).__name__}: {count(acting):,} parameters in an env", end=" ")
    print(f"runner, {count(learning):,} in a learner")
    for phase, output in outputs.items():
        names = textwrap.fill(", ".join(sorted(output)), 50)
        names = names.replace("\n", "\n" + 24 * " ")
        print(f"  forward_{phase + '()':14s}{names}")
        if phase != "train" and "actions" not in output and len(output) > 1:
            sys.exit("Acting should need one thing only.")
    if count(acting) >= count(learning):
        sys.exit("An env runner should not carry what only the loss needs.")

print("From PPO's outputs to actions, as RLlib's connector GetActions does it:")
module = build(PPOConfig(), inference_only=False)
logits = module.forward_inference(batch)["action_dist_inputs"]
distribution = module.get_inference_action_dist_cls().from_logits(logits)
greedy = distribution.to_deterministic().sample()
print("  probabilities of action 1", logits.softmax(-1)[:, 1].numpy().round(2))
print("  deterministic            ", greedy.numpy())
print("  sampled                  ", distribution.sample().numpy())
if not torch.equal(greedy, logits.argmax(-1)):
    sys.exit("The deterministic action should be the likeliest one.")

print("DQN explores inside its module, the less the later it is:")
module = build(DQNConfig(), inference_only=False)
same = {"obs": batch["obs"][:1].repeat(10_000, 1)}
greedy = module.forward_inference(same)["actions"][0]
for step in (0, 5_000, 10_000):
    actions = module.forward_exploration(same, t=step)["actions"]
    share = (actions != greedy).float().mean().item()
    print(f"  t={step:6,d}: {share:5.1%} of the actions are not the greedy one")
if not 0.01 < share < 0.04:  # a random action is the greedy one half of the time
    sys.exit("Epsilon should have come down to 0.05 by now.")
