"""The methods by family, in the order in which pages show them and figures colour them.

A new method stands here only to be placed: one that does not is shown among others and coloured by its name. The
README's table of families is tested against this file.
"""

CORE, REFERENCES, OTHERS = "Core", "References", "Others"
FAMILIES: dict[str, tuple[str, ...]] = {
    CORE: ("pilot", "fedavg", "fedprox", "fedmoe"),
    "Server optimisers, drift": ("fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold", "feddyn"),
    "Personalised": ("ditto", "fedper", "pfedme", "feddat", "fedmosaic"),
    "LoRA-aware": ("fedit", "ffa_lora", "fedsa_lora", "flora", "flexlora", "fedex_lora", "hetlora"),
    "By task": ("taskavg", "clustered"),
    "Variants of Pilot, ours": (
        *("pilot_fedavg_text", "pilot_exact_ata", "pilot_shared_a", "pilot_task_text", "pilot_gap_ata"),
        "pilot_momentum",
    ),
    REFERENCES: ("local", "central", "untuned", "majority"),
}
