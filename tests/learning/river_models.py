"""River models by what a pipeline file would say of them, and streams for them."""

from __future__ import annotations

import dataclasses

import numpy as np

from learning.batch import Batch, BatchId
from learning.river_build import RiverSettings

SCALER = "river.preprocessing.StandardScaler"
LOGISTIC = "river.linear_model.LogisticRegression"
WINDOW = {"parameters": {"window_size": 60}}
TREE = {"model": "river.tree.HoeffdingTreeClassifier", "parameters": {"grace_period": 40}}


def of(name: str, transformers: tuple = (), arguments: tuple = (), **parameters: object) -> RiverSettings:
    return RiverSettings(f"river.{name}", parameters, arguments, transformers)


CLASSIFIERS = {
    "logistic": of("linear_model.LogisticRegression"),
    "scaled": of("linear_model.LogisticRegression", (SCALER,)),
    "adam": of("linear_model.LogisticRegression", optimizer={"model": "river.optim.Adam", "parameters": {"lr": 0.01}}),
    "adagrad": of("linear_model.LogisticRegression", optimizer="river.optim.AdaGrad"),
    "passive aggressive": of("linear_model.PAClassifier"),
    "perceptron": of("linear_model.Perceptron"),
    "alma": of("linear_model.ALMAClassifier"),
    "softmax": of("linear_model.SoftmaxRegression"),
    "bernoulli": of("naive_bayes.BernoulliNB"),
    "gaussian": of("naive_bayes.GaussianNB"),
    "hoeffding": of("tree.HoeffdingTreeClassifier", grace_period=40),
    "adaptive tree": of("tree.HoeffdingAdaptiveTreeClassifier", grace_period=40),
    "fast tree": of("tree.ExtremelyFastDecisionTreeClassifier", grace_period=40),
    "adaptive forest": of("forest.ARFClassifier", n_models=3),
    "mondrian": of("forest.AMFClassifier", n_estimators=2),
    "neighbours": of("neighbors.KNNClassifier", engine={"model": "river.neighbors.LazySearch", **WINDOW}),
    "graph of neighbours": of("neighbors.KNNClassifier"),
    "adwin bagging": of("ensemble.ADWINBaggingClassifier", model=LOGISTIC, n_models=3),
    "leveraging": of("ensemble.LeveragingBaggingClassifier", model=LOGISTIC, n_models=3),
    "boosting": of("ensemble.AdaBoostClassifier", model=TREE, n_models=3),
    "patches": of("ensemble.SRPClassifier", model=TREE, n_models=3),
    "stacking": of(
        "ensemble.StackingClassifier", models=[LOGISTIC, "river.naive_bayes.BernoulliNB"], meta_classifier=LOGISTIC
    ),
    "one against rest": of("multiclass.OneVsRestClassifier", classifier=LOGISTIC),
    "retraining": of("drift.DriftRetrainingClassifier", model=TREE),
    "machines": of("facto.FMClassifier"),
    "robust": of("linear_model.LogisticRegression", ("river.preprocessing.RobustScaler",)),
    "adaptive scaler": of("linear_model.LogisticRegression", ("river.preprocessing.AdaptiveStandardScaler",)),
    "min max": of("linear_model.LogisticRegression", ("river.preprocessing.MinMaxScaler",)),
    "hashed": of(
        "linear_model.LogisticRegression",
        ({"model": "river.preprocessing.FeatureHasher", "parameters": {"n_features": 64}},),
    ),
    "kernel": of("linear_model.LogisticRegression", ("river.feature_extraction.RBFSampler",)),
    "union": of(
        "linear_model.LogisticRegression",
        ({"model": "river.compose.TransformerUnion", "arguments": [SCALER, "river.preprocessing.MinMaxScaler"]},),
    ),
}  # fmt: skip
REGRESSORS = {
    "linear": of("linear_model.LinearRegression", (SCALER,), optimizer="river.optim.RMSProp"),
    "bayesian": of("linear_model.BayesianLinearRegression"),
    "regression tree": of("tree.HoeffdingTreeRegressor", grace_period=40),
}


def records(n: int, seed: int = 0, *, ratings: bool = False, weights: float = 1.0) -> Batch:
    """Three numbers and one of twelve categories a record; what makes the label turns around in the middle."""
    rng = np.random.default_rng(seed)
    numbers, category = rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 12, n)
    keys = np.column_stack(
        (*(np.full(n, 2**63 + i, np.uint64) for i in range(3)), (category + 77).astype(np.uint64))
    )
    values = np.column_stack((numbers, np.ones(n, np.float32)))
    score = numbers[:, 0] + 0.5 * numbers[:, 1] + (category % 2) - 0.5 + rng.normal(0, 0.3, n)
    score[n // 2 :] *= -1
    return dataclasses.replace(
        Batch.empty(BatchId(0, 0, n)), keys=keys.ravel(), values=values.ravel(),
        kinds=np.tile([1, 1, 1, 0], n).astype(np.uint8),
        offsets=np.arange(0, 4 * n + 1, 4), labels=(score if ratings else score > 0).astype(np.float32),
        weights=np.full(n, weights, np.float32), positions=np.arange(n),
    )  # fmt: skip
