"""Predictor: photographs of any kind give the evaluation's results, in pixels of the photo."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, Metadata
from detectron2.structures import Instances
from detectron2.utils.visualizer import Visualizer
from PIL import Image

import denserc
from denserc.config import read_config
from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.data.images.reading import read_rgb, to_tensor
from denserc.detection.data import test_mapper as evaluation_mapper
from denserc.detection.modeling.options import Padding
from denserc.openvocab import build_test_loader
from denserc.predictor import ClassNames, Predictor, as_pixels
from denserc.structures import CheckpointError, ConfigurationError, DataError
from denserc.visualization.detections import BASE, NOVEL
from tests.conftest import CONFIGS

NAMES = ["red cup", "ball", "kite"]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colored rectangles, (h, w, 3) uint8."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    for _ in range(4):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        pixels[y : y + height // 3, x : x + width // 3] = rng.integers(0, 256, 3)
    return pixels


def same(a: Instances, b: Instances, tolerance: float = 0.0) -> bool:
    """True if two results are equal, names and masks included."""
    fields = ["scores", "pred_classes"] + (["pred_masks"] if a.has("pred_masks") else [])
    return (
        a.image_size == b.image_size
        and a.get_fields().keys() == b.get_fields().keys()
        and a.class_names == b.class_names
        and torch.allclose(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=0, atol=tolerance)
        and all(torch.allclose(a.get(f).double(), b.get(f).double(), rtol=0, atol=tolerance) for f in fields)
    )


@pytest.fixture(scope="module")
def predictor(mask_detector) -> Predictor:
    """With a mask head, everything that the model gives; not to be changed."""
    return Predictor(mask_detector, NAMES, threshold=0, device="cpu")


@pytest.fixture(scope="module")
def boxes_only(detector) -> Predictor:
    """Without masks; not to be changed."""
    return Predictor(detector, NAMES, threshold=0, device="cpu")


@pytest.fixture()
def inputs(predictor):
    """Sizes of the images of each forward pass."""
    sizes = []
    hook = predictor.model.register_forward_pre_hook(
        lambda model, given: sizes.append([tuple(one["image"].shape) for one in given[0]])
    )
    yield sizes
    hook.remove()


def test_results_are_those_of_the_evaluation(mask_detector, predictor, tmp_path, forget_registered):
    images = []
    for i, size in enumerate([(60, 90), (200, 130), (64, 64)]):
        Image.fromarray(photo(*size, seed=i)).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": size[0], "width": size[1]})
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cup"}]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    register_open_vocab_dataset("parity_val", tmp_path / "val.json", tmp_path, base=["cup"])
    cfg = read_config(CONFIGS / "miniature" / "fvit.yaml", ["TEST.INPUT_SIZE", 96])
    model = denserc.load_model(mask_detector)
    model.set_vocabulary(NAMES)
    loader = build_test_loader(cfg, evaluation_mapper(cfg), "parity_val")
    with torch.no_grad():
        expected = [model(batch)[0]["instances"] for batch in loader]
    assert len(expected) == len(DatasetCatalog.get("parity_val")) and all(len(one) > 5 for one in expected)
    for one, image in zip(expected, images, strict=True):
        found = predictor(tmp_path / image["file_name"])
        one.class_names = ClassNames(NAMES[i] for i in one.pred_classes)
        assert same(found, one)
        assert found.pred_masks.shape == (len(found), image["height"], image["width"])


def test_every_kind_of_picture_gives_the_same(predictor, tmp_path):
    pixels = photo(50, 80)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    kinds = [str(tmp_path / "a.png"), tmp_path / "a.png", Image.fromarray(pixels), pixels, to_tensor(pixels)]
    kinds += [np.asfortranarray(pixels), to_tensor(pixels)[:, :, :]]
    results = predictor(kinds)
    assert len(results) == len(kinds) and len(results[0]) > 5
    assert all(same(one, results[0]) for one in results)


def test_rotated_photographs_are_found_upright(predictor, tmp_path):
    upright = photo(50, 80)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "a.png", exif=exif)
    expected = predictor(upright)
    with Image.open(tmp_path / "a.png") as opened:
        for given in (tmp_path / "a.png", opened):
            assert same(predictor(given), expected)
        assert opened.size == (50, 80) and opened.getexif()[0x0112] == 6  # not changed


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_open_images_of_every_mode_are_read_as_files(predictor, mode, tmp_path):
    image = Image.fromarray(photo(40, 60))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256)
    elif mode == "I":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.int32) * 256)
    else:
        image = image.convert(mode)
    file = tmp_path / ("a.png" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "a.tif")
    image.save(file)
    before = image.copy()
    assert np.array_equal(as_pixels(image), read_rgb(file)) and as_pixels(image).shape == (40, 60, 3)
    assert image.mode == before.mode and image.tobytes() == before.tobytes()
    assert predictor(image).image_size == (40, 60)


def test_transparent_open_images_are_laid_over_white():
    assert (as_pixels(Image.new("RGBA", (3, 2), (255, 0, 0, 0))) == 255).all()


def test_a_photograph_of_12_megapixels_is_resized(boxes_only):
    sizes = []
    hook = boxes_only.model.backbone.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape))
    found = boxes_only(photo(3000, 4000))
    hook.remove()
    assert sizes == [(1, 3, 128, 128)]
    assert found.image_size == (3000, 4000) and 1000 < found.pred_boxes.tensor.max() <= 4000


def test_masks_below_the_threshold_are_never_enlarged(mask_detector, monkeypatch):
    from denserc.detection.modeling import postprocess

    counts, original = [], postprocess.paste_masks_in_image
    monkeypatch.setattr(
        postprocess, "paste_masks_in_image", lambda m, *given, **k: counts.append(len(m)) or original(m, *given, **k)
    )
    predictor = Predictor(mask_detector, NAMES, threshold=0, device="cpu")
    everything = predictor(photo(60, 90))
    predictor.threshold = float(everything.scores.sort(descending=True).values[3])
    best = predictor(photo(60, 90))
    assert len(best) == counts[-1] == 4 < counts[0]
    assert same(best, everything[everything.scores >= predictor.threshold])


def test_results_in_another_frame_are_scaled(predictor):
    own, small = predictor(photo(60, 90)), predictor(photo(60, 90), frame=(30, 45))
    assert small.image_size == (30, 45) and small.pred_masks.shape[1:] == (30, 45)
    torch.testing.assert_close(small.pred_boxes.tensor * 2, own.pred_boxes.tensor)


@pytest.mark.parametrize("padding", Padding)
def test_batches_find_what_single_pictures_do(predictor, inputs, padding, monkeypatch):
    monkeypatch.setattr(predictor.model, "padding", padding)
    pictures = [photo(*size, seed=i) for i, size in enumerate([(60, 90), (90, 60), (120, 180), (70, 70), (30, 45)])]
    single = predictor(pictures)
    assert [len(batch) for batch in inputs] == [1] * 5
    inputs.clear()
    monkeypatch.setattr(predictor, "batch_size", 2)
    batched = predictor(tuple(pictures))
    expected = [2, 2, 1] if padding is Padding.SQUARE else [2, 1, 1, 1]  # of three of one size, two others
    assert [len(batch) for batch in inputs] == expected
    assert all(same(one, other, tolerance=1e-3) for one, other in zip(single, batched, strict=True))


def test_padded_sizes_are_those_of_the_network_input(predictor, monkeypatch):
    for padding in Padding:
        monkeypatch.setattr(predictor.model, "padding", padding)
        for h, w in [(96, 64), (33, 96), (200, 100), (96, 96), (1, 50)]:
            given = [{"image": torch.zeros(3, h, w)}]
            assert predictor.model.padded_size((h, w)) == tuple(predictor.model.preprocess(given).tensor.shape[-2:])


def test_no_pictures_give_no_results(predictor):
    assert predictor([]) == [] and predictor(()) == []
    assert isinstance(predictor([photo(20, 20)]), list)


def test_extreme_shapes_are_read(predictor):
    for size in [(1, 1), (1, 500), (700, 2)]:
        assert predictor(photo(*size)).image_size == size


@pytest.mark.parametrize(
    "given, words",
    [
        (np.zeros((4, 6, 3), np.float32), "0..255 and convert them to uint8"),
        (torch.zeros(3, 4, 6), "0..255 and convert them to uint8"),
        (np.zeros((4, 6), np.uint8), r"\(h, w, 3\) uint8 RGB; got \(4, 6\) uint8.*Image.fromarray"),
        (np.zeros((4, 6, 4), np.uint8), "alpha channel: Image.fromarray"),
        (np.zeros((3, 4, 6), np.uint8), r"\.transpose\(1, 2, 0\)"),
        (torch.zeros(4, 6, 3, dtype=torch.uint8), r"\(3, h, w\) uint8 RGB.*\.permute\(2, 0, 1\)"),
        (torch.zeros(2, 3, 4, 6, dtype=torch.uint8), "batch as a list of tensors"),
        (np.zeros((2, 4, 6, 3), np.uint8), "batch as a list of arrays"),
        (np.zeros((0, 6, 3), np.uint8), "at least one pixel"),
        (Image.new("RGB", (0, 0)), "at least one pixel"),
        ("https://example.com/a.jpg", "address on the web: download"),
        ("absent.jpg", "absent.jpg does not exist"),
        (7, "got int"),
        (None, "got NoneType"),
    ],
)
def test_other_inputs_are_refused_with_advice(predictor, given, words):
    with pytest.raises(DataError, match=words):
        predictor(given)
    with pytest.raises(DataError, match=words):
        predictor([photo(20, 20), given])


def test_the_vocabulary_may_be_exchanged(mask_detector, predictor):
    own = Predictor(mask_detector, ["kite"], threshold=0, device="cpu")
    only_kites = own(photo(60, 90))
    assert own.names == ("kite",) and set(only_kites.class_names) == {"kite"}
    own.set_vocabulary(NAMES)
    assert own.names == tuple(NAMES) and same(own(photo(60, 90)), predictor(photo(60, 90)))
    own.set_vocabulary(NAMES, novel=["kite"])
    assert own.vocabulary.novel == {"kite"} and not same(own(photo(60, 90)), predictor(photo(60, 90)))
    assert predictor.names == tuple(NAMES)  # another predictor over the same file
    own.set_vocabulary(["kite"])
    assert same(own(photo(60, 90)), only_kites)


def test_templates_of_the_constructor_hold_for_later_names(detector, boxes_only):
    plain = Predictor(detector, ["cup"], templates=["a photo of a {}."], threshold=0, device="cpu")
    plain.set_vocabulary(NAMES)
    assert same(plain(photo(60, 90)), boxes_only(photo(60, 90)))  # the miniature's own templates are these
    plain.templates = ["an origami {}."]
    plain.set_vocabulary(NAMES)
    assert not same(plain(photo(60, 90)), boxes_only(photo(60, 90)))


def test_a_loaded_model_may_be_shared(boxes_only):
    before = boxes_only(photo(60, 90))
    kites = Predictor(boxes_only.model, ["kite"], threshold=0)
    assert set(kites(photo(60, 90)).class_names) == {"kite"}
    assert same(boxes_only(photo(60, 90)), before) and kites.names == ("kite",) and boxes_only.names == tuple(NAMES)


def test_a_models_own_vocabulary_is_used_without_names(detector):
    model = denserc.load_model(detector)
    predictor = Predictor(model, threshold=0)
    assert predictor.names == ()
    with pytest.raises(ConfigurationError, match=r"no class names: give names=\[\.\.\.\] or call set_vocabulary"):
        predictor(photo(20, 20))
    model.set_vocabulary(["ball"])
    assert predictor.names == ("ball",) and set(predictor(photo(60, 90)).class_names) == {"ball"}


def test_threads_share_a_model_without_mixing_vocabularies(boxes_only):
    pictures = [photo(60, 90, seed=i) for i in range(3)]
    vocabularies = [["kite"], ["red cup", "ball"], ["lamp", "boat", "ring"]]
    predictors = [Predictor(boxes_only.model, names, threshold=0) for names in vocabularies]
    expected = [one(pictures) for one in predictors]
    start = threading.Barrier(6)

    def run(index: int) -> bool:
        start.wait()
        found = [predictors[index](pictures) for _ in range(2)]
        return all(same(a, b) for one in found for a, b in zip(one, expected[index], strict=True))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(run, [0, 1, 2] * 2)) == [True] * 6


def test_a_call_keeps_its_vocabulary_if_another_is_set(detector, monkeypatch):
    predictor = Predictor(detector, ["kite"], threshold=0, device="cpu")
    pictures = [photo(40, 60, seed=i) for i in range(3)]
    expected = predictor(pictures)
    prepare, prepared = predictor.model.prepare, []

    def prepare_and_exchange(pixels, frame):
        prepared.append(pixels)
        if len(prepared) == 2:  # as another thread may, between two forward passes
            predictor.set_vocabulary(["ball"])
        return prepare(pixels, frame)

    monkeypatch.setattr(predictor.model, "prepare", prepare_and_exchange)
    assert all(same(a, b) for a, b in zip(predictor(pictures), expected, strict=True))
    balls = predictor(pictures)
    assert balls[0].class_names[0] == "ball" and len(balls[0]) != len(expected[0])


def test_names_survive_the_operations_of_instances(predictor):
    found = predictor(photo(60, 90))
    kept = found[found.scores > found.scores.median()]
    assert len(kept.class_names) == len(kept) < len(found)
    assert list(kept.class_names) == [NAMES[i] for i in kept.pred_classes]
    assert found[2].class_names == (NAMES[found.pred_classes[2]],)
    order = found.scores.argsort()
    assert list(found[order].class_names) == [NAMES[i] for i in found.pred_classes[order]]
    moved = Instances.cat([kept.to("cpu"), found[:2]])
    assert list(moved.class_names) == [NAMES[i] for i in moved.pred_classes] and len(moved[:3].class_names) == 3
    assert len(found[found.scores > 2].class_names) == 0


def test_class_names_are_indexed_as_tensors_are():
    names = ClassNames(["a", "b", "c"])
    assert names[1] == "b" and names[-1] == "c" and names[torch.tensor(2)] == "c"
    assert names[1:] == ("b", "c") and type(names[1:]) is ClassNames
    assert names[torch.tensor([True, False, True])] == names[np.array([0, 2])] == names[[0, 2]] == ("a", "c")
    assert names[torch.tensor([], dtype=torch.long)] == names[[False] * 3] == ()
    assert json.dumps(names) == '["a", "b", "c"]'
    with pytest.raises(IndexError):
        names[[3]]


def test_drawings_show_the_detections(predictor, mask_detector):
    picture = Image.fromarray(photo(400, 600))
    drawn = predictor.draw(picture)
    assert drawn.size == (600, 400) and same_pixels(drawn, predictor.draw(picture, predictor(picture)))
    assert (np.asarray(drawn) == BASE).all(axis=-1).any()
    nothing = predictor(picture)[:0]
    assert np.array_equal(np.asarray(predictor.draw(picture, nothing)), np.asarray(picture))
    novel = Predictor(mask_detector, NAMES, novel=NAMES, threshold=0, device="cpu").draw(picture)
    assert (np.asarray(novel) == NOVEL).all(axis=-1).any() and not (np.asarray(novel) == BASE).all(axis=-1).any()
    assert predictor.draw(photo(100, 200)).size == (800, 400)  # enlarged, so that text is legible
    assert predictor.draw(photo(100, 200), min_side=1).size == (200, 100)
    with pytest.raises(DataError, match=r"frame of \(400, 600\) \(h, w\) pixels, the picture has \(40, 60\)"):
        predictor.draw(photo(40, 60), predictor(picture))


def same_pixels(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_drawn_names_are_those_of_the_detections(mask_detector):
    predictor = Predictor(mask_detector, ["kite"], threshold=0, device="cpu")
    found = predictor(photo(400, 600))
    before = predictor.draw(photo(400, 600), found)
    predictor.set_vocabulary(["ball", "kite"])
    assert same_pixels(before, predictor.draw(photo(400, 600), found))


def test_supervision_reads_the_results(predictor):
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    found = predictor(photo(60, 90))
    detections = supervision.Detections.from_detectron2({"instances": found})
    np.testing.assert_allclose(detections.xyxy, found.pred_boxes.tensor.numpy())
    np.testing.assert_allclose(detections.confidence, found.scores.numpy())
    assert [NAMES[i] for i in detections.class_id] == list(found.class_names)
    assert np.array_equal(detections.mask, found.pred_masks.numpy())
    drawn = supervision.BoxAnnotator().annotate(photo(60, 90), detections)
    assert not np.array_equal(drawn, photo(60, 90))


def test_visualizer_draws_the_results(predictor):
    pixels = photo(200, 300)
    found = predictor(pixels)[:3]
    visualizer = Visualizer(pixels, Metadata(thing_classes=predictor.names))
    drawn = visualizer.draw_instance_predictions(found).get_image()
    assert drawn.shape == pixels.shape and not np.array_equal(drawn, pixels)


def test_options_are_checked(detector, boxes_only):
    for options, words in (
        ({"threshold": 1.5}, "threshold must be a score from 0 to 1; got 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"names": "red cup"}, r"list of class names, as \['red cup'\]; got one string"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            Predictor(boxes_only.model, **options)
    with pytest.raises(ConfigurationError, match="OpenVocabularyModel; got Linear"):
        Predictor(torch.nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="no model checkpoint at absent.pth"):
        Predictor("absent.pth", NAMES)
    with pytest.raises(DataError, match="unique"):
        Predictor(boxes_only.model, ["cup", "cup"])


def test_the_device_is_chosen(detector):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = Predictor(detector, ["cup"])
    assert predictor.model.device.type == expected
    model = denserc.load_model(detector).train()
    assert Predictor(model, ["cup"]).model.device.type == "cpu" and not model.training  # where it is
    assert Predictor(model, ["cup"], device="cpu")(photo(20, 20)).scores.device.type == "cpu"
