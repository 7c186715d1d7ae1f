"""pilot-bench: federated multimodal instruction tuning, trained and evaluated reproducibly."""
