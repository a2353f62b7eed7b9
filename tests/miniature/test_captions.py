import numpy as np
import pytest

from denserc.encoders.miniature import miniature_tokenizer
from denserc.miniature.captions import write_caption
from denserc.miniature.crops import View, caption_crop, captioned_crop, subject_of_crop, widened
from denserc.miniature.scenes import compose_scene
from denserc.miniature.world import STUFF, SYNONYMS, Domain, Thing

CROSS = Thing("striped", "purple", "cross")


def captions(domain, count=300):
    rng = np.random.default_rng(0)
    return [write_caption([CROSS], ["grass"], domain, rng) for _ in range(count)]


def test_captions_always_name_the_shape_mostly_in_domain_words():
    for domain, own, other in ((Domain.MAIN, "cross", "plus"), (Domain.TRANSFER, "plus", "cross")):
        texts = captions(domain)
        assert all(own in text.split(".")[0] or other in text for text in texts)
        share = np.mean([own in text.replace(".", " ").replace(",", " ").split() for text in texts])
        assert 0.7 < share < 0.95


def test_captions_vary():
    assert len(set(captions(Domain.MAIN))) > 200


def test_a_caption_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        write_caption([], [], Domain.MAIN, np.random.default_rng(0))


def test_captions_of_crops_speak_only_of_what_the_crop_shows():
    synonym_of = {s: w for w, s in SYNONYMS.items()}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        view = View.of(compose_scene(rng))
        text = caption_crop(view, (0, 0, 64, 64), rng)
        seen = {view.scene.names[i] for i in np.unique(view.scene.segments[:64, :64])}
        shown = {word for name in seen for word in name.split()}
        said = {synonym_of.get(w, w) for w in text.replace(".", " ").replace(",", " ").split()}
        assert said & (set(SYNONYMS) - {"black", "white"}) <= shown  # "a black and white photo" is a manner of speaking


def test_captions_fit_the_text_tower():
    rng = np.random.default_rng(1)
    views = [View.of(compose_scene(rng)) for _ in range(40)]
    texts = [captioned_crop(view, 64, rng).caption for view in views for _ in range(5)]
    rows = miniature_tokenizer()(texts)
    assert (rows[:, -1] != 0).float().mean() < 0.02  # hardly one is cut off


def test_stuff_is_named_where_there_is_no_thing():
    rng = np.random.default_rng(2)
    view = View.of(compose_scene(rng, count=0))
    text = caption_crop(view, (0, 0, 128, 128), rng)
    assert any(word in text or SYNONYMS[word] in text for word in STUFF)


def test_boxes_hold_the_visible_area_and_stay_in_the_image():
    view = View.of(compose_scene(np.random.default_rng(5), count=6))
    for i, (x1, y1, x2, y2) in enumerate(view.boxes):
        mask = view.scene.thing_mask(i)
        assert mask[y1:y2, x1:x2].sum() == mask.sum() == view.areas[len(view.scene.stuff) + i]
        left, top, right, bottom = widened(view.boxes[i], (1.5, 1.5), (128, 128))
        assert 0 <= left <= x1 and x2 <= right <= 128 and 0 <= top <= y1 and y2 <= bottom <= 128


def test_crop_subject_is_the_single_thing_or_none_on_bare_ground():
    rng = np.random.default_rng(8)
    view = View.of(compose_scene(rng, count=1))
    box = tuple(int(v) for v in view.boxes[0])
    assert subject_of_crop(view, box) == view.scene.things[0]
    assert subject_of_crop(View.of(compose_scene(rng, count=0)), (0, 0, 128, 128)) is None
