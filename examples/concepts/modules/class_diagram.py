"""Draws RLlib's main classes as Mermaid class diagrams, from the installed package.

Who inherits from whom is read off the classes, who holds whom off living objects.
"""

import logging
import sys
from collections import deque

import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import EnvToModulePipeline
from ray.rllib.connectors.learner import LearnerConnectorPipeline
from ray.rllib.connectors.module_to_env import ModuleToEnvPipeline
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.examples.envs.classes.multi_agent import MultiAgentCartPole
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentEpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)

# What to draw, and which methods to show of each: those that you call or override.
DIAGRAMS = {
    ("Algorithm", "LR"): {
        AlgorithmConfig: "environment env_runners learners training build_algo",
        Algorithm: "train training_step evaluate get_module save_to_path stop",
        RLlibCallback: "on_episode_end on_sample_end on_train_result",
    },
    ("Sampling", "LR"): {
        EnvRunnerGroup: "sync_weights foreach_env_runner",
        EnvRunner: "sample get_metrics",
        SingleAgentEnvRunner: "",
        MultiAgentEnvRunner: "",
    },
    ("Learning", "TB"): {
        LearnerGroup: "update foreach_learner",
        Learner: "update compute_loss_for_module configure_optimizers_for_module",
        TorchLearner: "compute_gradients apply_gradients",
    },
    ("Modules", "TB"): {
        RLModule: "setup forward_inference forward_exploration forward_train",
        TorchRLModule: "",
        MultiRLModule: "add_module remove_module",
    },
    ("Connectors", "TB"): {
        ConnectorV2: "recompute_output_observation_space",
        ConnectorPipelineV2: "prepend append insert_before insert_after remove",
        EnvToModulePipeline: "",
        ModuleToEnvPipeline: "",
        LearnerConnectorPipeline: "",
    },
    ("Episodes and replay buffers", "TB"): {
        SingleAgentEpisode: "get_observations get_actions get_rewards get_return",
        MultiAgentEpisode: "get_observations get_actions get_rewards get_return",
        EpisodeReplayBuffer: "add sample",
        PrioritizedEpisodeReplayBuffer: "update_priorities",
        MultiAgentEpisodeReplayBuffer: "",
        MultiAgentPrioritizedEpisodeReplayBuffer: "update_priorities",
    },
}
CLASSES = [cls for classes in DIAGRAMS.values() for cls in classes]


def drawn(thing):
    """The class that stands for this object in the diagrams, or None."""
    return next((cls for cls in type(thing).__mro__ if cls in CLASSES), None)


def holds(thing, found, seen):
    """Walks through living objects and writes down which class holds which, and how."""
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    names = getattr(thing, "__slots__", None) or list(vars(thing))
    for name in names:
        value = getattr(thing, name, None)
        value = list(value.values()) if isinstance(value, dict) else value
        for part in value if isinstance(value, (list, tuple, deque)) else [value]:
            # Nearly everything holds the config: that the Algorithm does is enough.
            if drawn(part) is AlgorithmConfig and drawn(thing) is not Algorithm:
                continue
            if drawn(part):
                found.add((drawn(thing), name, drawn(part)))
                holds(part, found, seen)


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

found = set()
single = PPOConfig().environment("CartPole-v1")
replay = DQNConfig().environment("CartPole-v1")
multi = DQNConfig().environment(MultiAgentCartPole, env_config={"num_agents": 2})
multi.multi_agent(policies={"one"}, policy_mapping_fn=lambda *_, **__: "one")
multi.training(replay_buffer_config={"type": "MultiAgentEpisodeReplayBuffer"})
for config in (single, replay, multi):
    config.env_runners(num_env_runners=0).debugging(log_level="ERROR")
    algo = config.build_algo()
    episodes = algo.env_runner.sample(num_episodes=1, random_actions=True)
    if algo.local_replay_buffer is not None:  # only DQN has one
        algo.local_replay_buffer.add(episodes)
    holds(algo, found, {})
    algo.stop()
ray.shutdown()
# A relation that a parent class has need not be drawn for its children.
found = {
    (owner, name, part)
    for owner, name, part in found
    if not any(
        (above, name, other) in found and issubclass(part, other)
        for above in CLASSES
        for other in CLASSES
        if issubclass(owner, above) and (above, other) != (owner, part)
    )
}

for (title, direction), classes in DIAGRAMS.items():
    print(f"classDiagram\n  direction {direction}")
    print(f"  accTitle: {title}")
    print(f"  accDescr: Classes of RLlib {ray.__version__}, their parents and parts.")
    for cls in sorted(classes, key=lambda cls: cls.__name__):
        methods = classes[cls].split()
        missing = [name for name in methods if not callable(getattr(cls, name, None))]
        if missing:
            sys.exit(f"{cls.__name__} of this RLlib has no {', '.join(missing)}().")
        body = "".join(f"\n    {name}()" for name in methods)
        print(f"  class {cls.__name__}" + (f" {{{body}\n  }}" if body else ""))
        parents = [base for base in cls.__mro__[1:] if base in CLASSES]
        for base in parents:
            if not any(issubclass(other, base) for other in parents if other != base):
                print(f"  {base.__name__} <|-- {cls.__name__}")
    pairs = {(owner, part) for owner, _, part in found if owner in classes}
    for owner, part in sorted(pairs, key=lambda pair: [c.__name__ for c in pair]):
        names = [name for o, name, p in found if (o, p) == (owner, part)]
        name = min(names, key=lambda name: (len(name), name))  # one will do
        print(f"  {owner.__name__} *-- {part.__name__} : {name}")
    print()
if len(found) < 15:
    sys.exit(f"Only {len(found)} relations found: RLlib keeps its parts elsewhere now.")
