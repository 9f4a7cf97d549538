"""PPO in TensorFlow on RLlib's new API stack, which ships no TensorFlow of its own."""

import logging
import os
import sys
import tempfile
import time

import ray
import tensorflow as tf
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import (
    AddObservationsFromEpisodesToBatch,
    BatchIndividualItems,
)
from ray.rllib.connectors.learner import (
    AddColumnsFromEpisodesToTrainBatch,
    AddOneTsToEpisodesAndTruncate,
    GeneralAdvantageEstimation,
)
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 150_000


class TensorFlowModule(RLModule, ValueFunctionAPI):
    """Policy and value function in Keras. It takes and returns NumPy arrays."""

    def setup(self):
        sizes, keras = self.model_config["hidden"], tf.keras
        observation = keras.Input(self.observation_space.shape)

        def network(outputs):
            layer = observation
            for size in sizes:
                layer = keras.layers.Dense(size, activation="tanh")(layer)
            return keras.layers.Dense(outputs)(layer)

        heads = [network(int(self.action_space.n)), network(1)]
        self.network = keras.Model(observation, heads)
        self.call = tf.function(self.network, reduce_retracing=True)  # compiled

    def _forward_inference(self, batch, **kwargs):
        logits, _ = self.call(batch[Columns.OBS])
        return {Columns.ACTIONS: logits.numpy().argmax(-1)}

    def _forward_exploration(self, batch, **kwargs):
        # RLlib's connector GetActions draws with PyTorch, unless the actions are there.
        logits, _ = self.call(batch[Columns.OBS])
        actions = tf.random.categorical(logits, 1)[:, 0]
        logp = -tf.nn.sparse_softmax_cross_entropy_with_logits(actions, logits)
        return {Columns.ACTIONS: actions.numpy(), Columns.ACTION_LOGP: logp.numpy()}

    def _forward_train(self, batch, **kwargs):
        logits, values = self.network(batch[Columns.OBS])
        return {Columns.ACTION_DIST_INPUTS: logits, "values": values[:, 0]}

    def compute_values(self, batch, embeddings=None):
        return self.call(batch[Columns.OBS])[1][:, 0]

    def to(self, device):  # SingleAgentEnvRunner.make_module() calls it
        return self

    def get_state(self, *args, **kwargs):
        return {str(i): w for i, w in enumerate(self.network.get_weights())}

    def set_state(self, state):
        self.network.set_weights([state[str(i)] for i in range(len(state))])


class TensorFlowPPOLearner(Learner):
    """PPO's loss, and what RLlib's TorchLearner does for PyTorch."""

    def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
        new = -tf.nn.sparse_softmax_cross_entropy_with_logits(
            batch[Columns.ACTIONS], fwd_out[Columns.ACTION_DIST_INPUTS]
        )
        ratio = tf.exp(new - batch[Columns.ACTION_LOGP])
        clipped = tf.clip_by_value(ratio, 1 - config.clip_param, 1 + config.clip_param)
        advantages = tf.cast(batch[Columns.ADVANTAGES], tf.float32)
        gain = tf.minimum(ratio * advantages, clipped * advantages)
        targets = tf.cast(batch[Columns.VALUE_TARGETS], tf.float32)
        value_loss = tf.square(fwd_out["values"] - targets)
        # Each episode has got one more step, for the value of its last observation.
        mask = tf.cast(batch[Columns.LOSS_MASK], tf.float32)
        loss = tf.reduce_sum(mask * (config.vf_loss_coeff * value_loss - gain))
        return loss / tf.reduce_sum(mask)

    def _update(self, batch, **kwargs):  # one minibatch
        tensors = tf.nest.map_structure(
            tf.constant, {k: {**v} for k, v in batch.items()}
        )
        losses, gradients = self.compiled(tensors)
        self.apply_gradients(self.postprocess_gradients(gradients))
        return {}, {name: float(loss) for name, loss in losses.items()}, {}

    @tf.function(reduce_retracing=True)
    def compiled(self, batch):
        with tf.GradientTape() as self.tape:
            fwd_out = self.module.forward_train(batch)
            losses = self.compute_losses(fwd_out=fwd_out, batch=batch)
            total = tf.add_n(list(losses.values()))
        return losses, self.compute_gradients(total)

    def configure_optimizers_for_module(self, module_id, config=None):
        variables = self.get_parameters(self.module[module_id])
        optimizer = tf.keras.optimizers.Adam(config.lr)
        optimizer.build(variables)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=variables
        )

    def compute_gradients(self, loss, **kwargs):
        names, variables = zip(*self._params.items(), strict=True)
        return dict(zip(names, self.tape.gradient(loss, variables), strict=True))

    def apply_gradients(self, gradients_dict):
        for optimizer, names in self._optimizer_parameters.items():
            variables = [self._params[name] for name in names]
            optimizer.apply([gradients_dict[name] for name in names], variables)

    def get_parameters(self, module):
        return module.network.trainable_variables

    def get_param_ref(self, param):
        return param.path

    def _get_optimizer_state(self):
        optimizers = self._named_optimizers.items()
        return {name: [v.numpy() for v in opt.variables] for name, opt in optimizers}

    def _set_optimizer_state(self, state):
        for name, values in state.items():
            variables = self._named_optimizers[name].variables
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    @staticmethod
    def _get_optimizer_lr(optimizer):
        return float(optimizer.learning_rate)

    @staticmethod
    def _set_optimizer_lr(optimizer, lr):
        optimizer.learning_rate = lr

    @staticmethod
    def _get_clip_function():
        def clip_by_global_norm(gradients, *, grad_clip, **kwargs):  # in place
            clipped, norm = tf.clip_by_global_norm(list(gradients.values()), grad_clip)
            gradients.update(zip(gradients, clipped, strict=True))
            return float(norm)

        return clip_by_global_norm

    def _get_tensor_variable(self, value, dtype=None, trainable=False):
        return tf.Variable(value, dtype=dtype, trainable=trainable)

    def _convert_batch_type(self, batch, *args, **kwargs):
        return batch

    def _get_global_norm_function(self):
        return tf.linalg.global_norm


class NumpyAdvantages(GeneralAdvantageEstimation):
    """RLlib's own, which would end with tensors for PyTorch, left in NumPy."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._numpy_to_tensor_connector = lambda batch, **_: batch


# RLlib's default pipelines end with NumpyToTensor, which refuses all but PyTorch.
# These are the same pieces without it.
def env_to_module(env, spaces, device):
    return [AddObservationsFromEpisodesToBatch(), BatchIndividualItems()]


def for_learner(observation_space, action_space):
    return [
        AddOneTsToEpisodesAndTruncate(),
        AddObservationsFromEpisodesToBatch(as_learner_connector=True),
        AddColumnsFromEpisodesToTrainBatch(),
        BatchIndividualItems(),
        NumpyAdvantages(gamma=0.98, lambda_=0.9),
    ]


tf.keras.utils.set_random_seed(SEED)
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()  # .framework("tf2") would stop: it belongs to the old API stack
    .environment("CartPole-v1")
    .env_runners(
        num_env_runners=0,
        num_envs_per_env_runner=16,
        env_to_module_connector=env_to_module,
        add_default_connectors_to_env_to_module_pipeline=False,
        enable_tf1_exec_eagerly=True,  # else RLlib's actors switch TensorFlow 2 off
    )
    .learners(
        learner_class=TensorFlowPPOLearner,
        learner_connector=for_learner,
        add_default_connectors_to_learner_pipeline=False,
    )
    .rl_module(
        rl_module_spec=RLModuleSpec(TensorFlowModule, model_config={"hidden": [64, 64]})
    )
    .training(
        lr=3e-3,
        train_batch_size_per_learner=2048,
        minibatch_size=256,
        num_epochs=6,
        clip_param=0.2,
        vf_loss_coeff=0.5,
        grad_clip=0.5,
    )
    .evaluation(
        evaluation_interval=1_000_000,  # without one, evaluation would explore
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   seconds {seconds:5.1f}"
    )
    if mean_return >= 300:
        greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]

with tempfile.TemporaryDirectory() as folder:
    algo.save_to_path(folder)
    algo.stop()
    algo = Algorithm.from_checkpoint(folder)
    restored_return = algo.evaluate()["env_runners"]["episode_return_mean"]
algo.stop()
ray.shutdown()
print(f"restored from a checkpoint: greedy return {restored_return:.1f}")
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET or restored_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
