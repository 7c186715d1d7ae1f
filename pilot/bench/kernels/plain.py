"""The plain side of `bench train-step`, set up with the weights and batches of our side."""

import io
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image
from torch import Tensor, nn

from pilot.backbone.backbone import Backbone
from pilot.backbone.families.llava import Llava
from pilot.backbone.lora import GROUP, to_peft
from pilot.backbone.numerics import default_matmul_precision
from pilot.backbone.sources import checkpoint_folder
from pilot.bench.kernels.references import reference
from pilot.bench.kernels.steps import OurSteps
from pilot.config.profile import Profile
from pilot.data.record import InstructionRecord
from pilot.federation.client import PhaseTask

Connect = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]


class PlainSteps:
    """Stock model, PEFT and AdamW with PyTorch's default precision of matrix products, same weights and batches.

    Args:
        profile: profile with the checkpoint and the LoRA settings.
        ours: our side, whose weights and batches are used.
    """

    def __init__(self, profile: Profile, ours: OurSteps) -> None:
        plain, backbone, run = reference("train_step"), ours.backbone, ours.run
        parameters = {
            name: nn.Parameter(value.clone(), requires_grad=name in run.trainable)
            for name, value in run.start.items()
            if name.split(".", 1)[0] != GROUP
        }
        rates = ours.rates.of_phase(run.task.phase.name)
        self.trainer = plain.Trainer(
            checkpoint_folder(profile), (profile.lora.rank, profile.lora.alpha, to_peft(run.start)),
            _connect(parameters, run.task), [value for value in parameters.values() if value.requires_grad],
            run.task.phase.loss_weights,
            plain.Rates(
                rates["text_adapter"], rates["connector"], ours.num_steps, profile.warmup_fraction,
                profile.weight_decay, profile.max_grad_norm,
            ),
            backbone.eos_id,
        )  # fmt: skip
        self.batches = [[_example(plain, backbone, record) for record in batch] for batch in ours.stream.batches]
        self.done, self.num_steps = 0, ours.num_steps

    def call(self) -> list[float]:
        """Take one step on each batch; return the losses before the updates."""
        losses = []
        with default_matmul_precision():
            for examples in self.batches:
                losses.append(self.trainer.step(self.done % self.num_steps, examples))
                self.done += 1
        return losses


def _connect(parameters: Mapping[str, Tensor], task: PhaseTask) -> Connect:
    """Return the method's connector in the phase, written from its equations."""
    moa, difference = reference("ct_moa"), reference("difference_loss")
    num_tasks, own_task = len(task.info.tasks), task.info.tasks.index(task.info.task)

    def plain(features_BND: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return moa.mlp(parameters, "connector", features_BND), {}

    def stage1(features_BND: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x_t_BNC, x_s_BNC = (moa.mlp(parameters, f"{who}_adapter", features_BND) for who in ("task", "client"))
        return x_t_BNC + x_s_BNC, {"difference": difference.difference_loss(x_t_BNC, x_s_BNC)}

    def stage2(features_BND: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        result: tuple[Tensor, dict[str, Tensor]] = moa.forward(parameters, features_BND, own_task, num_tasks)
        return result

    return {"train": plain, "stage1": stage1, "stage2": stage2}[task.phase.name]


def _example(plain: Any, backbone: Backbone, record: InstructionRecord) -> Any:
    """Build pixels and ids as the stock processor does."""
    image = Image.open(io.BytesIO(record.image))
    assert isinstance(backbone.family, Llava), "the benchmark is of LLaVA"
    square = backbone.family.square(image.convert("RGB"))
    pixels = backbone.processor([square], return_tensors="pt")["pixel_values"][0]
    num_patches, _ = backbone.feature_shape
    placeholders = [backbone.model.config.image_token_id] * num_patches
    answer = backbone.answer_ids(record.answer)
    ids = [*backbone._prefix_ids.tolist(), *placeholders, *backbone.prompt_ids(record.instruction), *answer]
    return plain.Example(pixels, ids, len(answer))
