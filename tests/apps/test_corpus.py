"""Text as bytes: what is read, how it is split, which windows are drawn."""

import numpy as np
import pytest

from ttt_lm.corpus import Corpus
from tttcore import InvalidInput


@pytest.fixture
def folder(tmp_path):
    """Sixty documents of 40 … 99 different bytes, and one that is there twice."""
    rng = np.random.default_rng(0)
    for size in range(40, 100):
        (tmp_path / f"{size}.txt").write_bytes(bytes(rng.integers(0, 256, size, dtype=np.uint8)))
    (tmp_path / "again.txt").write_bytes((tmp_path / "40.txt").read_bytes())
    return tmp_path


def test_documents_are_read_once_and_split_by_their_bytes(folder):
    corpus = Corpus.of([folder])
    assert len(corpus.train) + len(corpus.held_out) == 60
    assert not {x.tobytes() for x in corpus.train} & {x.tobytes() for x in corpus.held_out}
    (folder / "more.txt").write_bytes(b"more")
    more = Corpus.of([folder])
    assert {x.tobytes() for x in corpus.held_out} <= {x.tobytes() for x in more.held_out}, "no document changes sides"
    assert more.name != corpus.name
    assert Corpus.of([folder]).name == more.name


def test_a_window_lies_in_one_document_and_each_is_as_likely(folder):
    corpus = Corpus.of([folder])
    windows, found = corpus.windows(38), {}
    text = {document[n : n + 38].tobytes() for document in corpus.train for n in range(len(document) - 37)}
    draws = 40 * len(text)
    for row in windows.batch(0, 0, draws):
        found[row.tobytes()] = found.get(row.tobytes(), 0) + 1
    assert set(found) == text, "all windows, and none else"
    # A count is near Poisson of mean 40: beyond 40 ± 6·√40 once in 1e8.
    assert all(2 < count < 78 for count in found.values())
    assert len(corpus.held_out_windows(10, 7)) == 7


def test_a_step_draws_the_same_windows_whatever_came_before(folder):
    windows = Corpus.of([folder]).windows(8)
    first = windows.batch(3, 5, 4)
    windows.batch(3, 6, 9)
    np.testing.assert_array_equal(windows.batch(3, 5, 4), first)
    assert not np.array_equal(windows.batch(4, 5, 4), first)
    assert not np.array_equal(windows.batch(3, 6, 4), first)


def test_the_unigram_entropy(tmp_path):
    for n in range(200):
        (tmp_path / str(n)).write_bytes(bytes([n]) * 4)
    corpus = Corpus.of([tmp_path])
    assert corpus.unigram_entropy() == pytest.approx(np.log(len(corpus.train)), rel=1e-12)


def test_what_no_windows_can_be_cut_from(tmp_path):
    with pytest.raises(InvalidInput, match=r"--text: got .*nowhere; expected a file or a folder"):
        Corpus.of([tmp_path / "nowhere"])
    (tmp_path / "one").write_bytes(b"one")
    with pytest.raises(InvalidInput, match="got 1 different documents in"):
        Corpus.of([tmp_path])
    for n in range(80):
        (tmp_path / str(n)).write_bytes(b"%d" % n)
    with pytest.raises(InvalidInput, match=r"--context: got no document of 9 bytes to train on \(the longest has 3\)"):
        Corpus.of([tmp_path]).windows(9)


def test_by_default_the_standard_library_is_read():
    corpus = Corpus.of([])
    assert corpus.name.startswith("stdlib-")
    assert sum(map(len, corpus.train)) > 1e6
    assert 2.5 < corpus.unigram_entropy() < 4
