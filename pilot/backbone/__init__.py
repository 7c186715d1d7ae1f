"""The frozen multimodal LLM, its LoRA, its features, and tiny-llava's pre-training."""
