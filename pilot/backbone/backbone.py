"""The frozen multimodal LLM with its LoRA: prompts, features, loss and answers.

A sequence is `<s> before [image tokens] after answer </s>`, where `before` and `after` are the parts of the filled
prompt template around `<image>`. Connectors live outside: whoever calls gives image tokens or a function for them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer, CLIPImageProcessorPil, LlavaForConditionalGeneration

from pilot.backbone.generation import by_length, greedy
from pilot.backbone.lora import attach, merged
from pilot.connector.mlp import Mlp
from pilot.errors import UserError

IMAGE_PLACEHOLDER = "<image>"
IGNORED = -100
GENERATION_BATCH = 96


class Backbone:
    """A frozen Llava model from transformers, its tokenizer and processor, and one LoRA inside its LLM."""

    def __init__(self, path: Path, *, rank: int, alpha: float, prompt_template: str) -> None:
        if not (path / "config.json").is_file():
            raise UserError(f"{path}: no checkpoint here. Build it with `snakemake --cores 2 backbone`.")
        model = LlavaForConditionalGeneration.from_pretrained(path, local_files_only=True, attn_implementation="eager")
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self.processor = CLIPImageProcessorPil.from_pretrained(path, local_files_only=True)
        self.language_model: nn.Module = self.model.model.language_model
        self.lm_head: nn.Module = self.model.lm_head
        self.embed: nn.Module = self.model.get_input_embeddings()
        self.end: int = self.tokenizer.eos_token_id
        self.begin: int = self.tokenizer.bos_token_id
        self.num_language_parameters = sum(p.numel() for p in self.language_model.parameters())
        self.text_adapter = attach(self.language_model, rank, alpha)
        before, self._after = prompt_template.split(IMAGE_PLACEHOLDER)
        self._before = torch.tensor([self.begin, *self.tokenizer(before, add_special_tokens=False)["input_ids"]])

    def projector(self) -> Mlp:
        """A copy of the backbone's own pre-trained connector."""
        own = self.model.model.multi_modal_projector
        copy = Mlp(own.linear_1.in_features, own.linear_2.out_features)
        copy.load_state_dict(own.state_dict(), strict=True)
        return copy.requires_grad_(False)

    def load_text_adapter(self, state: dict[str, Tensor]) -> None:
        """Set the LoRA to `state`; every name must be there, and no other.

        Raises:
            ValueError: a missing or unexpected name, or another shape.
        """
        if state.keys() != self.text_adapter.keys():
            difference = sorted(state.keys() ^ self.text_adapter.keys())[:3]
            raise ValueError(f"text adapter does not fit this backbone: {difference}")
        with torch.no_grad():
            for name, parameter in self.text_adapter.items():
                if parameter.shape != state[name].shape:
                    raise ValueError(f"{name}: shape {tuple(state[name].shape)}, expected {tuple(parameter.shape)}")
                parameter.copy_(state[name])

    def image_features(self, images: Sequence[Image.Image]) -> Tensor:
        """Patch features (M, N, D) of the second-to-last vision layer, without the class token.

        Images that are not square are padded to a square with the processor's mean colour, as LLaVA-1.5 does.
        """
        parts = []
        for start in range(0, len(images), GENERATION_BATCH):
            squares = [self._square(image) for image in images[start : start + GENERATION_BATCH]]
            pixels = self.processor(squares, return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                output = self.model.model.vision_tower(pixels, output_hidden_states=True)
            parts.append(output.hidden_states[self.model.config.vision_feature_layer][:, 1:])
        return torch.cat(parts)

    def prompt_ids(self, instruction: str) -> list[int]:
        """Ids of the prompt after the image."""
        text = self._after.replace("{instruction}", instruction)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer with its end token."""
        return [*self.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"], self.end]

    def cross_entropy(self, image_tokens_BNC: Tensor, ids_BL: Tensor, labels_BL: Tensor) -> Tensor:
        """Mean cross-entropy over the labelled tokens; `ids` follow the image, right-padded.

        Padding stands after everything that is labelled, so causal attention needs no mask; logits are computed
        for labelled tokens only.
        """
        inputs = self._inputs(image_tokens_BNC, ids_BL)
        hidden = self.language_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        hidden = hidden[:, inputs.shape[1] - ids_BL.shape[1] - 1 : -1]
        kept = labels_BL != IGNORED
        return functional.cross_entropy(self.lm_head(hidden[kept]), labels_BL[kept])

    def answer(
        self,
        image_tokens: Callable[[list[int]], Tensor],
        prompts: Sequence[str],
        max_new_tokens: int,
    ) -> list[str]:
        """Greedy answers to `prompts` (instructions); `image_tokens(rows)` gives (len(rows), N, C)."""
        ids = [self.prompt_ids(prompt) for prompt in prompts]
        answers = [""] * len(prompts)
        with torch.no_grad(), merged(self.language_model):
            for rows in by_length([len(row) for row in ids], GENERATION_BATCH):
                inputs = self._inputs(image_tokens(rows), torch.tensor([ids[row] for row in rows]))
                tokens = greedy(
                    self.language_model, self.lm_head, self.embed, inputs, max_new_tokens=max_new_tokens, end=self.end
                )
                for row, answer in zip(rows, tokens, strict=True):
                    answers[row] = str(self.tokenizer.decode(answer, skip_special_tokens=True)).strip()
        return answers

    def _inputs(self, image_tokens_BNC: Tensor, ids_BL: Tensor) -> Tensor:
        lead = self.embed(self._before).expand(len(ids_BL), -1, -1)
        return torch.cat([lead, image_tokens_BNC, self.embed(ids_BL)], dim=1)

    def _square(self, image: Image.Image) -> Image.Image:
        if image.width == image.height:
            return image.convert("RGB")
        side = max(image.size)
        red, green, blue = (int(255 * value) for value in self.processor.image_mean)
        square = Image.new("RGB", (side, side), (red, green, blue))
        square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
        return square
