"""Export of models with the backbone's own connector, in formats that transformers and PEFT read by themselves."""

import gc
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from pilot.backbone.language import GROUP as LANGUAGE
from pilot.backbone.lora import GROUP, TARGETS, to_peft
from pilot.backbone.offsets import GROUP as OFFSETS
from pilot.backbone.random_llava import hub_name
from pilot.backbone.sources import checkpoint_folder
from pilot.errors import UserError
from pilot.export.source import TrainedModel
from pilot.io.atomic import write_bytes, write_json
from pilot.methods.base import State, group_of, select

SHARD_SIZE = "5GB"


def write_merged(trained: TrainedModel, folder: Path, shard_size: str = SHARD_SIZE) -> list[str]:
    """Write a checkpoint of the family's class: W + (alpha / r) (D + B A) in float32, then the base's dtype.

    Hu et al. 2021, arXiv 2106.09685, section 4.1; D is the offset of methods that have one
    (`pilot.backbone.offsets`). The projector is the client's connector, and W the client's own where a method trains
    the whole LLM. Tensors are named as in published checkpoints.

    Returns:
        Notes for the model card: what rounding to another type than float32 lost.

    Raises:
        UserError: the base's checkpoint is not on disk (`llava-random` that was created in memory).
    """
    path = checkpoint_folder(trained.spec.profile)
    if not path.is_dir():
        raise UserError(
            f"{path}: no checkpoint of {trained.spec.profile.backbone} to merge into. Set materialise: true in the "
            "profile's architecture, or export with --adapter."
        )
    family = trained.backbone.family
    model = family.classes()[0].from_pretrained(path, local_files_only=True, dtype="auto")
    with torch.no_grad():
        lost = _merge(trained, model)
        for name, value in projector_of(trained).items():
            model.get_parameter(name).copy_(value)
    if family.model_type == "llava":
        # transformers 4 does not know version 5's names of the vision tower and would initialise it at random.
        tensors = {hub_name(name): value.detach() for name, value in model.named_parameters()}
        model.save_pretrained(folder, state_dict=tensors, save_original_format=False, max_shard_size=shard_size)
    else:
        model.save_pretrained(folder, max_shard_size=shard_size)
    kind = str(model.dtype).removeprefix("torch.")
    del model
    gc.collect()
    if not lost:
        return []
    return [
        f"Rounding the merged weights to {kind} lost {lost:.1%} of the change by training (norm of the rounding errors "
        "relative to the norm of the change). In training the change is stored separately from the weights."
    ]


def _merge(trained: TrainedModel, model: Any) -> float:
    """Merge LoRA and offsets into the LLM's weights; return the share of the change that rounding loses."""
    wanted = lost = 0.0
    language = model.get_submodule(trained.backbone.family.language)
    for name, value in select(trained.state, {LANGUAGE}).items():
        path = name.removeprefix(f"{LANGUAGE}.")
        own = (model if path.startswith("lm_head.") else language).get_parameter(path)
        before = own.float().clone()
        own.copy_(value)
        wanted += float((value - before).square().sum())
        lost += float((value - own.float()).square().sum())
    for name, lora_a in lora_a_by_layer(trained.state).items():
        lora_b = trained.state[f"{GROUP}.{name}.lora_B"]
        weight = language.get_submodule(name).weight
        base = frozen = weight.float().clone()
        if (offset := trained.state.get(f"{OFFSETS}.{name}.weight")) is not None:
            frozen = frozen.add(offset, alpha=trained.scale)
        merged = torch.addmm(frozen, lora_b.float(), lora_a.float(), alpha=trained.scale)
        weight.copy_(merged)
        wanted += float((merged - base).square().sum())
        lost += float((merged - weight.float()).square().sum())
    return (lost / wanted) ** 0.5 if wanted else 0.0


def write_adapter(trained: TrainedModel, folder: Path) -> list[str]:
    """Write an adapter for `PeftModel.from_pretrained(base, folder)`: LoRA, and the connector in `modules_to_save`.

    Raises:
        UserError: the method changed the LLM's weights, which an adapter does not hold.
    """
    if any(group_of(name) == LANGUAGE for name in trained.state):
        raise UserError(
            f"{trained.run_dir}: --adapter: method {trained.spec.method} trained the whole LLM, which a PEFT adapter "
            "cannot contain. Omit the option to export a merged checkpoint."
        )
    if any(bool(value.any()) for name, value in trained.state.items() if group_of(name) == OFFSETS):
        raise UserError(
            f"{trained.run_dir}: --adapter: method {trained.spec.method} added offsets to the frozen weights, which a "
            "PEFT adapter cannot contain. Omit the option to export a merged checkpoint."
        )
    from safetensors.torch import save

    lora, family = trained.spec.profile.lora, trained.backbone.family
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides it by r, an integer or not
        lora_dropout=0.0,
        bias="none",
        target_modules=rf".*{family.language.rsplit('.', 1)[-1]}.*\.({'|'.join(TARGETS)})",
        modules_to_save=_saved_modules(trained),
        task_type="CAUSAL_LM",
        base_model_name_or_path=trained.base_name,
        revision=trained.spec.profile.revision,
        inference_mode=True,
    )
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    write_json(folder / "adapter_config.json", values)
    projector = {f"base_model.model.{name}": value for name, value in projector_of(trained).items()}
    lora_values = to_peft(trained.state, family.language)
    tensors = {name: value.contiguous() for name, value in sorted((lora_values | projector).items())}
    write_bytes(folder / "adapter_model.safetensors", save(tensors, metadata={"format": "pt"}))
    return []


def lora_a_by_layer(state: State) -> dict[str, torch.Tensor]:
    """Return `lora_A` (r, in) by the path of its layer in the LLM."""
    names = [name for name in state if name.startswith(f"{GROUP}.") and name.endswith(".lora_A")]
    return {name.removeprefix(f"{GROUP}.").removesuffix(".lora_A"): state[name] for name in names}


def projector_of(source: TrainedModel) -> State:
    """Return the single connector's parameters by their paths in transformers' model."""
    paths = {f"linear_{number}": path for number, path in enumerate(source.backbone.family.connector, start=1)}
    own = [name.split(".") for name in source.state if name.startswith("connector.")]
    return {f"{paths[layer]}.{kind}": source.state[f"connector.{layer}.{kind}"] for _, layer, kind in own}


def _saved_modules(source: TrainedModel) -> list[str]:
    """Return PEFT's names of the connector: the module that holds its layers and nothing else, or each layer."""
    paths = source.backbone.family.connector
    parent = paths[0].rpartition(".")[0]
    held = {f"{parent}.{name}" for name, _ in source.backbone.model.get_submodule(parent).named_parameters()}
    if held == projector_of(source).keys():
        last = parent.rpartition(".")[2]
        alone = sum(name.rpartition(".")[2] == last for name, _ in source.backbone.model.named_modules()) == 1
        return [last if alone else parent.removeprefix("model.")]
    return [path.removeprefix("model.") for path in paths]
