"""A3C, rebuilt on RLlib 2.60: the workers compute gradients, and nobody waits."""

import logging
import os
import sys
import time
from collections import Counter

import numpy as np
import ray
import torch
from ray.rllib.algorithms import Algorithm, AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from torch.nn.utils import parameters_to_vector, vector_to_parameters

SEED = int(os.environ.get("SEED", 0))
ENV = os.environ.get("ENV", "CartPole-v1")
WORKERS = int(os.environ.get("WORKERS", 2))  # 0: all in this process
TARGET = {"CartPole-v1": 450, "Acrobot-v1": -100}[ENV]  # of 20 greedy episodes
MAX_ENV_STEPS = {"CartPole-v1": 200_000, "Acrobot-v1": 400_000}[ENV]


class A3CConfig(AlgorithmConfig):
    """The settings of A3C: those of every algorithm, and the weights in its loss."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class or A3C)
        self.env_runner_cls = A3CEnvRunner
        self.rollout_fragment_length = 5  # the paper's t_max; AlgorithmConfig: 200
        self.grad_clip = 40.0  # AlgorithmConfig: None
        self.vf_loss_coeff, self.entropy_coeff = 0.5, 0.01

    def training(self, **kwargs):
        for name in {"vf_loss_coeff", "entropy_coeff"} & kwargs.keys():
            setattr(self, name, kwargs.pop(name))
        return super().training(**kwargs)

    def get_default_rl_module_spec(self):
        return PPOConfig().get_default_rl_module_spec()  # a policy and a critic

    def get_default_learner_class(self):
        return A3CLearner


def n_step_returns(rewards, bootstrap, gamma):
    """R_t + γ R_(t+1) + ... + γⁿ `bootstrap`, for each step t of a piece of episode."""
    returns, following = torch.empty(len(rewards)), bootstrap
    for t in reversed(range(len(rewards))):
        returns[t] = following = rewards[t] + gamma * following
    return returns


def losses(module, episodes, gamma):
    """Policy loss, value loss and entropy, each a mean over the steps of all pieces."""
    # A piece of n steps has n + 1 observations. The last is there for its value.
    obs = np.concatenate([piece.get_observations() for piece in episodes])
    last = np.cumsum([len(piece) + 1 for piece in episodes]) - 1
    acted = np.delete(np.arange(len(obs)), last)
    batch = {Columns.OBS: torch.as_tensor(obs, dtype=torch.float32)}
    out = module.forward_train(batch)
    values = module.compute_values(batch, out.get(Columns.EMBEDDINGS))

    returns = []
    for piece, value in zip(episodes, values.detach()[last], strict=True):
        # Nothing follows a terminated episode. A truncated one would have gone on.
        bootstrap = 0.0 if piece.is_terminated else value
        returns.append(n_step_returns(piece.get_rewards(), bootstrap, gamma))
    returns = torch.cat(returns)
    advantages = returns - values.detach()[acted]  # numbers: not differentiated
    # Not in the paper: it makes the step size independent of how large rewards are.
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-5)
    logits = out[Columns.ACTION_DIST_INPUTS][acted]
    action_dist = module.get_train_action_dist_cls().from_logits(logits)
    actions = np.concatenate([piece.get_actions() for piece in episodes])
    log_prob = action_dist.logp(torch.as_tensor(actions))
    return (
        -(log_prob * advantages).mean(),
        torch.square(values[acted] - returns).mean(),
        action_dist.entropy().mean(),
    )


class A3CEnvRunner(SingleAgentEnvRunner):
    """A worker: it plays a few steps and returns a gradient instead of the steps."""

    def make_module(self):
        # Other env runners leave the critic out. Here the gradient needs it.
        spaces = self.get_spaces()
        spec = self.config.get_rl_module_spec(spaces=spaces, inference_only=False)
        self.module = spec.build()

    def compute_gradient(self, weights, version):
        """Play a fragment: (gradient of its loss at `weights`, `version`, metrics)."""
        config = self.config
        vector_to_parameters(torch.tensor(weights), self.module.parameters())
        policy, critic, entropy = losses(self.module, self.sample(), config.gamma)
        loss = policy + config.vf_loss_coeff * critic - config.entropy_coeff * entropy
        gradient = torch.autograd.grad(loss, list(self.module.parameters()))
        return parameters_to_vector(gradient).numpy(), version, self.get_metrics()


class A3CLearner(TorchLearner):
    """Holds the shared weights and their optimizer. It computes no loss."""

    def configure_optimizers_for_module(self, module_id, config=None):
        # The paper's "shared RMSProp": one running mean for the gradients of all.
        params = self.get_parameters(self.module[module_id])
        rmsprop = torch.optim.RMSprop(params, alpha=0.99, eps=1e-5)
        self.register_optimizer(
            module_id=module_id,
            optimizer=rmsprop,
            params=params,
            lr_or_lr_schedule=config.lr,
        )

    def step_along(self, gradient, env_steps):
        """One step of the optimizer along a worker's gradient."""
        params = self.get_parameters(self.module[DEFAULT_MODULE_ID])
        parts = torch.tensor(gradient).split([p.numel() for p in params])
        gradients = {p: part.view_as(p) for p, part in zip(params, parts, strict=True)}
        self.apply_gradients(self.postprocess_gradients(gradients))  # clips them
        timesteps = {"num_env_steps_sampled_lifetime": env_steps}
        self.after_gradient_based_update(timesteps=timesteps)  # if `lr` is a schedule

    def get_vector(self):
        params = self.get_parameters(self.module[DEFAULT_MODULE_ID])
        return parameters_to_vector(params).detach().numpy()

    def compute_loss_for_module(self, **kwargs):
        raise NotImplementedError("The env runners compute the loss of A3C.")


class A3C(Algorithm):
    """Applies each gradient when it comes, and answers with the weights of now."""

    @classmethod
    def get_default_config(cls):
        return A3CConfig()

    def setup(self, config):
        super().setup(config)
        self.updates = 0  # the version of the weights
        self.fetch_weights()

    def training_step(self):
        group = self.env_runner_group
        if group.num_remote_workers() == 0:
            self.update(*self.env_runner.compute_gradient(self.weights, self.updates))
        # Ask workers that have nothing to do: at first all, later those restarted.
        in_flight = group.num_in_flight_async_reqs("gradient")
        if in_flight < group.num_healthy_remote_workers():
            self.ask(group.healthy_worker_ids())
        # Take what comes within 2 ms. Of a worker that died comes nothing.
        ready = group.fetch_ready_async_reqs(tags="gradient", timeout_seconds=0.002)
        for worker, played in ready:
            self.update(*played)
            self.ask([worker])  # the new weights go to this worker only
        learned = self.on_learner(lambda learner: learner.metrics.reduce())
        self.metrics.aggregate([learned], key="learners")

    def ask(self, worker_ids):
        """Ask for a gradient. RLlib skips a worker that has such a request already."""
        self.env_runner_group.foreach_env_runner_async(
            "compute_gradient",
            tag="gradient",
            kwargs={"weights": self.weights, "version": self.updates},
            remote_worker_ids=worker_ids,
        )

    def update(self, gradient, version, metrics):
        self.metrics.aggregate([metrics], key="env_runners")
        steps_key = ("env_runners", "num_env_steps_sampled_lifetime")
        env_steps = self.metrics.peek(steps_key, default=0)
        self.on_learner(lambda learner: learner.step_along(gradient, env_steps))
        staleness = self.updates - version  # updates that others made meanwhile
        self.metrics.log_value("staleness", staleness, reduce="item_series")
        self.updates += 1
        self.fetch_weights()

    def fetch_weights(self):
        """For the next worker that is asked, and for algo.get_module()."""
        self.weights = self.on_learner(lambda learner: learner.get_vector())
        local = self.env_runner.module.parameters()
        vector_to_parameters(torch.tensor(self.weights), local)

    def on_learner(self, function):
        [result] = self.learner_group.foreach_learner(function)
        return result.get()

    def get_state(self, *args, **kwargs):
        return super().get_state(*args, **kwargs) | {"updates": self.updates}

    def set_state(self, state):
        # What is still on its way belongs to other weights: let it come, and drop it.
        group = self.env_runner_group
        group.fetch_ready_async_reqs(tags="gradient", timeout_seconds=None)
        super().set_state(state)
        self.updates = state["updates"]
        self.fetch_weights()


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    A3CConfig()
    .environment(ENV)
    .env_runners(
        num_env_runners=WORKERS,
        num_cpus_per_env_runner=0.5,  # default 1; so two cores can hold three workers
        num_envs_per_env_runner=8,
        rollout_fragment_length=16,  # steps of each env in a gradient; paper: 5
    )
    .training(lr=1e-3, gamma=0.99)  # the defaults
    # Default: [256, 256], and one network for both. Two networks learn far faster.
    .rl_module(model_config={"fcnet_hiddens": [64, 64], "vf_share_layers": False})
    # 20 greedy episodes, side by side, when algo.evaluate() is called. Only with an
    # interval does evaluation get an env runner of its own, which can act greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    # One train() goes on for 2000 env steps, however many gradients they make.
    .reporting(min_sample_timesteps_per_iteration=2000)
    .debugging(seed=SEED)
)
if ENV == "Acrobot-v1":  # Success is rare at first: more data for each gradient.
    config.env_runners(num_envs_per_env_runner=16, rollout_fragment_length=32)
    config.training(entropy_coeff=0.05)
    config.reporting(min_sample_timesteps_per_iteration=10_000)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -9999.0
staleness = Counter()
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["env_runners"]["num_env_steps_sampled_lifetime"])
    staleness.update(result["staleness"])
    # In training, actions are drawn from the policy. What counts is its best action.
    greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {greedy_return:6.1f}   seconds {seconds:5.1f}"
    )

algo.stop()
ray.shutdown()
shares = [f"{n}: {staleness[n] / staleness.total():.1%}" for n in sorted(staleness)]
print(f"staleness of {staleness.total():,} gradients: " + "   ".join(shares))
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"A3C missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
