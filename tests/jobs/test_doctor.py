"""jobs.doctor as it is run, and what it says of an index that somebody broke after the real job made it.

Each fault is planted in a copy of the Parquet files.
"""

import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import doctor, index
from pipeline.execution.in_process import InProcess
from tests.jobs.conftest import job


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a visit that found nothing wrong, kept. Without Ray, which the visit below starts."""
    kept = tmp_path_factory.mktemp("doctor") / "index"

    def keep(argv: Sequence[str]) -> int:
        code = index.main(argv, InProcess())
        shutil.copytree(argv[argv.index("--output") + 1], kept)
        return code

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert doctor.main([], keep) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return kept


def test_this_machine_is_well() -> None:
    visit = job("doctor")
    assert visit.code == 0, visit.out + visit.err
    assert "ok  self-test" in visit.out


def rewrite(output: Path, table: str, select: str) -> None:
    """Each file of `table` becomes `select` over its own rows, called `t`; `whole` is the table before.

    Vectors of half floats, which DuckDB does not read, follow their rows.
    """
    whole = pq.read_table(output / table)
    for path in (output / table).glob("*.parquet"):
        old = pq.read_table(path)
        vectors = [name for name in old.column_names if name == "embedding"]
        with duckdb.connect() as connection:
            connection.register("t", old.drop_columns(vectors).append_column("place", pa.array(range(len(old)))))
            connection.register("whole", whole.drop_columns(vectors))
            new = connection.sql(f"FROM ({select}) ORDER BY place").to_arrow_table()
        for name in vectors:
            new = new.append_column(name, old[name].take(new["place"]))
        pq.write_table(new.select(old.column_names).cast(old.schema), path)


def swap_captions(output: Path) -> None:
    """Two videos get each other's words."""
    rewrite(
        output,
        "captions",
        """WITH two AS (SELECT uri, caption, row_number() OVER (ORDER BY uri) AS n FROM whole ORDER BY uri LIMIT 2)
           SELECT t.* REPLACE (coalesce(other.caption, t.caption) AS caption)
           FROM t LEFT JOIN two AS own USING (uri) LEFT JOIN two AS other ON other.n = 3 - own.n""",
    )


def shift_every_time(output: Path) -> None:
    for table, columns in {
        "clips": "start_s + 1 AS start_s, end_s + 1 AS end_s, [x + 1 FOR x IN frame_pts_s] AS frame_pts_s",
        "segments": "start_s + 1 AS start_s, end_s + 1 AS end_s, best_frame_s + 1 AS best_frame_s",
        "frames": "pts_s + 1 AS pts_s",
        "captions": "start_s + 1 AS start_s, end_s + 1 AS end_s",
        "answers": "start_s + 1 AS start_s, end_s + 1 AS end_s",
    }.items():
        rewrite(output, table, f"SELECT * REPLACE ({columns}) FROM t")


def shift_frames(output: Path) -> None:
    rewrite(output, "frames", "SELECT * REPLACE (pts_s + 1 AS pts_s) FROM t")


def shift_captions(output: Path) -> None:
    rewrite(output, "captions", "SELECT * REPLACE (start_s + 1 AS start_s, end_s + 1 AS end_s) FROM t")


def drop_segment(output: Path) -> None:
    rewrite(output, "segments", "SELECT * FROM t WHERE segment_id <> (SELECT min(segment_id) FROM t)")


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (swap_captions, "its caption describes"),
        (shift_every_time, "times are shifted by +1.00 s"),
        (shift_frames, "frames have the times their clip says"),
        (shift_captions, "captions and answers carry the times of their clip"),
        (drop_segment, "no segment covers"),
    ],
)
def test_a_fault_is_named_and_ends_in_exit_code_1(
    plant: Callable[[Path], None],
    named: str,
    made: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(argv: Sequence[str]) -> int:
        output = Path(argv[argv.index("--output") + 1])
        shutil.copytree(made, output)
        plant(output)
        return 0

    assert doctor.main([], broken) == 1
    assert named in capsys.readouterr().out
