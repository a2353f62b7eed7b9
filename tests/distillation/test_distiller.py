"""The parameters that the distiller trains, those that it does not change, and CLIPSelf's and DeCLIP's losses."""

from copy import deepcopy

import pytest
import torch

from denserc.construction import Construction, DenseEncoder
from denserc.distillation.data.batch import DistillationBatch, DistillationSample
from denserc.distillation.distiller import Distiller, foundation_input_size, normalized
from denserc.distillation.losses import (
    CoherenceFeatures,
    CoherenceReading,
    PooledMap,
    coherence_loss,
    pool_regions,
    semantics_loss,
)
from denserc.distillation.optim import Trainable, build_optimizer, set_trainable
from denserc.distillation.target_cache import TargetMemory
from denserc.encoders import build_foundation_model
from denserc.structures import ConfigurationError, weights_digest


def make_batch(images=2, regions=3, side=64, crop=64, seed=0) -> DistillationBatch:
    generator = torch.Generator().manual_seed(seed)

    def pixels(*shape):
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    samples = []
    for _ in range(images):
        image = pixels(3, side, side)
        corners = torch.rand(regions, 2, generator=generator) * 0.5
        boxes = torch.cat([corners, corners + 0.4], dim=1)
        samples.append(DistillationSample(image, image, pixels(regions, 3, crop, crop), boxes, (1.0, 0.75)))
    return DistillationBatch.collate(samples)


def make_distiller(tower, construction="denserc", **options) -> Distiller:
    student = DenseEncoder(deepcopy(tower), Construction.named(construction))
    foundation = build_foundation_model("colour_texture_p8")
    return Distiller(student=student, teacher=deepcopy(tower), foundation=foundation, **options)


def test_only_the_student_changes_and_gates_learn(recorded_tower):
    distiller = make_distiller(recorded_tower)
    frozen = weights_digest(distiller.teacher), weights_digest(distiller.foundation)
    before = {name: p.detach().clone() for name, p in distiller.student.named_parameters()}
    optimizer = build_optimizer(distiller.student, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6)
    for step in range(2):
        optimizer.zero_grad()
        losses = distiller(make_batch(seed=step))
        assert set(losses) == {"loss_semantics", "loss_coherence"}
        sum(losses.values()).backward()
        assert all(p.grad.abs().sum() > 0 for p in distiller.student.gates.parameters())
        optimizer.step()
    assert (weights_digest(distiller.teacher), weights_digest(distiller.foundation)) == frozen
    assert all(p.grad is None for p in [*distiller.teacher.parameters(), *distiller.foundation.parameters()])
    changed = {name for name, p in distiller.student.named_parameters() if not torch.equal(p, before[name])}
    with_gradient = {name for name, p in distiller.student.named_parameters() if p.grad is not None}
    assert changed == with_gradient
    # The last block's queries, keys and MLP are not part of DenseRC: neither gradient nor decay changes them.
    untouched = set(before) - changed
    assert untouched and all(".blocks.5." in name for name in untouched)


def test_training_mode_reaches_the_student_alone(recorded_tower):
    distiller = make_distiller(recorded_tower).eval().train()
    assert distiller.student.training
    assert not any(m.training for part in (distiller.teacher, distiller.foundation) for m in part.modules())


def test_each_term_can_be_switched_off(recorded_tower):
    batch = make_batch()
    both = make_distiller(recorded_tower)(batch)
    semantics = make_distiller(recorded_tower, coherence_weight=0.0)
    assert semantics.foundation is None
    assert semantics(batch).keys() == {"loss_semantics"}
    torch.testing.assert_close(semantics(batch)["loss_semantics"], both["loss_semantics"])
    coherence = make_distiller(recorded_tower, semantics_weight=0.0, coherence_weight=1.0)(batch)
    assert coherence.keys() == {"loss_coherence"}
    torch.testing.assert_close(0.025 * coherence["loss_coherence"], both["loss_coherence"])
    with pytest.raises(ConfigurationError, match="both are switched off"):
        make_distiller(recorded_tower, semantics_weight=0.0, coherence_weight=0.0)


def test_a_common_normalizer_adds_parts_up_to_the_whole(recorded_tower):
    distiller = make_distiller(recorded_tower, coherence_weight=0.0)
    one, two = make_batch(images=1, regions=1, seed=1), make_batch(images=1, regions=5, seed=2)
    whole = DistillationBatch(
        images=torch.cat([one.images, two.images]),
        foundation_images=torch.cat([one.foundation_images, two.foundation_images]),
        crops=torch.cat([one.crops, two.crops]),
        boxes=one.boxes + two.boxes,
        extents=torch.cat([one.extents, two.extents]),
    )
    parts = [distiller(b, normalizer=3.0)["loss_semantics"] / 2 for b in (one, two)]
    torch.testing.assert_close(sum(parts), distiller(whole)["loss_semantics"])


def test_padding_can_be_left_out_of_coherence(recorded_tower):
    batch = make_batch()
    blackened = deepcopy(batch.foundation_images)
    blackened[..., 48:] = 0  # content_mask: 0.75 of the width is image
    other = DistillationBatch(batch.images, blackened, batch.crops, batch.boxes, batch.extents)

    class Local(torch.nn.Module):
        """A tower in which each token depends only on its own patch."""

        pixels = recorded_tower.pixels

        def forward(self, images):
            return torch.nn.functional.pixel_unshuffle(images, 8)

    for mask, same in ((True, True), (False, False)):
        distiller = make_distiller(recorded_tower, mask_padding=mask)
        distiller.foundation = Local()
        given, expected = distiller(other)["loss_coherence"], distiller(batch)["loss_coherence"]
        assert torch.equal(given, expected) is same


def test_bfloat16_stays_near_float32(recorded_tower):
    exact = make_distiller(recorded_tower)(make_batch())
    rough = make_distiller(recorded_tower, autocast=torch.bfloat16)(make_batch())
    for name, loss in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], loss, rtol=5e-2, atol=1e-3)


def test_the_teacher_may_look_at_a_few_crops_at_a_time(recorded_tower):
    batch = make_batch(regions=5)
    expected = make_distiller(recorded_tower).teach(batch.crops)
    for count in (1, 4, 10, 99):
        given = make_distiller(recorded_tower, crops_per_forward=count).teach(batch.crops)
        torch.testing.assert_close(given, expected, atol=2e-6, rtol=1e-5)
    assert not expected.is_inference() and not expected.requires_grad
    with pytest.raises(ConfigurationError, match="CROPS_PER_FORWARD.*-1"):
        make_distiller(recorded_tower, crops_per_forward=-1)


def test_token_grids_must_agree(recorded_tower):
    batch = make_batch()
    smaller = DistillationBatch(batch.images, batch.images[..., :56, :56], batch.crops, batch.boxes, batch.extents)
    with pytest.raises(ConfigurationError, match=r"\(8, 8\).*\(7, 7\)"):
        make_distiller(recorded_tower)(smaller)
    assert foundation_input_size(1024, 16, 14) == 896
    with pytest.raises(ConfigurationError, match=r"992 \(.*868\) and 1008 \(.*882\)"):
        foundation_input_size(1000, 16, 14)


class Step:
    """A recorded training step of CLIPSelf or DeCLIP, on its own batch and weights."""

    def __init__(self, tower, recordings, construction, pooled_map):
        data = {name: torch.from_numpy(array) for name, array in recordings("inputs_distill").items()}
        valid = data["d_boxes"][..., 4] > 0.5
        self.images = data["d_images"]
        self.boxes = [boxes[keep, :4] for boxes, keep in zip(data["d_boxes"], valid, strict=True)]
        self.vfm = torch.from_numpy(recordings("pooling")["vfm"]).flatten(2).mT  # (B, N, C)
        self.student = DenseEncoder(deepcopy(tower), Construction.named(construction)).train()
        self.pooled_map = pooled_map
        with torch.no_grad():
            self.targets = tower.encode_image(data["d_crops"][valid])

    def content(self, dense):
        return semantics_loss(pool_regions(dense, self.boxes, self.pooled_map), self.targets)

    def loss(self):
        return self.content(self.student(self.images))

    def both(self):
        """DeCLIP's two terms, weighted: 0.1 * context, content."""
        dense, context = self.student.forward_with_context(self.images)
        target = self.vfm.repeat_interleave(context.shape[1], dim=0)
        loss = coherence_loss(context.flatten(0, 1), target, CoherenceReading.ROW_NORM)
        return 0.1 * loss, self.content(dense)

    def first_image_alone(self):
        kept = len(self.boxes[0])
        self.images, self.boxes, self.vfm = self.images[:1], self.boxes[:1], self.vfm[:1]
        self.targets = self.targets[:kept]


def test_three_steps_equal_clipselfs(recorded_tower, recordings):
    recorded = recordings("clipself_step")
    step = Step(recorded_tower, recordings, "clipself", PooledMap.NORMALIZED)
    set_trainable(step.student, Trainable.BLOCKS)
    optimizer = build_optimizer(step.student, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-8)
    for index, expected in enumerate(recorded["losses"]):
        loss = step.loss()
        assert loss.item() == pytest.approx(expected, abs=2e-6 if index == 0 else 1e-4)
        optimizer.zero_grad()
        loss.backward()
        if index == 0:
            block = step.student.tower.visual.trunk.blocks
            for name, parameter in (("5.attn.v_proj", block[5].attn.v_proj), ("0.attn.q_proj", block[0].attn.q_proj)):
                given = torch.from_numpy(recorded[f"grad/visual.blocks.{name}.weight"])
                torch.testing.assert_close(parameter.weight.grad, given, atol=3e-6, rtol=0)
            # All trainable parameters of CLIPSelf but its temperature and the last block's three unused ones.
            trained = [n for n, p in step.student.named_parameters() if p.grad is not None]
            assert len(trained) == len(recorded["grad_names"])
        optimizer.step()


def test_three_steps_equal_declips(recorded_tower, recordings):
    recorded = recordings("declip_step")
    step = Step(recorded_tower, recordings, "declip", PooledMap.RAW)
    set_trainable(step.student, Trainable.BLOCKS)
    optimizer = build_optimizer(step.student, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-8)
    for index, expected in enumerate(recorded["losses_qq"]):
        losses = step.both()
        assert [loss.item() for loss in losses] == pytest.approx(expected, abs=3e-6 if index == 0 else 1e-4)
        optimizer.zero_grad()
        sum(losses).backward()
        if index == 0:
            attn = step.student.tower.visual.trunk.blocks[5].attn
            for name, parameter in (
                ("q_proj.weight", attn.q_proj.weight),
                ("q_bias", attn.q_proj.bias),
                ("v_proj.weight", attn.v_proj.weight),
            ):
                given = torch.from_numpy(recorded[f"grad/visual.blocks.5.attn.{name}"])
                torch.testing.assert_close(parameter.grad, given, atol=3e-6, rtol=0)
            trained = [n for n, p in step.student.named_parameters() if p.grad is not None]
            assert len(trained) == len(recorded["grad_names"])
        optimizer.step()


@pytest.mark.parametrize(
    ("construction", "name"),
    [("declip_kk", "kk"), ("declip_vv", "vv"), ("declip_csa", "csa_img0"), ("declip_all", "all_img0")],
)
def test_both_terms_of_declips_other_modes(recorded_tower, recordings, construction, name):
    step = Step(recorded_tower, recordings, construction, PooledMap.RAW)
    if name.endswith("img0"):
        step.first_image_alone()
    expected = recordings("declip_step")[f"loss_{name}"]
    assert [loss.item() for loss in step.both()] == pytest.approx(expected, abs=3e-6)


def test_the_distiller_correlates_the_context_when_asked(recorded_tower):
    """Its terms are those that the recorded step is checked against, heads apart and padding left out too."""
    batch = make_batch()
    for construction, groups in (("declip", 1), ("declip_csa", recorded_tower.num_heads)):
        for mask_padding in (False, True):
            distiller = make_distiller(
                recorded_tower,
                construction,
                reading=CoherenceReading.ROW_NORM,
                coherence_features=CoherenceFeatures.CONTEXT,
                coherence_weight=0.1,
                mask_padding=mask_padding,
            )
            _, context = distiller.student.forward_with_context(normalized(batch.images, recorded_tower.pixels))
            target = distiller.observe(batch.foundation_images).flatten(2).mT.repeat_interleave(groups, dim=0)
            mask = batch.content_mask((8, 8)).flatten(1).repeat_interleave(groups, dim=0) if mask_padding else None
            expected = 0.1 * coherence_loss(context.flatten(0, 1), target, CoherenceReading.ROW_NORM, mask)
            torch.testing.assert_close(distiller(batch)["loss_coherence"], expected)


def test_target_cache_keeps_losses_and_runs_frozen_models_once(recorded_tower):
    memory = TargetMemory()
    plain = make_distiller(recorded_tower)
    expected = plain(make_batch())
    for construction in ("denserc", "clipself"):
        distiller = make_distiller(recorded_tower, construction, memory=memory)
        given = distiller(make_batch())
        if construction == "denserc":
            assert all(torch.equal(given[name], loss) for name, loss in expected.items())
    assert memory.hits == 2  # teacher and foundation model of the second run
    other = deepcopy(recorded_tower)
    torch.nn.init.zeros_(other.visual.trunk.cls_token)  # another teacher has other answers
    make_distiller(other, memory=memory)(make_batch())
    assert memory.hits == 3
    make_distiller(recorded_tower, memory=memory)(make_batch(seed=1))
    assert memory.hits == 3
    full = TargetMemory(limit=0)
    make_distiller(recorded_tower, memory=full)(make_batch())
    assert full.used == 0
