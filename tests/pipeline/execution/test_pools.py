"""Pools always fit the machine they are planned for, and always hold both kinds of worker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.execution.pools import ClusterOptions, Node, choose_pools, plan_pools

NODES = st.lists(st.builds(Node, st.integers(1, 64).map(float), st.integers(0, 8).map(float)), min_size=1, max_size=6)


@given(NODES)
def test_pools_fit(nodes: list[Node]) -> None:
    pools = plan_pools(nodes)
    cpus = pools.decode * pools.decode_cpus + pools.describe * pools.describe_cpus
    assert pools.decode >= 1
    assert pools.describe >= 1
    assert cpus <= sum(node.cpus for node in nodes) + 1e-9
    assert pools.describe * pools.describe_gpus <= sum(node.gpus for node in nodes)
    if not any(node.gpus for node in nodes):
        assert pools.describe_cpus <= max(node.cpus for node in nodes), "one actor fits one node"


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([Node(2, 0)], "decode 1 x 1 CPU, describe 1 x 1 CPU"),
        ([Node(2, 1)], "decode 1 x 1 CPU, describe 1 x 1 GPU + 1 CPU"),
        ([Node(1, 0)], "decode 1 x 0.5 CPU, describe 1 x 0.5 CPU"),
        ([Node(16, 0)], "decode 4 x 1 CPU, describe 1 x 12 CPU"),
        ([Node(32, 0), Node(16, 4)], "decode 44 x 1 CPU, describe 4 x 1 GPU + 1 CPU"),
    ],
)
def test_pools_of_known_machines(nodes: list[Node], text: str) -> None:
    assert str(plan_pools(nodes)) == text


def test_pools_as_asked_for() -> None:
    nobody_yet = [Node(0, 0)]
    asked = ClusterOptions(decode_workers=(8, 8), describe_workers=(2, 2), describe_gpus=1)
    assert str(choose_pools(nobody_yet, asked)) == "decode 8 x 1 CPU, describe 2 x 1 GPU + 1 CPU"
    growing = ClusterOptions(decode_workers=(8, 64), describe_workers=(1, 8), describe_gpus=1)
    assert str(choose_pools(nobody_yet, growing)) == "decode 8 to 64 x 1 CPU, describe 1 to 8 x 1 GPU + 1 CPU"
    assert choose_pools(nobody_yet, growing).bounds("describe") == (1, 8)
    halves = ClusterOptions(decode_workers=(1, 1), describe_workers=(2, 2), describe_gpus=0.5)
    assert str(choose_pools([Node(4, 1)], halves)) == "decode 1 x 1 CPU, describe 2 x 0.5 GPU + 1 CPU"
    with_what_is_there = ClusterOptions(decode_workers=(1, 1), describe_workers=(1, 1))
    assert choose_pools([Node(4, 1)], with_what_is_there).describe_gpus == 1
    assert choose_pools([Node(4, 0)], with_what_is_there).describe_gpus == 0
    assert choose_pools([Node(2, 0)], ClusterOptions()) == plan_pools([Node(2, 0)])
    for wrong in (
        ClusterOptions(decode_workers=(1, 1)),
        ClusterOptions(decode_workers=(0, 1), describe_workers=(1, 1)),
        ClusterOptions(decode_workers=(1, 1), describe_workers=(3, 2)),
    ):
        with pytest.raises(UsageError):
            choose_pools([Node(2, 0)], wrong)


def test_no_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="no CPU"):
        plan_pools([Node(0, 1)])
