"""An index in a notebook: tables as Arrow, pandas or Polars, search by words with thumbnails. The jobs' own code.

from pipeline import open_index
index = open_index("/index")
index.search("a boat", top=5, merge_s=2)     # shows pictures and players in a notebook
index.captions(where="path LIKE '1999/%'").to_pandas()
index.sql("SELECT path, count(*) FROM segments GROUP BY path").to_polars()
"""

import base64
import functools
import html
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.index.snapshot import Index
from pipeline.reading.changes import Change, changes_since
from pipeline.reading.finding import Finder, SearchOptions
from pipeline.reading.search import Hit
from pipeline.reading.sql import query

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]  # its stubs are a package of their own
    import polars

_SHOWN = 50


@dataclass(frozen=True)
class Rows:
    """Rows of a view or a query, as an Arrow table that turns into what is wanted."""

    arrow: pa.Table

    def to_pandas(self) -> "pandas.DataFrame":
        return self.arrow.to_pandas()

    def to_polars(self) -> "polars.DataFrame":
        """ModuleNotFoundError where Polars is not installed."""
        import polars

        return polars.DataFrame(self.arrow)

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def _repr_html_(self) -> str:
        """The first rows; every text escaped, pictures shown, vectors left out."""
        vectors = {f.name for f in self.arrow.schema if pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type)}
        names = [name for name in self.arrow.column_names if name not in vectors]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        rows = self.arrow.select(names).slice(0, _SHOWN).to_pylist()
        body = "".join(f"<tr>{''.join(f'<td>{_cell(row[name])}</td>' for name in names)}</tr>" for row in rows)
        left = f"<p>{len(self) - len(rows):,} more rows</p>" if len(self) > len(rows) else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{left}"


@dataclass(frozen=True)
class Hits:
    """What a search found, best first, with a thumbnail for each hit that has one."""

    hits: tuple[Hit, ...]
    n_searched: int
    thumbnails: tuple[bytes | None, ...]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    @property
    def rows(self) -> Rows:
        return Rows(pa.Table.from_pylist([asdict(hit) for hit in self.hits]))

    def _repr_html_(self) -> str:
        """A picture, the score and a link to the moment for each hit."""
        cells = []
        for hit, jpeg in zip(self.hits, self.thumbnails, strict=True):
            picture = _cell(jpeg) if jpeg else ""
            link = f'<a href="{html.escape(hit.link, quote=True)}">{html.escape(hit.path)}</a>'
            weak = " weak" if hit.weak else ""
            said = f"{hit.start_s:.1f}-{hit.end_s:.1f} s, {hit.score:.3f}{weak}"
            cells.append(f'<div style="display:inline-block;margin:4px">{picture}<br>{link}<br>{said}</div>')
        return "".join(cells) or "<p>nothing found</p>"


class OpenIndex:
    """An index, open for reading. Every table shows the videos that are there; `sql` reaches `all_...` views too."""

    def __init__(self, url: str, encoder: str | None = None, thresholds: Path | None = None) -> None:
        """UsageError when there is no index. `encoder`: where it is now, if not where the index recorded it."""
        self._index = Index.open(url)
        self._encoder, self._thresholds = encoder, thresholds

    @functools.cached_property
    def _finder(self) -> Finder:
        return Finder(self._index, self._encoder, self._thresholds)

    def search(
        self,
        text: str,
        top: int = 10,
        where: str | None = None,
        min_score: float | None = None,
        weak: bool = True,
        look_alikes: bool = False,
        merge_s: float | None = None,
        include_deleted: bool = False,
    ) -> Hits:
        """Segments by words, as jobs.search finds them, with the same options."""
        options = SearchOptions(top, where, min_score, weak, look_alikes, merge_s, include_deleted)
        found = self._finder.find(text, options)
        ids = pa.array([hit.segment_id for hit in found.hits], pa.string())
        rows = self._index.read("segments", ["segment_id", "thumbnail"], pc.field("segment_id").isin(ids)).to_pylist()
        pictures = {row["segment_id"]: row["thumbnail"] for row in rows}
        return Hits(found.hits, found.n_searched, tuple(pictures.get(hit.segment_id) for hit in found.hits))

    def sql(self, statement: str) -> Rows:
        """One SELECT over the views of the index, as in jobs.query. UsageError for anything else."""
        return Rows(query(self._index.url, statement))

    def videos(self, where: str | None = None) -> Rows:
        return self._view("videos", where)

    def clips(self, where: str | None = None) -> Rows:
        return self._view("clips", where)

    def segments(self, where: str | None = None) -> Rows:
        return self._view("segments", where)

    def shots(self, where: str | None = None) -> Rows:
        return self._view("shots", where)

    def captions(self, where: str | None = None) -> Rows:
        return self._view("captions", where)

    def answers(self, where: str | None = None) -> Rows:
        return self._view("answers", where)

    def changes(self, since: str | None = None) -> list[Change]:
        """What runs changed after `since`, or what the last one did: jobs.changes."""
        return changes_since(self._index, since)

    def _view(self, view: str, where: str | None) -> Rows:
        return self.sql(f"SELECT * FROM {view}" + ("" if where is None else f" WHERE (\n{where}\n)"))


def open_index(url: str, encoder: str | None = None, thresholds: Path | None = None) -> OpenIndex:
    """The index at a folder or s3:// prefix, for a notebook or a script."""
    return OpenIndex(url, encoder, thresholds)


def _cell(value: object) -> str:
    if isinstance(value, bytes):
        return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(value).decode()}">'
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return html.escape(text if len(text) <= 300 else text[:299] + "…")
