"""Reading files: what is a document, and one clear line for every broken file."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data import readers
from remask.data.readers import open_files
from remask.errors import UserError


def documents(place, *, text_key="text", separator=None, max_documents=None):
    return list(open_files(place, text_key=text_key, separator=separator, max_documents=max_documents))


def written(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "A.TXT"])
def test_a_text_file_is_one_document_to_the_byte(name, tmp_path):
    text = " Héllo\r\n\n東京 🙂\n"
    assert documents(written(tmp_path / name, text)) == [text]


def test_a_separator_cuts_a_text_file_into_documents(tmp_path):
    path = written(tmp_path / "a.txt", "one\ntwo\n\nthree\n\n\n\n \n\nfour\n")
    assert documents(path, separator="\n\n") == ["one\ntwo", "three", "four\n"]


@given(text=st.text(alphabet="ab\né🙂", max_size=60), block=st.integers(1, 7))
@settings(deadline=None)
def test_block_borders_cut_neither_characters_nor_separators(text, block, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("blocks") / "a.txt", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK", block)
        assert documents(path, separator="\n\n") == [part for part in text.split("\n\n") if part.strip()]
        assert documents(path) == ([text] if text.strip() else [])


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert documents(written(tmp_path / "a.txt", b"\xef\xbb\xbftea")) == ["tea"]
    assert documents(written(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "tea"}\n')) == ["tea"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_each_line_of_json_is_a_document(name, tmp_path):
    rows = [{"text": "one\n\ntwo", "id": 1}, {"text": " "}, {"text": None}, {"text": "Ärger\u2028x"}]
    path = written(tmp_path / name, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    assert documents(path) == ["one\n\ntwo", "Ärger\u2028x"]


def test_parquet_rows_are_documents(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = [f"document {i}" for i in range(3000)]
    table = pyarrow.table({"body": [*texts, None, ""], "n": list(range(3002))})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    assert documents(tmp_path / "a.parquet", text_key="body") == texts
    with pytest.raises(UserError, match="no column 'bodi'; did you mean 'body'"):
        documents(tmp_path / "a.parquet", text_key="bodi")
    with pytest.raises(UserError, match="row 1, column 'n': the text is no string but int"):
        documents(tmp_path / "a.parquet", text_key="n")


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    written(tmp_path / "b" / "x.txt", "third")
    written(tmp_path / "a.txt", "first")
    written(tmp_path / "b" / "a.jsonl", '{"text": "second"}\n')
    written(tmp_path / "notes.md", "not read")
    written(tmp_path / ".hidden" / "a.txt", "not read")
    assert documents(tmp_path) == ["first", "second", "third"]


def test_at_most_so_many_documents_are_read(tmp_path):
    path = written(tmp_path / "a.txt", "1|2| |3|4")
    assert documents(path, separator="|", max_documents=3) == ["1", "2", "3"]


def test_the_fingerprint_follows_bytes_and_options_but_not_the_place(tmp_path):
    def fingerprint(path, **options):
        return open_files(path, **{"text_key": "text", "separator": None} | options).fingerprint()

    one, same = written(tmp_path / "a.txt", "tea"), written(tmp_path / "there" / "b.txt", "tea")
    other = written(tmp_path / "c.txt", "tee")
    assert fingerprint(one) == fingerprint(same)
    different = [fingerprint(one), fingerprint(other), fingerprint(one, separator="e")]
    assert len({*different, fingerprint(one, max_documents=1)}) == 4


BROKEN = {
    "latin.txt": (b"caf\xe9 au lait", r"latin\.txt is not UTF-8: byte 0xe9 at offset 3"),
    "utf16.txt": ("tea".encode("utf-16"), r"byte 0xff at offset 0"),
    "cut.txt": ("caf\u00e9".encode()[:-1], r"byte 0xc3 at offset 3"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "\xe9"}\n', r"byte 0xe9 at offset 24"),
    "torn.jsonl": (b'{"text": "a"}\n{"text": "b', r"torn\.jsonl, line 2: not JSON"),
    "list.jsonl": (b'["text"]\n', r"line 1: not a JSON object but list"),
    "key.jsonl": (b'{"text": "a"}\n{"texts": "b"}\n', r"line 2: no key 'text'; did you mean 'texts'"),
    "number.jsonl": (b'{"text": 3}\n', r"line 1, key 'text': the text is no string but int"),
    "surrogate.jsonl": (b'{"text": "a\\ud800"}\n', r"line 1, key 'text': holds U\+D800 at character 1"),
    "deep.jsonl": (b"[" * 200_000, r"line 1: JSON nested too deeply|line 1: not JSON"),
    "a.parquet": (b"PAR1 nothing", r"cannot read .*a\.parquet as Parquet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_clear_line(name, tmp_path):
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        documents(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_encoding_error_far_into_a_file_is_found_at_its_offset(tmp_path):
    data = "é".encode() * 700_000 + b"\xff"
    with pytest.raises(UserError, match="byte 0xff at offset 1400000"):
        documents(written(tmp_path / "a.txt.gz", data))


def test_a_truncated_gzip_file_is_one_clear_line(tmp_path):
    path = written(tmp_path / "a.txt.gz", "tea " * 1000)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"no complete gzip file: it ends too early \(truncated\)"):
        documents(path)


def test_a_file_that_only_claims_to_be_gzip_is_one_clear_line(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b'{"text": "a"}')
    with pytest.raises(UserError, match="no complete gzip file"):
        documents(tmp_path / "a.jsonl.gz")


def test_damage_inside_a_gzip_file_is_one_clear_line(tmp_path):
    path = written(tmp_path / "a.txt.gz", "".join(str(i * i) for i in range(9999)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match="no complete gzip file"):
        documents(path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("missing.txt", {}, "no file or folder"),
        ("a.csv", {}, r"must end in one of \.txt, \.txt\.gz"),
        ("empty", {}, "holds no file that can be read"),
        ("a.txt", {"separator": ""}, "separator between documents is empty"),
        ("a.txt", {"max_documents": 0}, "max_documents must be at least 1, got 0"),
    ],
)
def test_a_wrong_place_or_option_is_one_clear_line(name, options, message, tmp_path):
    written(tmp_path / "a.csv", "a,b")
    written(tmp_path / "a.txt", "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        documents(tmp_path / name, **options)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'remask\[parquet\]'"):
        documents(written(tmp_path / "a.parquet", "PAR1"))


def test_one_long_document_is_known_to_have_text_from_its_first_block(tmp_path, monkeypatch):
    path = tmp_path / "long.txt"
    path.write_text(" " * (3 << 20) + "word" + " " * (30 << 20))
    blocks = []
    whole = readers._blocks
    monkeypatch.setattr(readers, "_blocks", lambda path: (blocks.append(1) or block for block in whole(path)))
    assert readers.open_files(path, text_key="text", separator=None).has_text()
    assert len(blocks) == 4
    (tmp_path / "blank.txt").write_text(" \n")
    assert not readers.open_files(tmp_path / "blank.txt", text_key="text", separator=None).has_text()
