"""Checkpoints from a hub that is a small real HTTP server: small files first, weights only when they would load."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from pipeline.errors import UsageError
from pipeline.models import hub as door
from pipeline.models.checkpoints import open_model, resolve_model
from pipeline.models.encoder import Encoder
from pipeline.models.ready import make_ready
from tests.hub import COMMIT, Hub, serve
from tests.published.encoders import write_encoder

NAME = "google/siglip-base-patch16-224"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as server:
        folder = tmp_path / "repository"
        write_encoder(folder, NAME)
        server.repos[NAME] = folder
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


def test_small_files_first_then_the_weights_once(hub: Hub, tmp_path: Path) -> None:
    said: list[str] = []
    files = resolve_model(NAME, "encoder")
    assert files.identity.id == f"{NAME}@{COMMIT}"
    assert hub.sent_of_weights() == 0
    size = (hub.repos[NAME] / "model.safetensors").stat().st_size
    make_ready((files,), said.append)
    assert said == [f"fetching the weights of {NAME} to {tmp_path / 'cache'}", f"fetched {NAME}"]
    assert size <= hub.sent_of_weights() <= size + 200_000  # the header once more, to try it before
    before = dict(hub.sent)
    make_ready((files,), said.append)
    assert Encoder(open_model(files.identity, "encoder").path).dim == 64
    assert hub.sent == before
    assert len(said) == 2


def test_what_would_not_load_is_never_fetched(hub: Hub) -> None:
    config = hub.repos[NAME] / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 128'))
    with pytest.raises(UsageError, match=f"^--encoder {NAME}: its weights do not fit its config.json"):
        make_ready((resolve_model(NAME, "encoder"),), print)
    assert hub.sent_of_weights() <= 200_000


def test_a_download_cut_in_the_middle_leaves_nothing_that_is_used(hub: Hub, tmp_path: Path) -> None:
    files = resolve_model(NAME, "encoder")
    files.weights()
    hub.cut.add("model.safetensors")
    with pytest.raises(UsageError, match=f"--encoder {NAME}: .*hf download"):
        door.fetch_weights(NAME, COMMIT, files.what, lambda line: None)
    assert not list(files.path.glob("*.safetensors"))
    hub.cut.clear()
    assert Encoder(door.fetch_weights(NAME, COMMIT, files.what, lambda line: None)).dim == 64


def test_the_network_gone_afterwards_the_cache_is_enough(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    door.fetch_weights(NAME, COMMIT, "--encoder", lambda line: None)
    resolve_model(NAME, "encoder")  # learns that this commit is main
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    files = resolve_model(NAME, "encoder")
    assert Encoder(open_model(files.identity, "encoder").path).dim == 64


def test_without_network_and_cache_the_next_step_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match=rf"cannot be reached; run `hf download {NAME}` .* HF_HOME"):
        resolve_model(NAME, "encoder")


def test_offline_by_choice_says_the_same(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=rf"hf download {NAME}"):
        resolve_model(NAME, "encoder")


def test_a_gated_repository_names_terms_and_login(hub: Hub) -> None:
    hub.gated.add(NAME)
    with pytest.raises(UsageError, match=rf"accept them at {hub.url}/{NAME}, then `hf auth login`"):
        resolve_model(NAME, "encoder")


def test_a_name_that_nobody_has(hub: Hub) -> None:
    with pytest.raises(UsageError, match="neither a folder here nor a repository on the hub"):
        resolve_model("nobody/nothing", "encoder")
    with pytest.raises(UsageError, match="no such folder"):
        resolve_model("/nowhere/at/all", "encoder")


def test_a_repository_without_safetensors_is_refused_before_anything_large(hub: Hub) -> None:
    (hub.repos[NAME] / "model.safetensors").rename(hub.repos[NAME] / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"the hub has no \*.safetensors of it"):
        make_ready((resolve_model(NAME, "encoder"),), print)


def test_a_full_disk_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")  # a disk cannot be filled in a test

    files = resolve_model(NAME, "encoder")
    monkeypatch.setattr(door, "snapshot_download", full)
    with pytest.raises(UsageError, match=r"the disk filled up .* HF_HOME"):
        door.fetch_weights(NAME, COMMIT, files.what, lambda line: None)
