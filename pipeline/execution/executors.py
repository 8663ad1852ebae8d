"""The executor of jobs, named without importing Ray: a run with nothing to do never pays those seconds."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from pipeline.config import DescribeSetup, IndexConfig
from pipeline.execution.pools import ClusterOptions
from pipeline.execution.stages import Stages
from pipeline.execution.workers import Workers


@dataclass(frozen=True)
class OnRay:
    """Workers on a Ray cluster, or on a Ray of this run's own."""

    cluster: ClusterOptions
    stages: Stages = field(default_factory=Stages)

    def open(
        self, config: IndexConfig, setup: DescribeSetup, say: Callable[..., None]
    ) -> AbstractContextManager[Workers]:
        say("starting Ray")
        from pipeline.execution.on_ray import open_on_ray

        return open_on_ray(self.cluster, self.stages, config, setup, say)


def on_ray(cluster: ClusterOptions) -> OnRay:
    return OnRay(cluster)
