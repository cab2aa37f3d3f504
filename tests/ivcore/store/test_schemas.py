from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ivcore.errors import WorkError
from ivcore.store import schemas

CAPTION = {"caption_id": "a", "clip_id": "c", "language": "en", "text_class": "short", "caption": "x"}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "captions.parquet"
    assert schemas.write(path, [CAPTION], schemas.CAPTIONS) == 1
    assert list(schemas.rows(path, schemas.CAPTIONS)) == [CAPTION]
    assert schemas.read(path, "captions").num_rows == 1


def test_another_version_or_kind_is_refused(tmp_path):
    path = tmp_path / "captions.parquet"
    schemas.write(path, [CAPTION], replace(schemas.CAPTIONS, version=2))
    with pytest.raises(WorkError, match=r"captions version 2, not captions version 1"):
        schemas.read(path, schemas.CAPTIONS)
    with pytest.raises(WorkError, match="not manifest"):
        schemas.read(path, schemas.MANIFEST)
    bare = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"x": [1]}), bare)
    with pytest.raises(WorkError, match="holds None"):
        schemas.read(bare, schemas.CAPTIONS)


def test_nulls_are_named(tmp_path):
    with pytest.raises(WorkError, match=r"captions\.caption has 1 nulls"):
        schemas.write(tmp_path / "a.parquet", [{**CAPTION, "caption": None}], schemas.CAPTIONS)


def test_missing_columns_are_named():
    with pytest.raises(WorkError, match="captions table lacks caption"):
        schemas.check(pa.table({k: [v] for k, v in CAPTION.items() if k != "caption"}), schemas.CAPTIONS)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "captions.parquet"
    schemas.write(path, [{**CAPTION, "caption": "the quick brown fox " * 50}] * 9, schemas.CAPTIONS)
    column = pq.ParquetFile(path).metadata.row_group(0).column(4)
    first = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[first + column.total_compressed_size - 2] ^= 1  # in the last page of the captions
    path.write_bytes(data)
    with pytest.raises(OSError):
        schemas.read(path, schemas.CAPTIONS)
