"""Another encoder: refused unless asked for, and then no vector of the old one is left, in one commit."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import IndexConfig
from pipeline.errors import UsageError
from pipeline.index.commits import commit
from pipeline.index.snapshot import Index
from pipeline.index.staging import encode_item, stage
from pipeline.index.verify import verify
from pipeline.ledger.committer import Committer, Pace
from pipeline.ledger.owed import recipe_for, refuse_other_encoder
from pipeline.ledger.plan import Plan
from pipeline.ledger.prepare import Prepared, prepare
from tests.pipeline.archive_rows import ENCODER, id_of, item_rows, video_rows


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Two videos with vectors of an encoder that is not the builtin one."""
    made = Index.create(str(tmp_path / "index"))
    for number in (0, 1):
        stage(made.storage, f"item{number}", encode_item(item_rows(number)))
    commit(made, ["item0", "item1"], video_rows(0, 1), encoder=ENCODER)
    return made


@pytest.fixture
def prepared(index: Index, tmp_path: Path) -> Prepared:
    """A run with the builtin encoder over a root the index does not know: no video's own recipe differs."""
    (tmp_path / "new.mp4").write_bytes(b"x")
    return prepare(IndexConfig((str(tmp_path / "new.mp4"),), index.url, "builtin"))


def test_another_encoder_is_refused_also_for_a_root_that_is_new(index: Index, prepared: Prepared) -> None:
    with pytest.raises(UsageError, match="--redo embed"):
        refuse_other_encoder(prepared, index)
    refuse_other_encoder(replace(prepared, config=replace(prepared.config, redo="embed")), index)


def test_what_is_not_redone_loses_its_vectors_and_waits(index: Index, prepared: Prepared) -> None:
    before = index.snapshot()
    committer = Committer(index, prepared, recipe_for(prepared, index), "run", lambda: None, Pace())
    committer.commit_without_work(Plan(deleted=(id_of(0),)))
    assert index.snapshot() == before, "readers see the old encoder until the last commit"
    committer.finish()
    after = index.snapshot()
    assert after.commit == before.commit + 1
    assert after.encoder is not None
    assert after.encoder.encoder_id == prepared.encoder.identity.id
    assert [after.n_rows(table) for table in ("clips", "segments", "frames", "captions")] == [0] * 4
    rows = {row["video_id"]: row for row in index.read("videos").to_pylist()}
    assert (rows[id_of(0)]["status"], rows[id_of(1)]["status"]) == ("deleted", "pending")
    assert rows[id_of(1)]["fingerprints"], "it is redone with the prompts it had"
    assert verify(index).wrong == ()
