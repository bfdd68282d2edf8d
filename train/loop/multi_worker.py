"""Training on several machines: ``tf.distribute.MultiWorkerMirroredStrategy``, set up by ``TF_CONFIG``.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'

Every worker runs the same command on the same data and with the same ``--out``, a shared folder. Each takes
its slice of every batch. Gradients and the statistics of batch normalisation are averaged, and the first
worker writes. Without TF_CONFIG the same code runs under TensorFlow's default strategy. The workers talk
without encryption or authentication: use a private network.
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
    """This process as one of ``count`` workers, with number ``index``.

    Attributes:
        strategy: the ``tf.distribute`` strategy in whose scope models are built.
        index: 0 for the first worker.
        count: number of workers.
    """

    strategy: Any
    index: int = 0
    count: int = 1

    @classmethod
    def alone(cls) -> Workers:
        """Return a single worker, under TensorFlow's default strategy."""
        return cls(tf.distribute.get_strategy())

    @classmethod
    def from_environment(cls) -> Workers:
        """Return the worker that ``TF_CONFIG`` describes, and wait for the other workers.

        Call it before any other TensorFlow operation.

        Raises:
            UsageError: TF_CONFIG is no JSON of the expected form, or names other tasks than workers.
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
            raise UsageError(
                f"TF_CONFIG is {text!r}, allowed is a cluster of workers only", hint=f"such as {_EXAMPLE}"
            )
        if len(hosts) == 1:
            return cls.alone()
        return cls(tf.distribute.MultiWorkerMirroredStrategy(), index, len(hosts))

    @property
    def first(self) -> bool:
        """True if this is the worker that writes files."""
        return self.index == 0

    def part(self, config: TrainConfig) -> tuple[int, int, int]:
        """Return which replicas run on this worker: (first, end, number of all replicas).

        Raises:
            UsageError: the replicas cannot share ``config.batch`` evenly.
        """
        replicas = self.strategy.num_replicas_in_sync
        if config.batch % replicas:
            raise UsageError(
                f"batch is {config.batch}, allowed is a multiple of {replicas}, the number of replicas"
            )
        here = replicas // self.count
        return self.index * here, (self.index + 1) * here, replicas

    def synchronise(self, model: Any) -> None:
        """Compute batch normalisation over the whole batch.

        Several workers then train as a single one would.
        """
        if self.strategy.num_replicas_in_sync > 1:
            for layer in model.layers:
                if hasattr(layer, "synchronized"):
                    layer.fused, layer.synchronized = False, True

    def local(self, value: Any) -> Any:
        """Return this worker's own copy of a variable or value.

        Reading a distributed one instead would make all workers wait for each other.
        """
        return self.strategy.experimental_local_results(value)[0]

    def collect(self, model: Any) -> weights.Arrays:
        """Return this worker's copy of the model's weights by name, float32."""
        return {
            name: np.asarray(self.local(weight), np.float32)
            for name, weight in weights.tensors(model).items()
        }

    def mean(self, value: float) -> float:
        """Return the mean of the workers' values.

        All workers wait for each other here and get the same result.
        """
        if self.count == 1:
            return value

        def meet(here: Any) -> Any:
            # Copy the value to this replica's device: in a graph TensorFlow reduces no other.
            replica = tf.distribute.get_replica_context()
            return replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.identity(here))

        together = tf.function(lambda each: self.strategy.run(meet, args=(each,)))
        return float(self.local(together(tf.constant(value, tf.float64))))

    def wait(self) -> None:
        """Wait until all workers have come here."""
        with self.together():
            self.mean(0.0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run work that all workers share.

        Raises:
            Interrupted: another worker was lost during the work.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.count == 1:
                raise
            raise Interrupted(
                f"worker {self.index} of {self.count} lost the others and stopped: {type(error).__name__}",
                hint="start every worker with the same command again: they continue from the checkpoint",
            ) from error
