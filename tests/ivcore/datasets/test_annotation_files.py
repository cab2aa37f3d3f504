"""Annotation files as people have them: separators, quotes, doubled columns, printed lists, swallowed rows."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ivcore.datasets import annotation_files, csv_files
from ivcore.errors import UserError


def _read(tmp_path: Path, text: str | bytes, name: str = "c.csv") -> list[dict]:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return annotation_files.read(tmp_path / name)


def _captions(rows: list[dict]) -> list[tuple[str, list[str]]]:
    return [(row["path"], row["captions"]) for row in rows]


WANTED = [("a.mp4", ["a dog, running"]), ("b c.mp4", ["x;y|z"])]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("blank", ["", " "])
def test_separator_quotes_line_ends_and_blanks(tmp_path, separator, end, quote, blank):
    lines = [["path", "caption"], ["a.mp4", "a dog, running"], ["b c.mp4", "x;y|z"]]
    quoted = ((separator + blank).join(f"{quote}{field}{quote}" for field in line) for line in lines)
    assert _captions(_read(tmp_path, end.join(quoted) + end)) == WANTED


@pytest.mark.parametrize("name", ["c.csv", "c.tsv"])
@pytest.mark.parametrize("head", ["path\tcaption", " caption \tpath", "n\tcaption\tpath"])
def test_a_table_with_tabs(tmp_path, name, head):
    values = {"n": "1", "caption": "a dog, running", "path": "a.mp4"}
    line = "\t".join(values[column.strip()] for column in head.split("\t"))
    assert _captions(_read(tmp_path, f"{head}\n{line}\n", name)) == WANTED[:1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["c.csv", "c.json", "c.jsonl"])
def test_marks_of_the_encoding(tmp_path, encoding, name):
    row = {"path": "a.mp4", "caption": "eine Tür 🎉\u2028 und mehr"}
    texts = {"c.csv": "path,caption\n" + ",".join(row.values()), "c.json": json.dumps([row])}
    text = texts.get(name, json.dumps(row, ensure_ascii=False))
    assert _captions(_read(tmp_path, text.encode(encoding), name)) == [("a.mp4", [row["caption"]])]


def test_columns_of_captions_may_be_several(tmp_path):
    text = "path,caption,caption,caption\na.mp4,one,two,three\nb.mp4,four,,\nc.mp4,,,\n"
    assert _captions(_read(tmp_path, text)) == [("a.mp4", ["one", "two", "three"]), ("b.mp4", ["four"]), ("c.mp4", [])]


@pytest.mark.parametrize("column", ["path", "split", "language", "mine"])
def test_other_columns_may_not(tmp_path, column):
    with pytest.raises(UserError, match=f"line 1 has the column '{column}' twice"):
        _read(tmp_path, f"path,{column},caption,{column}\na.mp4,a.mp4,x,b.mp4\n")
    with pytest.raises(UserError, match="an object has 'path' twice"):
        _read(tmp_path, '[{"path": "a.mp4", "caption": "x", "path": "b.mp4"}]', "c.json")
    table = pa.Table.from_arrays(
        [pa.array(["a.mp4"]), pa.array(["x"]), pa.array(["y"])], ["path", "caption", "caption"]
    )
    pq.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"c\.parquet cannot be read"):
        annotation_files.read(tmp_path / "c.parquet")


@pytest.mark.parametrize(
    "printed, wanted",
    [
        ("['a dog runs', 'a dog is running']", ["a dog runs", "a dog is running"]),
        ('["it\'s", "so"]', ["it's", "so"]),
        ("['one']", ["one"]),
        (" ['x', '', 'y'] ", ["x", "y"]),
        ("[a sign] says stop", ["[a sign] says stop"]),
        ("[music]", ["[music]"]),
        ("['a' 'b']", "a printed list that cannot be read"),
        ("['a', 3]", "a printed list that cannot be read"),
        ("['a', 'b' ... 'c']", "a printed list that cannot be read"),
        ("['a\\nb' \n 'c']", "a printed list that cannot be read"),
    ],
)
def test_a_printed_list_is_read_as_meant_or_refused(tmp_path, printed, wanted):
    rows = [{"path": "a.mp4", "caption": "fine"}, {"path": "b.mp4", "caption": printed}]
    row = _read(tmp_path, json.dumps(rows), "c.json")[1]
    if isinstance(wanted, list):
        assert row["captions"] == wanted
    else:
        assert (row["error"], row["clip_id"]) == ("bad_row", "c.json row 2") and wanted in row["detail"]


@pytest.mark.parametrize(
    "text, said",
    [
        ('path,caption\na.mp4,"a dog\nb.mp4,cat\nc.mp4,bird"\nd.mp4,y\n', "line 2 has a quote .* swallows line 3"),
        ('path,caption\na.mp4,"a dog\nb.mp4,cat\nc.mp4,"a bird"\nd.mp4,y\n', "line 4: "),
        ('path,caption\na.mp4,"a 5" pipe\nb.mp4,x\n', "line 2: "),
        ('path,caption\na.mp4,x\nb.mp4,"y\nc.mp4,z\n', "line 4: .*quote"),
        ('caption,path\nx,a.mp4\n"y,b.MKV\nz,c.MKV\nw",d.mp4\n', "line 3 has a quote .* swallows line 4"),
        ("path;caption\na.mp4;\"x\nb.webm;'y'\"\n", "line 2 has a quote .* swallows line 3"),
        ('path,caption\na.jpg,"x\r\nb.jpg,y"\r\n', "line 2 has a quote .* swallows line 3"),
        ("path,caption\na.mp4," + "w" * 200_000 + "\n", "line 2: field larger"),
    ],
)
def test_a_quote_left_open_is_named_by_its_line(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        _read(tmp_path, text)


def test_captions_of_several_lines_are_read_and_said(tmp_path, caplog):
    text = 'path,caption\na.mp4,"a dog, running,\nand then a cat, sleeping"\nb.mp4,x\n\nc.mp4,y\n'
    assert _captions(_read(tmp_path, text))[0] == ("a.mp4", ["a dog, running,\nand then a cat, sleeping"])
    assert "3 rows in 5 lines; 1 of them go over several lines" in caplog.text


@pytest.mark.parametrize("text", ["\ud83d", "x\udce9"])
@pytest.mark.parametrize("field", ["caption", "clip_id", "family", "path"])
def test_half_a_character_is_a_wrong_row_or_name(tmp_path, text, field):
    rows = [{"path": "a.mp4"}, {"path": "b.mp4", field: text}]
    found = _read(tmp_path, json.dumps(rows), "c.json")[1]
    assert found.get("error") == "bad_row" or field == "path"  # which the folder looks at


def test_fields_beyond_the_first_line_and_fields_that_lack(tmp_path):
    (tmp_path / "c.csv").write_text("a,b\n1\n1,2,3\n")
    assert csv_files.read(tmp_path / "c.csv") == [{"a": "1", "b": None}, {"a": "1", "b": "2", None: ["3"]}]


def test_a_blank_behind_a_separator(tmp_path):
    row = _read(tmp_path, "path, caption, language, split, start_s\na.mp4, a dog, es, test, 0.5\n")[0]
    assert (row["path"], row["language"], row["split"], row["start_s"]) == ("a.mp4", "es", "test", 0.5)
    assert row["captions"][0].strip() == "a dog"
