"""Absent files and folders that cannot be written are found."""

import pytest

from denserc.structures import ConfigurationError
from denserc.structures.paths import absent_files, require_writable


def test_absent_files_are_found_folder_by_folder(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "folder").mkdir()
    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "folder/c.png", "none/d.png")]
    assert absent_files(paths) == paths[1:]


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    require_writable(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written to .*OUTPUT_DIR"):
        require_writable(tmp_path / "file" / "folder")
