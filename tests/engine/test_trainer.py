"""The step that both stages share, on a module whose gradient is its input's mean."""

import math

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from denserc.engine import StepTrainer
from denserc.engine.solver import ExportedWeights, TrainedAverage


class Trainer(StepTrainer):
    """Batches are tensors (n, 2); the loss is the mean of the module's outputs."""

    def losses(self, batch):
        return {"loss": self.model(batch).mean()}

    def snapshot(self, batch):
        return {"batch": batch}, len(batch)


@pytest.fixture()
def run_steps(tmp_path):
    def run(batches, **options):
        torch.manual_seed(0)
        module = nn.Linear(2, 1)
        images = sum(len(one) for one in batches)
        trainer = Trainer(
            model=module,
            batches=batches,
            optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
            device=torch.device("cpu"),
            images_per_step=images,
            failures=tmp_path,
            average=TrainedAverage(module, decay=0.5, exported=ExportedWeights.AVERAGE),
            **options,
        )
        with EventStorage() as trainer.storage:
            trainer.run_step()
        return trainer

    return run


IMAGES = torch.tensor([[1.0, 2.0], [3.0, 5.0], [-1.0, 4.0], [0.0, 8.0]])


def test_accumulated_batches_are_the_step_of_the_large_one(run_steps):
    whole, halves = run_steps([IMAGES]), run_steps([IMAGES[:2], IMAGES[2:]], accumulate=2)
    torch.testing.assert_close(whole.module.weight, halves.module.weight)
    assert halves.images_drawn == 4 and halves.average.updates == 1
    one, two = (trainer.storage.latest()["loss"][0] for trainer in (whole, halves))
    assert one == pytest.approx(two)


def test_the_norm_of_all_gradients_together_is_limited(run_steps):
    free, limited = run_steps([IMAGES]), run_steps([IMAGES], clip_norm=0.5)
    gradients = [torch.cat([p.grad.flatten() for p in one.module.parameters()]) for one in (free, limited)]
    torch.testing.assert_close(gradients[1].norm(), torch.tensor(0.5))
    torch.testing.assert_close(gradients[1], gradients[0] * 0.5 / gradients[0].norm(), atol=1e-5, rtol=0)


def test_loss_that_is_not_finite_stops_before_weights_change(run_steps, tmp_path):
    broken = IMAGES.clone()
    broken[3, 0] = math.nan
    with pytest.raises(FloatingPointError, match="Step 1, process 0: the loss is not finite.*nan_batch_step1_rank0.pt"):
        run_steps([broken[:2], broken[2:]], accumulate=2, images_drawn=8, seed=5)
    saved = torch.load(tmp_path / "nan_batch_step1_rank0.pt", weights_only=True)
    assert saved["draws"] == [[8, 9], [10, 11]] and saved["seed"] == 5
    torch.testing.assert_close(saved["batches"][1]["batch"], broken[2:], equal_nan=True)
    assert math.isfinite(saved["losses"][0]["loss"]) and math.isnan(saved["losses"][1]["loss"])


def test_a_scale_that_overflows_skips_the_step(run_steps):
    trainer = run_steps([IMAGES], scaler=torch.amp.GradScaler("cpu", init_scale=2.0**127))
    assert trainer.skipped_steps == 1 and trainer.average.updates == 0
    assert trainer.scaler.get_scale() == 2.0**126
