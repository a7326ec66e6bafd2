"""The conformance suite for every source."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator import exact_json, ports
from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import File
from orchestrator.testing.assertions import AWKWARD_TEXTS, assert_one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator.domain.item import Row


def read(source: ports.Source) -> list[Row]:
    """Return all rows of a source."""
    with source.rows() as rows:
        return list(rows)


class SourceConformance:
    """Subclass it as `TestMySource` and write `source`."""

    texts: Sequence[str] = AWKWARD_TEXTS

    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        """Return a source with one row per text, in this order. `folder` is an empty folder for the files it reads."""
        raise NotImplementedError

    def text_of(self, row: Row) -> object:
        """Return the text that a row was made from: by default its column `text`."""
        return row.columns["text"]

    def test_it_is_a_source(self, tmp_path: Path) -> None:
        assert isinstance(self.source(tmp_path, self.texts), ports.Source)

    def test_it_gives_its_rows_in_order_and_word_for_word(self, tmp_path: Path) -> None:
        rows = read(self.source(tmp_path, self.texts))
        assert [row.unreadable for row in rows] == [None] * len(self.texts)
        assert [self.text_of(row) for row in rows] == list(self.texts)

    def test_ids_are_distinct_texts_or_there_are_none(self, tmp_path: Path) -> None:
        ids = [row.id for row in read(self.source(tmp_path, self.texts))]
        if any(id_ is not None for id_ in ids):
            assert all(isinstance(id_, str) and id_ for id_ in ids)
            assert len(set(ids)) == len(ids)

    def test_its_columns_are_json_or_files(self, tmp_path: Path) -> None:
        for row in read(self.source(tmp_path, self.texts)):
            assert all(isinstance(name, str) for name in row.columns)
            exact_json.dumps({name: value for name, value in row.columns.items() if not isinstance(value, File)})

    def test_it_can_be_read_twice_and_left_in_the_middle(self, tmp_path: Path) -> None:
        source = self.source(tmp_path, self.texts)
        with source.rows() as rows:
            first = next(rows)
        assert read(source)[0] == first
        assert read(source) == read(source)

    def test_two_readers_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        source = self.source(tmp_path, self.texts)
        with source.rows() as one, source.rows() as other:
            assert [self.text_of(row) for pair in zip(one, other, strict=True) for row in pair] == [
                text for text in self.texts for _ in range(2)
            ]

    def test_each_row_may_be_read_in_another_thread(self, tmp_path: Path) -> None:
        """A run reads rows in any free worker thread."""
        opened = self.source(tmp_path, self.texts).rows()
        rows = _in_a_new_thread(opened.__enter__)
        seen = [_in_a_new_thread(lambda: next(rows)) for _ in self.texts]
        _in_a_new_thread(lambda: opened.__exit__(None, None, None))
        assert [self.text_of(row) for row in seen] == list(self.texts)

    def test_what_it_opens_is_closed_when_the_block_ends(self, tmp_path: Path) -> None:
        source = self.source(tmp_path, self.texts)
        read(source)  # what only the first read leaves open is not a leak
        before = psutil.Process().num_fds()
        for _ in range(8):
            with source.rows() as rows:
                next(rows)
        assert psutil.Process().num_fds() < before + 8

    def test_an_empty_source_has_no_rows(self, tmp_path: Path) -> None:
        assert read(self.source(tmp_path, [])) == []

    def test_it_describes_itself_in_one_line(self, tmp_path: Path) -> None:
        description = self.source(tmp_path, self.texts).describe()
        assert description
        assert "\n" not in description

    def test_its_hash_is_none_or_that_of_its_content(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "other").mkdir()
        source = self.source(tmp_path / "one", self.texts)
        before = source.sha256()
        assert before is None or re.fullmatch("[0-9a-f]{64}", before)
        read(source)
        assert source.sha256() == before
        if before is not None:
            assert self.source(tmp_path / "other", [*self.texts, "one more"]).sha256() != before


class FileSourceConformance(SourceConformance):
    """Subclass it for a source that reads one file: `source` writes this file, and no other, into its folder."""

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        source, path = self._made(tmp_path)
        path.unlink()
        with pytest.raises(UsageError) as failure:
            read(source)
        assert_one_line(failure, path)
        with pytest.raises(UsageError):
            source.sha256()

    def test_a_folder_in_place_of_the_file_is_named(self, tmp_path: Path) -> None:
        source, path = self._made(tmp_path)
        path.unlink()
        path.mkdir()
        with pytest.raises(UsageError) as failure:
            read(source)
        assert_one_line(failure, path)

    def test_it_says_which_files_it_reads(self, tmp_path: Path) -> None:
        """A sink must not write these files, under any name."""
        source, path = self._made(tmp_path)
        link = tmp_path / "link"
        link.symlink_to(path)
        assert isinstance(source, ports.ReadsFiles)
        assert source.reads([tmp_path / "other", path, link]) == [path, link]
        path.unlink()
        assert source.reads([path]) == [path]

    def _made(self, folder: Path) -> tuple[ports.Source, Path]:
        source = self.source(folder, self.texts)
        (path,) = folder.iterdir()
        return source, path


def _in_a_new_thread(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()
