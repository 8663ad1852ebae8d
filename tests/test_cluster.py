"""ray_cluster.yaml by Ray's own validator, and by ours where that is blind: inside node_config, and between numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

PATH = Path(__file__).resolve().parents[1] / "ray_cluster.yaml"
NODE_KEYS = {
    "InstanceType",
    "ImageId",
    "SubnetIds",
    "SecurityGroupIds",
    "IamInstanceProfile",
    "InstanceMarketOptions",
    "MetadataOptions",
    "BlockDeviceMappings",
}


def check(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))
    for name, kind in config["available_node_types"].items():
        unknown = kind["node_config"].keys() - NODE_KEYS
        assert not unknown, f"{name}: unknown in node_config: {unknown}"
        assert kind.get("min_workers", 0) <= kind.get("max_workers", 0), f"{name}: min_workers above max_workers"
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required", f"{name}: IMDSv2 is not required"
        assert "IamInstanceProfile" in kind["node_config"], f"{name}: Ray would create a role with full access"
    for command in (*config["head_start_ray_commands"][-1:], *config["worker_start_ray_commands"][-1:]):
        assert "RAY_AUTH_MODE=token" in command, f"no token authentication: {command}"
        assert "0.0.0.0" not in command, f"open to the world: {command}"
    assert config["setup_commands"] == [], "Ray's default installs a nightly wheel"
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}, "work on the head"


def load() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(PATH.read_text())
    return config


def test_it_is_valid() -> None:
    check(load())


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    *parents, last = path.split(".")

    def change(config: dict[str, Any]) -> None:
        for parent in parents:
            config = config[parent]
        config[last] = value

    return change


@pytest.mark.parametrize(
    "typo",
    [
        _set("idle_timeout_minute", 5),
        _set("available_node_types.decode.resource", {}),
        _set("available_node_types.decode.resources", {"CPU": "many"}),
        _set("available_node_types.decode.min_workers", 9),
        _set("available_node_types.describe.node_config.InstanceTyp", "g6e.4xlarge"),
        _set("head_node_type", "haed"),
        _set("provider.type", "asw"),
        _set("head_start_ray_commands", ["ray start --head --dashboard-host=0.0.0.0"]),
        _set("setup_commands", ["pip install ray"]),
    ],
)
def test_a_typo_is_caught(typo: Callable[[dict[str, Any]], None]) -> None:
    config = load()
    typo(config)
    with pytest.raises(Exception, match=r"."):  # Ray's validator raises many kinds; ours asserts
        check(config)
