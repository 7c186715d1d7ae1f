"""The sources that are read from official files or from the hub, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.data.readers import (
    aokvqa,
    coco_2017,
    coco_karpathy,
    flickr30k,
    gqa,
    hub,
    ocr_vqa,
    okvqa,
    refcoco,
    textcaps,
    textvqa,
    vqa_official,
)
from pilot.data.rows import Rows
from pilot.settings import Model

_COCO = "COCO images under the terms of their Flickr owners (https://cocodataset.org/#termsofuse)"


@dataclass(frozen=True)
class OfficialSource:
    """A source of official files.

    Attributes:
        read: `read(options, root, split)`.
        options_model: what the task's `options` must look like.
        kind: `vqa`, `caption` or `ground`; None where the options say it.
        origin: who made the data and where they come from.
        licence: of annotations and images, as far as their pages say.
    """

    read: Callable[[Any, Path, str], Rows]
    options_model: type[Model]
    kind: str | None
    origin: str
    licence: str


OFFICIAL: dict[str, OfficialSource] = {
    "vqav2": OfficialSource(
        vqa_official.read,
        vqa_official.Options,
        "vqa",
        "VQA v2.0 (Goyal et al. 2017), https://visualqa.org/download.html",
        f"annotations CC BY 4.0; {_COCO}",
    ),
    "okvqa": OfficialSource(
        okvqa.read,
        okvqa.Options,
        "vqa",
        "OK-VQA (Marino et al. 2019), https://okvqa.allenai.org/download.html",
        f"annotations: not stated in the files, ask the authors; {_COCO}",
    ),
    "aokvqa": OfficialSource(
        aokvqa.read,
        aokvqa.Options,
        "vqa",
        "A-OKVQA (Schwenk et al. 2022), https://github.com/allenai/aokvqa",
        f"repository Apache-2.0; {_COCO}",
    ),
    "textvqa": OfficialSource(
        textvqa.read,
        textvqa.Options,
        "vqa",
        "TextVQA 0.5.1 (Singh et al. 2019), https://textvqa.org/dataset",
        "annotations CC BY 4.0; Open Images photographs under their owners' CC BY 2.0",
    ),
    "gqa": OfficialSource(
        gqa.read,
        gqa.Options,
        "vqa",
        "GQA (Hudson and Manning 2019), https://cs.stanford.edu/people/dorarad/gqa/download.html",
        "stated differently by its page and by copies on the hub (CC BY 4.0, MIT): check; Visual Genome images",
    ),
    "ocr-vqa": OfficialSource(
        ocr_vqa.read,
        ocr_vqa.Options,
        "vqa",
        "OCR-VQA (Mishra et al. 2019), https://ocr-vqa.github.io",
        "annotations: research use, check the page; book covers belong to their publishers",
    ),
    "coco-karpathy": OfficialSource(
        coco_karpathy.read,
        coco_karpathy.Options,
        "caption",
        "COCO Captions 2014 (Chen et al. 2015), split of Karpathy and Fei-Fei 2015, "
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        f"captions CC BY 4.0; {_COCO}",
    ),
    "coco-2017": OfficialSource(
        coco_2017.read,
        coco_2017.Options,
        "caption",
        "COCO Captions 2017 (Chen et al. 2015), https://cocodataset.org/#download",
        f"captions CC BY 4.0; {_COCO}",
    ),
    "textcaps": OfficialSource(
        textcaps.read,
        textcaps.Options,
        "caption",
        "TextCaps 0.1 (Sidorov et al. 2020), https://textvqa.org/textcaps/dataset",
        "annotations CC BY 4.0; Open Images photographs under their owners' CC BY 2.0",
    ),
    "flickr30k": OfficialSource(
        flickr30k.read,
        flickr30k.Options,
        "caption",
        "Flickr30k (Young et al. 2014), https://shannon.cs.illinois.edu/DenotationGraph/",
        "captions and images for non-commercial research and education; images belong to their Flickr owners",
    ),
    "refcoco": OfficialSource(
        refcoco.read,
        refcoco.Options,
        "ground",
        "RefCOCO, RefCOCO+, RefCOCOg (Yu et al. 2016, Mao et al. 2016), https://github.com/lichengunc/refer",
        f"annotations: not stated in the files, ask the authors; {_COCO}",
    ),
    "hub": OfficialSource(
        hub.read,
        hub.Options,
        None,
        "a data set of https://huggingface.co at the revision in the options",
        "that of the data set: see its card",
    ),
}
