"""The page of detections, by a random miniature detector on drawn squares."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from denserc.commands.show import main
from denserc.data.images.reading import read_rgb
from denserc.structures import ConfigurationError, DataError, Vocabulary
from denserc.tools.show_detections import Shown, drawn_size, from_data_set, show, titled, truth_of
from denserc.visualization.detections import BASE, NOVEL


@pytest.fixture()
def squares(tmp_path):
    """A YAML description of four images, the last two of which hold a kite, which is novel."""
    images, annotations = [], []
    for i, (h, w) in enumerate([(60, 90), (90, 60), (64, 64), (40, 80)]):
        Image.fromarray(np.full((h, w, 3), 128, dtype=np.uint8)).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": h, "width": w})
        corners = [10, 5, 40, 5, 40, 25, 10, 25]
        box = {"bbox": [10, 5, 30, 20], "area": 600, "iscrowd": int(i == 0), "segmentation": [corners]}
        annotations.append({"id": i + 1, "image_id": i, "category_id": 1 + (i > 1), **box})
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "kite"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "val.json").write_text(json.dumps(content))
    (tmp_path / "set.yaml").write_text(
        "name: show\nbase: [cup]\nnovel: [kite]\nval: {annotations: val.json, images: .}\n"
    )
    return tmp_path / "set.yaml"


def count(picture, color):
    return int((picture == np.array(color)).all(axis=-1).sum())


def test_a_data_set_brings_its_names_and_its_truth(detector, squares, tmp_path):
    command = ["--data-set", str(squares), "--output", str(tmp_path / "out"), "--number", "2", "--threshold", "1"]
    main(["--detector", f"one={detector}", f"two={detector}", *command, "--novel-only", "--device", "cpu"])
    page = read_rgb(tmp_path / "out" / "detections.png")
    # No detection reaches a score of 1: red is only in the first of three columns, where the kites are.
    third = page.shape[1] // 3
    assert count(page[:, :third], NOVEL) > 500 and count(page[:, third:], NOVEL) == count(page, BASE) == 0
    text = (tmp_path / "out" / "detections.html").read_text()
    assert "2.png: one: nothing; two: nothing" in text and "2, 1 of them novel" in text and "0.png" not in text
    assert text.count("<img") == 2


def test_a_folder_with_names_of_ones_own(detector, squares, tmp_path):
    command = ["--detector", str(detector), "--images", str(squares.parent), "--output", str(tmp_path / "out")]
    main([*command, "--names", "red cup, ball", "--novel", "ball", "--number", "0", "--threshold", "0", "--most", "3"])
    text = (tmp_path / "out" / "detections.html").read_text()
    assert text.count("<img") == 4 and "ground truth" not in text
    drawn = count(page := read_rgb(tmp_path / "out" / "detections.png"), NOVEL) + count(page, BASE)
    assert drawn > 500 and str(squares.parent) not in text
    with pytest.raises(ConfigurationError, match="--names"):
        main(command)


def test_unreadable_pictures_are_skipped_and_told(detector, squares, tmp_path, capsys):
    folder = squares.parent
    (folder / "1.png").write_bytes(b"cut")
    (folder / "._0.png").write_bytes(b"\x00\x05\x16\x07")
    options = ["--output", str(tmp_path / "out"), "--number", "0", "--device", "cpu"]
    for source in (["--images", str(folder), "--names", "cup"], ["--data-set", str(squares)]):
        assert main(["--detector", str(detector), *source, *options]) == 1
        printed = capsys.readouterr()
        assert "1.png cannot be read" in printed.err and "._0" not in printed.err
        assert "unreadable and skipped: 1" in printed.out
        assert (tmp_path / "out" / "detections.html").read_text().count("<img") == 3
    given = ["--detector", str(detector), "--images", str(folder), "--names", "cup", *options]
    assert main([*given, "--number", "1"]) == 0
    for file in folder.glob("?.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="None of the images can be read:\n.*0.png"):
        main(["--detector", str(detector), "--data-set", str(squares), *options])


def test_truth_is_drawn_where_it_is(squares):
    pictures, vocabulary = from_data_set(str(squares), 0)
    assert vocabulary.names == ("cup", "kite") and vocabulary.novel == {"kite"}
    pixels = read_rgb(pictures[2].file)
    truth = truth_of(pictures[2], pixels, (32, 32), vocabulary)
    np.testing.assert_allclose(truth.boxes, [[5, 2.5, 20, 12.5]])
    assert (list(truth.labels), truth.novel, truth.scores) == (["kite"], (True,), ())
    assert truth.masks.shape == (1, 32, 32) and truth.masks[0, 8, 10] and not truth.masks[0, 20, 10]
    assert len(truth_of(pictures[0], read_rgb(pictures[0].file), (60, 90), vocabulary).boxes) == 0  # a crowd


def test_detections_are_in_the_pixels_of_the_page(tmp_path):
    class Detector:
        """One cup that fills the left half of any picture."""

        threshold, frames = 0.5, []

        def set_vocabulary(self, names, novel):
            self.names = names

        def __call__(self, pixels, frame):
            self.frames.append((pixels.shape, frame))
            boxes = Boxes(torch.tensor([[0.0, 0.0, frame[1] / 2, frame[0]]]))
            return Instances(frame, pred_boxes=boxes, scores=torch.tensor([0.9]), pred_classes=torch.tensor([0]))

    Image.new("RGB", (1600, 1000)).save(tmp_path / "a.png")
    options = {"most": 3, "overlap": 0.5, "largest": 800, "masks": False}
    show({"one": Detector()}, [Shown(str(tmp_path / "a.png"))], Vocabulary(["cup"]), tmp_path, **options)
    assert Detector.frames == [((1000, 1600, 3), (500, 800))]
    page = read_rgb(tmp_path / "detections.png")
    columns = np.flatnonzero((page == np.array(BASE)).all(axis=-1).sum(axis=0) > 400)  # the box's left and right side
    assert abs(columns[-1] - columns[0] - 400) < 6
    assert "one: cup 0.90" in (tmp_path / "detections.html").read_text()


def test_small_things(tmp_path):
    assert drawn_size((480, 640), 320) == (240, 320) and drawn_size((20, 10), 320) == (20, 10)
    assert titled(["A=x/m.pth", "run/m.pth"]) == {"A": Path("x/m.pth"), "run/m": Path("run/m.pth")}
    with pytest.raises(ConfigurationError, match="TITLE=FILE"):
        titled(["a/m.pth", "x/a/m.pth"])
    assert Shown("a").annotations is None


def test_a_set_without_novel_objects_says_so(squares):
    content = json.loads((squares.parent / "val.json").read_text())
    content["annotations"] = content["annotations"][:2]
    (squares.parent / "val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="novel class to show"):
        from_data_set(str(squares), 2, novel_only=True)
