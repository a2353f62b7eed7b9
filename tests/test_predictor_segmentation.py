"""Predictor over models that label pixels: CATSeg and DenseSegmenter, random miniatures."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import denserc
from denserc.commands.detect import main as detect
from denserc.commands.show import main as show
from denserc.data.images.reading import to_tensor
from denserc.openvocab import ModelCheckpointer
from denserc.openvocab.engine import build
from denserc.predictor import Predictor, Segmentation
from denserc.segmentation.dense import DenseSegmenter
from denserc.structures import CLIP_PIXELS, ConfigurationError, DataError
from denserc.visualization import class_colors
from tests.segmentation.squares import squares_config
from tests.segmentation.test_dense import Colors, Letters

NAMES = ["red cup", "green ball", "blue kite"]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Thirds of red, green and blue from left to right, with noise: (h, w, 3) uint8."""
    pixels = np.random.default_rng(seed).integers(0, 20, (height, width, 3), dtype=np.uint8)
    for axis in range(3):
        pixels[:, width * axis // 3 : width * (axis + 1) // 3, axis] += 230
    return pixels


def same(a: Segmentation, b: Segmentation) -> bool:
    """True if two results are equal, names included."""
    scores = (a.scores is None and b.scores is None) or torch.equal(a.scores, b.scores)
    return torch.equal(a.labels, b.labels) and scores and a.class_names == b.class_names


def colors(**options) -> DenseSegmenter:
    """Labels pixels by the color word of a name."""
    return DenseSegmenter(
        encoder=Colors(), text_tower=Letters(), pixels=CLIP_PIXELS, protocol="whole_image", templates=["{}"],
        short_side=64, **options,
    )  # fmt: skip


@pytest.fixture()
def make(tmp_path):
    """make(**changes) -> a small random CATSeg without names."""

    def build_one(**changes):
        cfg = squares_config(tmp_path, **{"DATASETS__TRAIN": (), "DATASETS__TEST": (), **changes})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build(cfg)
        model.metadata["config"] = cfg.dump()
        return model

    return build_one


@pytest.fixture()
def catseg_file(make, tmp_path):
    ModelCheckpointer(make(), str(tmp_path)).save_model("catseg")
    return tmp_path / "catseg.pth"


def test_a_catseg_checkpoint_labels_a_photo(catseg_file, tmp_path):
    Image.fromarray(photo(60, 90)).save(tmp_path / "a.png")
    predictor = Predictor(catseg_file, NAMES, device="cpu")
    found = predictor(tmp_path / "a.png")
    assert found.labels.shape == found.scores.shape == found.image_size == (60, 90)
    assert found.labels.dtype == torch.int64 and found.scores.dtype == torch.float32
    assert found.class_names == tuple(NAMES)
    model = predictor.model
    given = {**model.prepare(photo(60, 90))}
    assert given["image"].shape == (3, 40, 60)  # INPUT.MIN_SIZE_TEST
    scores = model([given])[0]["sem_seg"]
    assert torch.equal(found.labels, scores.argmax(0)) and torch.equal(found.scores, scores.amax(0))


@pytest.mark.parametrize("background", ["none", "prompt", "threshold"])
def test_catseg_scores_and_labels_agree(make, background):
    # A random model is undecided: half of the pixels are below the median.
    changes = {"MODEL__CATSEG__BACKGROUND": background}
    scored = Predictor(make(**changes), NAMES)
    middle = float(scored(photo(60, 90)).scores.median())
    scored.model.classes.threshold = middle
    found = scored(photo(60, 90))
    labeled = Predictor(make(**changes, MODEL__CATSEG__OUTPUT="labels"), NAMES)
    labeled.model.classes.threshold = middle
    other = labeled(photo(60, 90))
    assert same(other, found)
    assert found.labels.max() <= len(NAMES) - (background == "none")
    if background == "threshold":
        assert 0.2 < (found.labels == len(NAMES)).float().mean() < 0.8
        assert sum(found.fractions().values()) == pytest.approx(float((found.labels < len(NAMES)).float().mean()))


def test_dense_segmenter_labels_pixels_by_their_color():
    found = Predictor(colors(), NAMES)(photo(120, 180))
    assert [found.labels[60, x].item() for x in (20, 90, 160)] == [0, 1, 2]
    assert found.image_size == (120, 180) and found.scores.max() <= 1.0001
    shares = found.fractions()
    assert list(shares) == sorted(shares, key=shares.get, reverse=True) and set(shares) == set(NAMES)
    assert all(share == pytest.approx(1 / 3, abs=0.05) for share in shares.values())


def test_the_vocabulary_and_its_background_may_be_exchanged():
    predictor = Predictor(colors(threshold=0.9), ["red cup", "green ball"])
    plain = predictor(photo(60, 90))
    assert plain.labels.max() == 1
    predictor.set_vocabulary(["red cup", "green ball"], background=True)
    found = predictor(photo(60, 90))
    assert [found.labels[30, x].item() for x in (10, 45, 80)] == [0, 1, 2]  # blue is background
    assert set(found.fractions()) == {"red cup", "green ball"}
    with pytest.raises(DataError, match="unique"):
        predictor.set_vocabulary(["red cup", "red cup"])
    assert same(predictor(photo(60, 90)), found)
    predictor.set_vocabulary(["blue kite"])
    assert predictor.names == ("blue kite",) and predictor(photo(60, 90)).fractions() == {"blue kite": 1.0}


@pytest.mark.parametrize("kind", ["CATSeg", "DenseSegmenter"])
def test_the_background_is_an_argument(kind, make):
    def predictor(**options):
        return Predictor(make() if kind == "CATSeg" else colors(), NAMES[:2], **options)

    picture = photo(60, 90)
    plain = predictor()(picture)
    assert same(predictor(background="none")(picture), plain) and plain.labels.max() < 2
    scores = plain.scores if kind == "CATSeg" else None
    level = 0.9 if scores is None else float(scores.median())
    for options in ({"background": "prompt"}, {"background": "threshold", "background_threshold": level}):
        found = predictor(**options)
        labels = found(picture).labels
        assert labels.max() <= 2
        if options["background"] == "threshold" or kind == "DenseSegmenter":
            assert (labels == 2).any()
        if scores is not None and options["background"] == "threshold":
            assert torch.equal(labels == 2, scores < level)
        found.set_vocabulary(["blue"] if options["background"] == "prompt" else NAMES)  # keeps its background
        assert found(picture).labels.max() <= len(found.names)
        found.set_vocabulary(NAMES[:2], background="none", background_threshold=None)
        assert same(found(picture), plain)


def test_backgrounds_of_predictors_that_share_a_model(make):
    model, picture = make(), photo(60, 90)
    plain, prompted = Predictor(model, NAMES), Predictor(model, NAMES, background="prompt")
    strict = Predictor(model, NAMES, background="threshold", background_threshold=1.0)
    assert len(model.classes.vectors) == 3 and (strict(picture).labels == 3).all()
    assert prompted(picture).labels.max() <= 3 and len(model.classes.vectors) == 4
    assert plain(picture).labels.max() < 3
    with pytest.raises(ConfigurationError, match="'background' is added by the model"):
        prompted.set_vocabulary(["background", "cup"])
    assert same(plain(picture), Predictor(make(), NAMES)(picture)) and model.background.value == "none"


@pytest.mark.parametrize(
    "names, options, message",
    [
        (NAMES, {"background": "black"}, "background.*'black'"),
        (NAMES, {"background": "threshold"}, "needs background_threshold.*got 0.0"),
        (NAMES, {"background": "prompt", "background_threshold": 0.5}, "with background='threshold'; got 0.5"),
        (NAMES, {"background": "threshold", "background_threshold": 1.5}, "at most 1.*got 1.5"),
        (None, {"background": "prompt"}, "give names too"),
    ],
)
def test_backgrounds_that_cannot_be_are_explained(names, options, message, make):
    for model in (make(), colors()):
        with pytest.raises(ConfigurationError, match=message):
            Predictor(model, names, **options)


def test_one_name_has_no_threshold_among_names():
    with pytest.raises(ConfigurationError, match="needs two names"):
        Predictor(colors(), ["red"], background="threshold", background_threshold=0.5)


def test_threads_share_a_model_without_mixing_vocabularies():
    model, pictures = colors(threshold=0.9), [photo(60, 90, seed=i) for i in range(2)]
    given = [(["red", "green"], False), (["green", "red"], True), (["blue, sea", "green", "red"], False)]
    predictors = [Predictor(model) for _ in given]
    for predictor, (names, background) in zip(predictors, given, strict=True):
        predictor.set_vocabulary(names, background=background)
    expected = []
    for names, background in given:  # models of their own
        own = Predictor(colors(threshold=0.9))
        own.set_vocabulary(names, background=background)
        expected.append(own(pictures))
    blue = [one[0].labels[30, 80].item() for one in expected]
    assert blue[0] < 2 and blue[1:] == [2, 0]
    start = threading.Barrier(6)

    def run(index: int) -> bool:
        start.wait()
        found = [predictors[index](pictures) for _ in range(3)]
        return all(same(a, b) for one in found for a, b in zip(one, expected[index], strict=True))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(run, [0, 1, 2] * 2)) == [True] * 6


def test_a_selection_has_all_that_belongs_to_the_phrases():
    model = colors(threshold=0.9)
    model.set_vocabulary(["red, pink", "green"], background=True)
    selection = model.classes.selection()
    model.set_vocabulary(["blue"])
    model.classes.restore(selection)
    assert model.classes.has_background and model.constants.threshold == 0.9
    assert len(model.classes.queries(model.vocabulary)) == len(model.classes.label_of) == len(model.classes.vectors)


@pytest.mark.parametrize("kind", ["CATSeg", "DenseSegmenter"])
def test_kinds_of_pictures_batches_and_frames(kind, make, tmp_path):
    predictor = Predictor(make() if kind == "CATSeg" else colors(), NAMES, batch_size=2)
    upright = photo(50, 80)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "a.png", exif=exif)
    kinds = [upright, to_tensor(upright), Image.fromarray(upright), tmp_path / "a.png"]
    results = predictor([*kinds, photo(70, 30)])
    assert all(same(one, predictor(upright)) for one in results[:4]) and results[4].image_size == (70, 30)
    assert predictor([]) == [] and isinstance(predictor((upright,)), list)
    assert predictor(upright, frame=(25, 40)).image_size == (25, 40)
    assert predictor(photo(1, 3)).image_size == (1, 3)


def test_drawings_are_tinted_and_have_a_legend():
    predictor = Predictor(colors(threshold=0.9), novel=["green ball"], names=NAMES)
    picture = photo(400, 600)
    result = predictor(picture)
    drawn = np.asarray(predictor.draw(picture, result))
    assert drawn.shape == (400 + 28, 600, 3)  # one row of the legend
    assert np.array_equal(drawn, np.asarray(predictor.draw(picture)))
    expected = 0.4 * picture[200, 100] + 0.6 * class_colors(3)[0]
    np.testing.assert_allclose(drawn[200, 100], expected, atol=1)
    assert all((drawn[400:] == color).all(axis=-1).any() for color in class_colors(3))
    predictor.set_vocabulary(["kite"])
    assert not np.array_equal(drawn, np.asarray(predictor.draw(picture, result)))  # novel no longer
    predictor.set_vocabulary(NAMES, novel=["green ball"])
    assert np.array_equal(drawn, np.asarray(predictor.draw(picture, result)))
    assert predictor.draw(photo(100, 200)).size == (800, 428)
    predictor.set_vocabulary(["red cup"], background=True)
    blue = np.asarray(predictor.draw(picture))[200, 550]
    assert np.array_equal(blue, picture[200, 550])  # background is not tinted
    with pytest.raises(DataError, match=r"frame of \(400, 600\) \(h, w\) pixels, the picture has \(40, 60\)"):
        predictor.draw(photo(40, 60), result)


def test_commands_for_boxes_refuse_a_segmenter(catseg_file, tmp_path):
    Image.fromarray(photo(40, 60)).save(tmp_path / "a.png")
    given = ["--names", "red cup, ball", "--output", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(ConfigurationError, match="CATSeg labels pixels.*`denserc segment --model`"):
        detect([str(tmp_path / "a.png"), "--model", str(catseg_file), *given])
    with pytest.raises(ConfigurationError, match="CATSeg labels pixels"):
        show(["--images", str(tmp_path), "--detector", str(catseg_file), *given])


def test_other_outputs_are_refused():
    model = colors()
    predictor = denserc.Predictor(model, NAMES)
    model.forward = lambda given: [{"depth": torch.zeros(2, 2)} for _ in given]
    with pytest.raises(ConfigurationError, match=r"gives \['depth'\]; Predictor reads 'instances' or 'sem_seg'"):
        predictor(photo(20, 20))
