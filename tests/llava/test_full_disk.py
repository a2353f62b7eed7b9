"""A checkpoint that does not fit on the disk, and one whose last file was cut off."""

import pytest
import torch

from denserc.structures import ConfigurationError, WriteError
from denserc.structures.locks import locked_folder
from tests.llava.conftest import llava_config

pytest.importorskip("transformers", reason="needs denserc[llava]")

from denserc.llava.engine import run  # noqa: E402
from denserc.llava.trainer import latest_checkpoint  # noqa: E402
from tests.detection.test_full_disk import limited  # noqa: E402
from tests.llava.test_engine import moved, weights  # noqa: E402


def test_a_training_goes_on_after_a_full_disk(tmp_path, start, instructions, monkeypatch):
    run(llava_config(tmp_path / "whole", start, instructions))
    cfg, save = llava_config(tmp_path / "out", start, instructions), torch.save

    def full(content, *arguments, **options):
        with limited(100):
            save(content, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(WriteError) as caught:
        patch.setattr(torch, "save", full)
        run(cfg)
    assert "checkpoint-" in str(caught.value) and "--resume continues" in str(caught.value)
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    run(cfg, resume=True)
    assert moved(weights(tmp_path / "whole" / "model"), weights(tmp_path / "out" / "model")) == set()
    files = (tmp_path / "out" / "model").iterdir()
    assert {path.stat().st_mode & 0o777 for path in files} == {(tmp_path / "out/metrics.json").stat().st_mode & 0o777}


@pytest.mark.parametrize("content", ["", '{"global_step": 4, "max', "[]", "null"])
def test_a_cut_checkpoint_is_passed_over(tmp_path, content):
    for number, text in ((2, '{"global_step": 2}'), (4, content)):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text(text)
    assert latest_checkpoint(tmp_path).name == "checkpoint-2"


def test_a_second_training_in_one_folder_is_refused(tmp_path, start, instructions):
    cfg = llava_config(tmp_path / "out", start, instructions)
    with locked_folder(tmp_path / "out"), pytest.raises(ConfigurationError, match="Another training writes"):
        run(cfg)
