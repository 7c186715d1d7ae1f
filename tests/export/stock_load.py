"""Loads an export as its card says and answers a picture; run by environments with other versions of transformers.

Usage: stock_load.py FOLDER PICTURE OUTPUT. Imports nothing of this suite.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoTokenizer, LlavaForConditionalGeneration, LlavaProcessor


def main(folder: str, picture: str, output: str) -> None:
    """Write ids, pixels, logits and the answer's ids; print the version and the answer."""
    processor = LlavaProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": "Is there a dog?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    begins = text.startswith(processor.tokenizer.bos_token)
    inputs = processor(images=Image.open(picture), text=text, return_tensors="pt", add_special_tokens=not begins)
    model, info = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
        answer = model.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    assert AutoTokenizer.from_pretrained(folder)("Is there a dog?")["input_ids"]
    np.savez(
        Path(output), ids=inputs["input_ids"].numpy(), pixels=inputs["pixel_values"].numpy(), logits=logits.numpy(),
        answer=answer.numpy(),
    )  # fmt: skip
    print(f"transformers {transformers.__version__}: {processor.decode(answer, skip_special_tokens=True)!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
