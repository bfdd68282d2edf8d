"""Several machines on one fit: ``tf.distribute.MultiWorkerMirroredStrategy``, set up by ``TF_CONFIG``.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'

Every worker runs the same command on the same data and ``--out`` (a shared folder); each takes its slice of every
batch, gradients and the statistics of batch normalisation are averaged, and the first one writes. Without TF_CONFIG
the same code runs under TensorFlow's default strategy. The workers talk without encryption or authentication: use a
network that is yours alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from capsule_edge.runtime.errors import Interrupted, UsageError

from ..config import TrainConfig
from ..models import weights

__all__ = ["Workers"]

_EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Workers:
    """This process among ``count`` workers: it is number ``index``."""

    strategy: Any
    index: int = 0
    count: int = 1

    @classmethod
    def alone(cls) -> Workers:
        return cls(tf.distribute.get_strategy())

    @classmethod
    def from_environment(cls) -> Workers:
        """As ``TF_CONFIG`` says; must come before anything else of TensorFlow's. Waits for the other workers.

        Raises ``UsageError`` for a TF_CONFIG that is none.
        """
        text = os.environ.get("TF_CONFIG", "")
        if not text:
            return cls.alone()
        try:
            document = json.loads(text)
            hosts, task = document["cluster"]["worker"], document["task"]
            index = int(task["index"])
            fits = (
                set(document["cluster"]) == {"worker"}
                and task["type"] == "worker"
                and 0 <= index < len(hosts)
            )
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise UsageError(f"TF_CONFIG is {text!r}, allowed are workers alone", hint=f"such as {_EXAMPLE}")
        if len(hosts) == 1:
            return cls.alone()
        return cls(tf.distribute.MultiWorkerMirroredStrategy(), index, len(hosts))

    @property
    def first(self) -> bool:
        return self.index == 0

    def part(self, config: TrainConfig) -> tuple[int, int, int]:
        """The replicas that are here: from, to and of how many. Raises ``UsageError`` for a batch they cannot share."""
        replicas = self.strategy.num_replicas_in_sync
        if config.batch % replicas:
            raise UsageError(
                f"batch is {config.batch}, allowed is a multiple of {replicas}, the number of replicas"
            )
        here = replicas // self.count
        return self.index * here, (self.index + 1) * here, replicas

    def synchronise(self, model: Any) -> None:
        """Let batch normalisation see the whole batch, so that the fit is the one that a single worker does."""
        if self.strategy.num_replicas_in_sync > 1:
            for layer in model.layers:
                if hasattr(layer, "synchronized"):
                    layer.fused, layer.synchronized = False, True

    def local(self, value: Any) -> Any:
        """This worker's own copy of a variable or value; reading a distributed one makes all workers meet."""
        return self.strategy.experimental_local_results(value)[0]

    def collect(self, model: Any) -> weights.Arrays:
        return {
            name: np.asarray(self.local(weight), np.float32)
            for name, weight in weights.tensors(model).items()
        }

    def mean(self, value: float) -> float:
        """The mean of the workers' values, the same for all of them; they wait for each other here."""
        if self.count == 1:
            return value

        def meet(here: Any) -> Any:
            # A value of this replica's own device: TensorFlow reduces no other in a graph.
            replica = tf.distribute.get_replica_context()
            return replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.identity(here))

        together = tf.function(lambda each: self.strategy.run(meet, args=(each,)))
        return float(self.local(together(tf.constant(value, tf.float64))))

    def wait(self) -> None:
        with self.together():
            self.mean(0.0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that all workers share. Raises ``Interrupted`` when another one is lost in its midst."""
        try:
            yield
        except tf.errors.OpError as error:
            if self.count == 1:
                raise
            raise Interrupted(
                f"worker {self.index} of {self.count} cannot go on without the others: {type(error).__name__}",
                hint="give every worker the same command again: they go on from the checkpoint",
            ) from error
