"""The table of all methods by family, in the order in which pages list them and figures colour them.

A new method needs its file and a line here. Reading the table imports no method; `pilot.registry` creates them.
A method of another package is listed under Others and coloured by its name. A test compares the table of
families in docs/studies.md with this file.
"""

from pilot.methods.plugins import plugins

CORE, REFERENCES, OTHERS = "Core", "References", "Others"
FAMILIES: dict[str, dict[str, str]] = {
    CORE: {
        "pilot": "pilot.methods.pilot:Pilot",
        "fedavg": "baselines.fedavg:FedAvg",
        "fedprox": "baselines.fedprox:FedProx",
        "fedmoe": "baselines.fedmoe:FedMoE",
    },
    "Server optimisers, drift": {
        "fedavgm": "baselines.fedavgm:FedAvgM",
        "fedadam": "baselines.fedadam:FedAdam",
        "fedyogi": "baselines.fedyogi:FedYogi",
        "fedadagrad": "baselines.fedadagrad:FedAdagrad",
        "scaffold": "baselines.scaffold:Scaffold",
        "feddyn": "baselines.feddyn:FedDyn",
    },
    "Personalised": {
        "ditto": "baselines.ditto:Ditto",
        "fedper": "baselines.fedper:FedPer",
        "pfedme": "baselines.pfedme:PFedMe",
        "feddat": "baselines.feddat:FedDat",
        "fedmosaic": "baselines.fedmosaic:FedMosaic",
        "fedalt": "baselines.fedalt:FedAlt",
        "fedlease": "baselines.fedlease:FedLease",
        "feddpa": "baselines.feddpa:FedDpa",
        "disco": "baselines.disco:Disco",
    },
    "LoRA-aware": {
        "fedit": "baselines.fedit:FedIT",
        "ffa_lora": "baselines.ffa_lora:FfaLora",
        "fedsa_lora": "baselines.fedsa_lora:FedSaLora",
        "flora": "baselines.flora:Flora",
        "flexlora": "baselines.flexlora:FlexLora",
        "fedex_lora": "baselines.fedex_lora:FedExLora",
        "hetlora": "baselines.hetlora:HetLora",
        "rolora": "baselines.rolora:RoLora",
        "lora_a2": "baselines.lora_a2:LoraA2",
        "fedrot_lora": "baselines.fedrot_lora:FedRotLora",
        "florist": "baselines.florist:Florist",
        "fedsvd": "baselines.fedsvd:FedSvd",
        "lora_fair": "baselines.lora_fair:LoraFair",
        "fedilora": "baselines.fedilora:FediLora",
        "shared_subset": "baselines.shared_subset:SharedSubset",
        "yoco_lite": "baselines.yoco_lite:YocoLite",
    },
    "Asynchronous": {
        "fedasync": "baselines.fedasync:FedAsync",
        "fedbuff": "baselines.fedbuff:FedBuff",
        "fedasmu": "baselines.fedasmu:FedAsmu",
    },
    "By task": {
        "taskavg": "baselines.taskavg:TaskAvg",
        "clustered": "baselines.clustered:Clustered",
        "taskavg_plus": "baselines.taskavg_plus:TaskAvgPlus",
    },
    "Variants of Pilot, ours": {
        "pilot_fedavg_text": "baselines.pilot_fedavg_text:PilotFedAvgText",
        "pilot_exact_ata": "baselines.pilot_exact_ata:PilotExactAta",
        "pilot_shared_a": "baselines.pilot_shared_a:PilotSharedA",
        "pilot_task_text": "baselines.pilot_task_text:PilotTaskText",
        "pilot_gap_ata": "baselines.pilot_gap_ata:PilotGapAta",
        "pilot_momentum": "baselines.pilot_momentum:PilotMomentum",
    },
    REFERENCES: {
        "local": "baselines.local:Local",
        "central": "baselines.central:Central",
        "full": "baselines.full:Full",
        "untuned": "baselines.untuned:Untuned",
        "majority": "baselines.majority:Majority",
    },
}
"""Family -> method -> the method's module and class."""

METHODS = {name: place for family in FAMILIES.values() for name, place in family.items()}


def family_of(name: str) -> str:
    """Return the family of a method, or of a variant of one; `Others` for methods of other packages."""
    method = name.partition("+")[0]
    return next((family for family, names in FAMILIES.items() if method in names), OTHERS)


def known_methods() -> list[str]:
    """Return the names of all methods, those of other packages last."""
    return list(dict.fromkeys([*METHODS, *plugins()]))


def method_module(name: str) -> str:
    """Return the module of a method of this package."""
    return METHODS[name].partition(":")[0]
