"""Sources that are read from official files or from the hub, by name."""

from pilot.data.readers import (
    aokvqa,
    coco_2017,
    coco_karpathy,
    flickr30k,
    gqa,
    ocr_vqa,
    okvqa,
    refcoco,
    textcaps,
    textvqa,
    vqa_official,
)
from pilot.data.readers.file_source import FileSource
from pilot.data.readers.hub import reader as hub

_COCO = "COCO images under the terms of their Flickr owners (https://cocodataset.org/#termsofuse)"


OFFICIAL: dict[str, FileSource] = {
    "vqav2": FileSource(
        vqa_official.read,
        vqa_official.Options,
        "vqa",
        "VQA v2.0 (Goyal et al. 2017), https://visualqa.org/download.html",
        f"annotations CC BY 4.0; {_COCO}",
    ),
    "okvqa": FileSource(
        okvqa.read,
        okvqa.Options,
        "vqa",
        "OK-VQA (Marino et al. 2019), https://okvqa.allenai.org/download.html",
        f"annotations: not stated in the files, ask the authors; {_COCO}",
    ),
    "aokvqa": FileSource(
        aokvqa.read,
        aokvqa.Options,
        "vqa",
        "A-OKVQA (Schwenk et al. 2022), https://github.com/allenai/aokvqa",
        f"repository Apache-2.0; {_COCO}",
    ),
    "textvqa": FileSource(
        textvqa.read,
        textvqa.Options,
        "vqa",
        "TextVQA 0.5.1 (Singh et al. 2019), https://textvqa.org/dataset",
        "annotations CC BY 4.0; Open Images photographs under their owners' CC BY 2.0",
    ),
    "gqa": FileSource(
        gqa.read,
        gqa.Options,
        "vqa",
        "GQA (Hudson and Manning 2019), https://cs.stanford.edu/people/dorarad/gqa/download.html",
        "stated differently by its page and by copies on the hub (CC BY 4.0, MIT): check; Visual Genome images",
    ),
    "ocr-vqa": FileSource(
        ocr_vqa.read,
        ocr_vqa.Options,
        "vqa",
        "OCR-VQA (Mishra et al. 2019), https://ocr-vqa.github.io",
        "annotations: research use, check the page; book covers belong to their publishers",
    ),
    "coco-karpathy": FileSource(
        coco_karpathy.read,
        coco_karpathy.Options,
        "caption",
        "COCO Captions 2014 (Chen et al. 2015), split of Karpathy and Fei-Fei 2015, "
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        f"captions CC BY 4.0; {_COCO}",
    ),
    "coco-2017": FileSource(
        coco_2017.read,
        coco_2017.Options,
        "caption",
        "COCO Captions 2017 (Chen et al. 2015), https://cocodataset.org/#download",
        f"captions CC BY 4.0; {_COCO}",
    ),
    "textcaps": FileSource(
        textcaps.read,
        textcaps.Options,
        "caption",
        "TextCaps 0.1 (Sidorov et al. 2020), https://textvqa.org/textcaps/dataset",
        "annotations CC BY 4.0; Open Images photographs under their owners' CC BY 2.0",
    ),
    "flickr30k": FileSource(
        flickr30k.read,
        flickr30k.Options,
        "caption",
        "Flickr30k (Young et al. 2014), https://shannon.cs.illinois.edu/DenotationGraph/",
        "captions and images for non-commercial research and education; images belong to their Flickr owners",
    ),
    "refcoco": FileSource(
        refcoco.read,
        refcoco.Options,
        "ground",
        "RefCOCO, RefCOCO+, RefCOCOg (Yu et al. 2016, Mao et al. 2016), https://github.com/lichengunc/refer",
        f"annotations: not stated in the files, ask the authors; {_COCO}",
    ),
    "hub": FileSource(
        hub.read,
        hub.Options,
        None,
        "a data set of https://huggingface.co at the revision in the options",
        "that of the data set: see its card",
    ),
}
