"""Another table is one `Table` value and one function that fills it: tried on a copy of the package."""

import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.index.tables import COMMITTED_TABLES, CONTENT_TABLES, TABLES

ROOT = Path(__file__).resolve().parents[3]

TABLE = """
NOISES = Table(
    "noises",
    (
        Column("noise_id", _STR, "video_id and a number", False),
        Column("video_id", _STR, "video", False, repeats=True),
        Column("video_version", _STR, "version of the video it was made from", False, repeats=True),
        Column("start_s", _F64, "start, inclusive", False),
        Column("loudness", _F64, "0 to 1"),
        Column("embedding", VECTOR, "unit vector", False),
    ),
    key=("noise_id",),
    order=("video_id", "start_s"),
    made_by="embed",
    row_group_rows=2,
)

TABLES ="""

TRY = '''
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

import pipeline
from pipeline.describing.rows import build_table
from pipeline.index.commits import commit, roll_forward
from pipeline.index.compaction import compact
from pipeline.index.drops import drop_everywhere
from pipeline.index.purge import purge
from pipeline.index.snapshot import Index
from pipeline.index.staging import encode_item, stage
from pipeline.index.verify import verify
from pipeline.index.views import publish_views
from tests.pipeline.archive_rows import DIM, ENCODER, id_of, item_rows, video_rows


def noises(number, n=5):
    """The function that fills it."""
    video = {"video_id": id_of(number), "video_version": "1"}
    rows = [{"noise_id": f"{id_of(number)}-{i}", **video, "start_s": float(n - i), "loudness": 0.5} for i in range(n)]
    return build_table("noises", DIM, rows, np.eye(n, DIM, dtype=np.float32))


assert Path(pipeline.__file__).is_relative_to(sys.argv[1])
index = Index.create(sys.argv[1] + "/index", ENCODER)
for number in range(4):
    stage(index.storage, f"item-{number}", encode_item({**item_rows(number), "noises": noises(number)}))
    commit(index, [f"item-{number}"], video_rows(number), encoder=ENCODER)
assert index.snapshot().n_rows("noises") == 20
assert index.read("noises")["start_s"].to_pylist()[:5] == [1, 2, 3, 4, 5]
assert verify(index).wrong == ()
compact(index, max_small_files=2)
assert len(index.storage.list("noises")) == 1
publish_views(index, 0.9)
with duckdb.connect() as connection:
    connection.execute(Path(index.url, "views.sql").read_text())
    assert connection.sql("SELECT count(*), sum(embedding[1]) FROM noises").fetchall() == [(20, 4)]

stage(index.storage, "twice", encode_item({"noises": noises(0)}))  # keys, orphans and versions are seen
commit(index, ["twice"], encoder=ENCODER)
assert "noises have one row for each noise_id" in verify(index).wrong[0]
assert len(verify(index).wrong) == 1
commit(index, drops={"noises": [(id_of(0), None)]}, encoder=ENCODER)
assert verify(index).wrong == ()
stage(index.storage, "stranger", encode_item({"noises": noises(9)}))
commit(index, ["stranger"], encoder=ENCODER)
assert ["rows belong to a listed video" in finding for finding in verify(index).wrong] == [True]
commit(index, drops=drop_everywhere([id_of(9)]), encoder=ENCODER)

stage(index.storage, "waits", encode_item({"noises": noises(1)}))
assert purge(index, [id_of(1)])["noises"] == 5
assert id_of(1) not in index.read("noises")["video_id"].to_pylist()
roll_forward(index)
assert verify(index).wrong == ()
print("all of it")
'''


def test_a_table_more_is_one_value_and_one_function(tmp_path: Path) -> None:
    for package in ("adatp", "pipeline", "tests/pipeline"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    (tmp_path / "tests" / "__init__.py").touch()
    tables = tmp_path / "pipeline" / "index" / "tables.py"
    text = tables.read_text()
    assert text.count("\nTABLES =") == 1
    tables.write_text(text.replace("\nTABLES =", TABLE).replace("(VIDEOS,", "(NOISES, VIDEOS,"))
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "all of it\n", done.stderr


def test_the_values_agree_with_themselves() -> None:
    for name, table in TABLES.items():
        assert name == table.name
        assert {*table.key, *table.order, *table.subkey} <= table.names
        assert all(column.description for column in table.columns)
        assert len(table.names) == len(table.columns)
        assert table.order[0] == "video_id" or name == "runs"
    assert set(CONTENT_TABLES) < set(COMMITTED_TABLES) == set(TABLES) - {"runs"}
