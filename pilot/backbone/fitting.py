"""Compatibility checks of a checkpoint before any weight is read; the first problem is reported in one message.

Supported backbones have a CLIP vision tower, LLaVA's projector (two linear layers, GELU) and a language model whose
layers have Llama's names and no biases. The checks read JSON files and the headers of safetensors files only.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pilot.backbone.paths import INDEX, WEIGHTS
from pilot.errors import UserError
from pilot.io.text import decode, parse_json

Problem = tuple[str, str]
"""Name of a file, and a text that says what is wrong with it and what to do."""

CONVERT = (
    "found only tokenizer.model, which is in SentencePiece's format. Convert it once, in a separate environment with "
    "`pip install 'transformers<5' sentencepiece protobuf` (version 5 loses the space before a text): "
    'python -c "from transformers import AutoTokenizer; '
    "AutoTokenizer.from_pretrained('FOLDER').save_pretrained('FOLDER')\""
)
_PROJECTOR = {"projector_hidden_act": "gelu", "multimodal_projector_bias": True}
_STRATEGIES = ("default", "full")


def check_checkpoint(folder: Path) -> None:
    """Check a checkpoint's configuration, tokenizer, image processor and list of weights.

    Raises:
        UserError: something is missing, unreadable, or of another architecture; names the file and what to do.
    """
    for name, text in _problems(folder):
        raise UserError(f"{folder / name}: {text}.")


def _problems(folder: Path) -> Iterator[Problem]:
    config, problem = _read(folder, "config.json")
    if problem:
        yield problem
        return
    yield from _architecture(config)
    yield from _tokenizer(folder)
    yield from _processor(folder, config)
    yield from _weights(folder)


def _read(folder: Path, name: str) -> tuple[Mapping[str, Any], Problem | None]:
    """Read a JSON object; return it, or an empty one with the problem of its file."""
    try:
        value = parse_json(decode((folder / name).read_bytes()))
    except (OSError, ValueError) as error:
        return {}, (name, f"cannot be read ({error}). Copy it from the checkpoint's source again")
    return (value, None) if isinstance(value, dict) else ({}, (name, "expected a JSON object"))


def _architecture(config: Mapping[str, Any]) -> Iterator[Problem]:
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    layer, depth = config.get("vision_feature_layer", -2), vision.get("num_hidden_layers", 24)
    layers = layer if isinstance(layer, list) else [layer]
    checks = [
        ("model_type", config.get("model_type"), "'llava' (LLaVA-1.5's layout)", config.get("model_type") == "llava"),
        (
            "vision_config.model_type", kind := vision.get("model_type", "clip_vision_model"),
            "'clip_vision_model': other towers, such as SigLIP, have no class token and other features",
            kind == "clip_vision_model",
        ),
        *(
            (name, found := config.get(name, expected), f"{expected!r}, as LLaVA-1.5's projector", found == expected)
            for name, expected in _PROJECTOR.items()
        ),
        *(
            (f"text_config.{name}", bias := text.get(name, False), "false: LoRA needs layers without biases", not bias)
            for name in ("attention_bias", "mlp_bias")
        ),
        (
            "vision_feature_select_strategy", strategy := config.get("vision_feature_select_strategy", "default"),
            f"one of {', '.join(_STRATEGIES)}", strategy in _STRATEGIES,
        ),
        (
            "vision_feature_layer", layer, f"a layer, or a list of layers, within -{depth + 1}..{depth}",
            bool(layers) and all(type(each) is int and -depth - 1 <= each <= depth for each in layers),
        ),
        (
            "quantization_config", config.get("quantization_config"), "weights that are not quantised",
            config.get("quantization_config") is None,
        ),
    ]  # fmt: skip
    for field, found, expected, fits in checks:
        if not fits:
            yield "config.json", f"field {field}: expected {expected}, got {found!r}. Choose another checkpoint"


def _tokenizer(folder: Path) -> Iterator[Problem]:
    if not (folder / "tokenizer.json").is_file():
        if (folder / "tokenizer.model").is_file():
            yield "tokenizer.json", f"missing; {CONVERT.replace('FOLDER', str(folder))}"
        else:
            yield "tokenizer.json", "missing: no tokenizer in this checkpoint. Copy it from the weights' source"
    if not (folder / "tokenizer_config.json").is_file():
        yield "tokenizer_config.json", "missing. Copy it from the weights' source"


def _processor(folder: Path, config: Mapping[str, Any]) -> Iterator[Problem]:
    name = "preprocessor_config.json"
    if not (folder / name).is_file():
        nested, _ = (
            _read(folder, "processor_config.json") if (folder / "processor_config.json").is_file() else ({}, None)
        )
        if "image_processor" not in nested:
            yield name, "missing: it defines the preprocessing of images. Copy it from the weights' source"
            return
        settings, problem = nested["image_processor"], None
        name = "processor_config.json"
    else:
        settings, problem = _read(folder, name)
    if problem:
        yield problem
        return
    side = (config.get("vision_config") or {}).get("image_size", 336)
    field = "crop_size" if settings.get("do_center_crop", True) else "size"
    size = settings.get(field)
    sides = {size} if isinstance(size, int) else set((size or {}).values())
    if sides and sides != {side}:
        expected = f"{side} pixels, the vision tower's image_size"
        yield name, f"field {field}: expected {expected}, got {size!r}. Copy the checkpoint's original file"


def _weights(folder: Path) -> Iterator[Problem]:
    files = [WEIGHTS]
    if not (folder / WEIGHTS).is_file():
        index, problem = _read(folder, INDEX)
        if problem:
            yield problem
            return
        places = index.get("weight_map")
        if not isinstance(places, dict) or not places:
            yield INDEX, "expected the field weight_map with a file for every tensor"
            return
        files = sorted(set(places.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        yield missing[0], f"missing: {len(missing)} of {len(files)} files that {INDEX} names. Download them again"
        return
    for name in files:
        yield from _tensors(folder, name)


def _tensors(folder: Path, name: str) -> Iterator[Problem]:
    """Yield the problems of one weights file, found in its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / name, framework="np") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        yield name, f"incomplete or damaged safetensors file ({error}). Download it again"
        return
    biases = [each for each in names if "language_model" in each and each.endswith("_proj.bias")]
    if biases:
        yield name, f"tensor {biases[0]}: LoRA needs layers without biases, as in Llama. Choose another checkpoint"
