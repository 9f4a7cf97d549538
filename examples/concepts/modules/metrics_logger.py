"""How a MetricsLogger reduces values, checked against hand-worked numbers."""

import sys

from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

logger = MetricsLogger(root=True)
WAYS = {
    "mean": {},
    "mean of the last 2": {"reduce": "mean", "window": 2},
    "ema": {"reduce": "ema", "ema_coeff": 0.5},
    "min": {},
    "max": {},
    "sum": {},
    "lifetime_sum": {},
    "item": {},
    "item_series": {},
}
# What each should be after the first iteration's values, and after the second's.
EXPECTED = {
    "mean": (2, 15),
    "mean of the last 2": (2.5, 15),
    "ema": (2.25, 13.0625),  # ((1 + 2) / 2 + 3) / 2, and on from there: it remembers
    "min": (1, 10),
    "max": (3, 20),
    "sum": (6, 30),
    "lifetime_sum": (6, 36),  # it remembers too
    "item": (3, 20),  # the last one
    "item_series": ([1, 2, 3], [10, 20]),  # all of them
}

for iteration, values in enumerate([[1, 2, 3], [10, 20]]):
    for way, options in WAYS.items():
        for value in values:
            logger.log_value(way, float(value), **({"reduce": way} | options))
    print(f"iteration {iteration + 1} logs {values}")
    for way in WAYS:
        reduced, expected = logger.peek(way), EXPECTED[way][iteration]
        print(f"  {way:20s} {reduced}")
        if reduced != expected:
            sys.exit(f"{way}: expected {expected}, but RLlib says {reduced}.")
    logger.reduce()  # what an Algorithm does at the end of train()

# Two env runners log these values, and the Algorithm merges what they have reduced.
LOGGED = [1, 2, 3], [10]
MERGED = {"mean": 6, "min": 1, "max": 10, "sum": 16, "item_series": [1, 2, 3, 10]}
print("two env runners log", *LOGGED)
for way, expected in MERGED.items():
    algorithm, env_runners = MetricsLogger(root=True), []
    for values in LOGGED:
        env_runners.append(MetricsLogger())
        for value in values:
            env_runners[-1].log_value("x", float(value), reduce=way)
    algorithm.aggregate([env_runner.reduce() for env_runner in env_runners])
    print(f"  {way:20s} {algorithm.peek('x')}")
    if algorithm.peek("x") != expected:
        sys.exit(f"{way} of two: expected {expected}, not {algorithm.peek('x')}.")

for value in range(101):
    logger.log_value(
        "p", value, reduce="percentiles", window=101, percentiles=[0.5, 50]
    )
percentiles = logger.peek("p")
print(f"percentiles of 0, 1, ..., 100: {percentiles}")
if percentiles[50] != 50 or percentiles[0.5] != 0.5:
    sys.exit("Percentiles should be given in percent: 50 is the median.")
