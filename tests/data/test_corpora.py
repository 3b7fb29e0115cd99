"""Opening and splitting text: deterministic, by document, never the same document on two sides."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data import embedded
from remask.data.corpora import open_corpus
from remask.data.splits import cut_by_position
from remask.errors import UserError

SPLITS = ("train", "validation", "test")


@pytest.fixture
def opened(tmp_path):
    def build(documents, **options):
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
        return open_corpus(path, cache=tmp_path / "cache", **options)

    return build


def by_split(corpus):
    return {split: list(corpus.documents(split)) for split in corpus.splits}


def test_documents_are_shared_out_ninety_five_five(opened):
    split = by_split(opened([f"document {i}" for i in range(4000)]))
    assert len(split["train"]) == pytest.approx(3600, abs=80)
    assert len(split["validation"]) == pytest.approx(200, abs=60)
    assert len(split["test"]) == pytest.approx(200, abs=60)


@given(count=st.integers(3, 90), copies=st.integers(1, 3), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_no_document_stands_in_two_splits_and_none_is_lost(count, copies, seed, tmp_path_factory):
    documents = [f"document {seed} {i}" for i in range(count)] * copies
    path = tmp_path_factory.mktemp("c") / "a.jsonl"
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    split = by_split(open_corpus(path, cache=path.parent))
    assert all(split[name] for name in SPLITS)
    assert sorted([d for part in split.values() for d in part]) == sorted(documents)
    for one, other in [("train", "validation"), ("train", "test"), ("validation", "test")]:
        assert not set(split[one]) & set(split[other])


def test_the_order_of_the_documents_changes_no_split(opened):
    documents = [f"document {i}" for i in range(300)]
    first = by_split(opened(documents))
    second = by_split(opened(random.Random(1).sample(documents, len(documents))))
    assert {name: set(part) for name, part in first.items()} == {name: set(part) for name, part in second.items()}


def test_adding_documents_moves_no_old_one(opened):
    documents = [f"document {i}" for i in range(600)]
    small, large = by_split(opened(documents[:300])), by_split(opened(documents))
    assert all(set(small[name]) <= set(large[name]) for name in SPLITS)


def test_of_few_documents_the_longest_trains(opened):
    for extra in range(10):
        split = by_split(opened(["x" * 500, f"short {extra}", f"brief {extra}"]))
        assert split["train"] == ["x" * 500]


@pytest.mark.parametrize("documents", [1, 2])
def test_one_or_two_documents_are_cut_by_position_at_line_ends(opened, documents):
    texts = ["".join(f"{name}{i} line\n" for i in range(1000)) for name in "ab"[:documents]]
    split = by_split(opened(texts))
    whole = sum(map(len, texts))
    assert [sum(map(len, split[name])) / whole for name in SPLITS] == pytest.approx([0.9, 0.05, 0.05], abs=0.01)
    assert all(part.endswith("line\n") for parts in split.values() for part in parts)
    assert sorted("".join(parts) for parts in zip(*split.values(), strict=True)) == sorted(texts)


@given(text=st.text(alphabet="ab\n"), shares=st.sampled_from([(0.9, 0.05, 0.05), (0.95, 0.05)]))
def test_the_parts_of_a_cut_text_join_again(text, shares):
    parts = cut_by_position(text, shares=shares)
    assert len(parts) == len(shares)
    assert "".join(parts) == text


def test_a_line_end_just_before_a_cut_is_used():
    assert cut_by_position("a" * 89 + "\n" + "b" * 10, shares=(0.9, 0.1)) == ["a" * 89 + "\n", "b" * 10]


def test_a_validation_text_of_its_own_leaves_the_source_to_training(opened, tmp_path):
    (tmp_path / "v.txt").write_text("held out")
    corpus = opened([f"document {i}" for i in range(50)], validation=tmp_path / "v.txt")
    assert corpus.splits == ("train", "validation")
    assert len(list(corpus.documents("train"))) == 50
    assert list(corpus.documents("validation")) == ["held out"]
    with pytest.raises(UserError, match=r"no test text; set data\.test"):
        corpus.documents("test")


def test_a_test_text_of_its_own_still_leaves_some_for_validation(opened, tmp_path):
    (tmp_path / "t.txt").write_text("last")
    corpus = opened([f"document {i}" for i in range(400)], test=str(tmp_path / "t.txt"))
    split = by_split(corpus)
    assert split["test"] == ["last"]
    assert len(split["train"]) + len(split["validation"]) == 400
    assert 5 <= len(split["validation"]) <= 40


def test_the_fingerprint_follows_the_text_and_the_splits(opened, tmp_path):
    (tmp_path / "v.txt").write_text("held out")
    plain = opened(["a", "b", "c"]).fingerprint
    assert opened(["a", "b", "c"]).fingerprint == plain
    assert opened(["a", "b", "d"]).fingerprint != plain
    validated = opened(["a", "b", "c"], validation=tmp_path / "v.txt").fingerprint
    tested = opened(["a", "b", "c"], test=tmp_path / "v.txt").fingerprint
    assert len({plain, validated, tested}) == 3


def test_walking_gives_what_the_splits_hold(opened):
    corpus = opened([f"document {i}" for i in range(100)])
    walked = list(corpus.walk())
    assert by_split(corpus) == {split: [d for at, d in walked if at == split] for split in SPLITS}


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("python-doc", {}, "did you mean 'python-docs'"),
        ("corpus.jsnl", {}, "no text 'corpus.jsnl'"),
        ("empty.txt", {}, "empty.txt is empty"),
        ("blank.txt", {}, "blank.txt is empty"),
        ("a.txt", {"validation": "empty.txt"}, "validation text of a.txt is empty"),
        ("a.txt", {"validation": "nowhere.txt"}, "no file or folder 'nowhere.txt'"),
        ("a.txt", {"validation": "./a.txt"}, "given as both source and validation"),
        ("a.txt", {"validation": "b.txt", "test": "b.txt"}, "given as both validation and test"),
        ("a.txt", {"max_documents": 0}, "max_documents must be at least 1"),
    ],
)
def test_a_wrong_source_is_one_clear_line(source, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"empty.txt": "", "blank.txt": " \n\n", "a.txt": "a", "b.txt": "b"}.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        open_corpus(source, cache=tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_split_is_named(opened):
    with pytest.raises(UserError, match="did you mean 'train'"):
        opened(["a", "b", "c"]).documents("trian")


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    library = tmp_path / "library"
    files = {
        "shapes.py": '"""About shapes."""\n\ntry:\n    class Box:\n        """A box."""\n'
        '        def size(self):\n            """How large."""\nexcept Exception:\n    pass\n'
        'x = lambda: """no"""\n',
        "plain.py": "x = 1\n",
        "broken.py": "def (:\n",
        "package/deep.py": 'async def f():\n    """Deep."""\n',
        "test/test_shapes.py": '"""Tests are left out."""\n',
        "site-packages/other.py": '"""So are other packages."""\n',
        "_sysconfigdata__linux.py": '"""And build settings."""\n',
    }
    for name, text in files.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(text)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(library)})
    return library


def test_docstrings_of_a_file_are_one_document_in_the_order_of_the_file(small_library):
    documents = list(embedded.python_docs(small_library))
    assert documents[-2:] == ["Deep.", "About shapes.\n\nA box.\n\nHow large."]
    assert all(isinstance(topic, str) for topic in documents[:-2])
    assert len(documents) > 50


def test_code_is_one_document_a_file_without_tests(small_library):
    names = [path.name for path in embedded.stdlib_files(small_library)]
    assert names == ["broken.py", "deep.py", "plain.py", "shapes.py"]
    assert "x = 1\n" in list(embedded.python_code(small_library))


def test_embedded_text_is_gathered_once(small_library, tmp_path):
    first = list(open_corpus("python-code", cache=tmp_path / "cache").walk())
    (small_library / "plain.py").write_text("changed\n")
    assert list(open_corpus("python-code", cache=tmp_path / "cache").walk()) == first


def test_a_python_without_library_source_is_one_clear_line(small_library, tmp_path):
    for path in small_library.rglob("*.py"):
        path.unlink()
    with pytest.raises(UserError, match="no library source"):
        open_corpus("python-code", cache=tmp_path / "cache")


def test_this_python_has_documentation_to_train_on():
    from pydoc_data.topics import topics

    assert sum(map(len, topics.values())) > 300_000
