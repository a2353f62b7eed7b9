import torch

from denserc.detection.modeling.options import LowQualityMatch
from denserc.detection.modeling.sampling import IGNORED, NEGATIVE, IoUMatcher, RandomSampler

TRUTH = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]])


def test_thresholds():
    candidates = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 5.0], [0, 0, 10, 2], [50, 50, 60, 60]])
    matcher = IoUMatcher(positive_iou=0.7, negative_iou=0.3)
    assert matcher(candidates, TRUTH).tolist() == [0, IGNORED, NEGATIVE, NEGATIVE]


def test_low_quality_conventions():
    weak = torch.tensor([[0.0, 0.0, 10.0, 2.0], [20.0, 20.0, 40.0, 29.0]])  # IoU .2 and .45, best of their truths

    def matches(low_quality):
        matcher = IoUMatcher(positive_iou=0.7, negative_iou=0.5, low_quality=low_quality, low_quality_iou=0.3)
        return matcher(weak, TRUTH).tolist()

    assert matches(LowQualityMatch.NONE) == [NEGATIVE, NEGATIVE]
    assert matches(LowQualityMatch.OVERWRITE) == [NEGATIVE, 1]
    assert matches(LowQualityMatch.KEEP_BEST) == [0, 1]


def test_overwriting_takes_a_candidate_from_its_best_box():
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 4.0]])
    candidate = torch.tensor([[0.0, 0.0, 10.0, 9.0]])

    def match(low_quality):
        matcher = IoUMatcher(positive_iou=0.7, negative_iou=0.3, low_quality=low_quality, low_quality_iou=0.3)
        return matcher(candidate, truth).item()

    assert match(LowQualityMatch.KEEP_BEST) == 0
    assert match(LowQualityMatch.OVERWRITE) == 1


def test_nothing_to_match():
    matcher = IoUMatcher(positive_iou=0.5, negative_iou=0.5, low_quality=LowQualityMatch.OVERWRITE)
    assert matcher(TRUTH, torch.zeros(0, 4)).tolist() == [NEGATIVE, NEGATIVE]
    assert matcher(torch.zeros(0, 4), TRUTH).tolist() == []


def test_sampler_counts_and_kinds():
    matches = torch.cat([torch.zeros(30), torch.full((50,), NEGATIVE), torch.full((20,), IGNORED)]).long()
    positive, negative = RandomSampler(num=40, positive_fraction=0.25)(matches)
    assert len(positive) == 10 and len(negative) == 30
    assert (matches[positive] >= 0).all() and (matches[negative] == NEGATIVE).all()
    assert len(set(positive.tolist())) == 10
    few_positive, filled = RandomSampler(num=70, positive_fraction=0.9)(matches)
    assert (len(few_positive), len(filled)) == (30, 40)


def test_sampler_follows_the_seed():
    matches = torch.full((1000,), NEGATIVE)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(RandomSampler(num=10, positive_fraction=0.5)(matches)[1].tolist())
    assert draws[0] == draws[1] != draws[2]
