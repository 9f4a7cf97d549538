"""How old IMPALA's batches are, and which ratios V-trace meets (RLlib 2.60)."""

import logging
import os

import ray
import torch
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.impala.torch.impala_torch_learner import IMPALATorchLearner
from ray.rllib.core.columns import Columns

SEED = int(os.environ.get("SEED", 0))
LAG = "diff_num_grad_updates_vs_sampler_policy"  # RLlib's own name for it


class RatioLearner(IMPALATorchLearner):
    """IMPALA's loss, unchanged. It also logs the ratios that V-trace works with."""

    def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
        dist_class = self.module[module_id].unwrapped().get_train_action_dist_cls()
        policy = dist_class.from_logits(fwd_out[Columns.ACTION_DIST_INPUTS].detach())
        log_ratio = policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
        ratio = torch.exp(log_ratio)[batch[Columns.LOSS_MASK]]
        # Means over the last 20 batches. V-trace cuts what is above 1.
        self.metrics.log_dict(
            {
                "off_by": torch.abs(ratio - 1).mean(),
                "above": (ratio > 1.1).float().mean(),
            },
            key=module_id,
            window=20,
        )
        return super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

lags = []
for broadcast_interval in (1, 20):
    config = (
        IMPALAConfig()
        .environment("CartPole-v1")
        .env_runners(
            num_env_runners=1,
            num_envs_per_env_runner=32,
            rollout_fragment_length=16,
            use_env_runner_state_server=False,
        )
        .fault_tolerance(restart_failed_env_runners=False)
        .learners(num_learners=0, learner_class=RatioLearner)
        .training(
            train_batch_size_per_learner=512,
            lr=3e-3,
            timeout_s_sampler_manager=0.5,
            broadcast_interval=broadcast_interval,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "vf_share_layers": False})
        .reporting(min_time_s_per_iteration=4)
        .debugging(seed=SEED)
    )
    algo = config.build_algo()
    algo.train()
    learner = algo.train()["learners"]["default_policy"]
    algo.stop()
    lags.append(learner[LAG])
    print(
        f"new weights every {broadcast_interval:2d} updates: batches "
        f"{learner[LAG]:4.1f} updates old, ratios off by {learner['off_by']:.2f}, "
        f"{learner['above']:3.0%} of them above 1.1"
    )
ray.shutdown()
assert lags[0] < lags[1], "fewer broadcasts should make older batches"
