"""Small files in the formats in which the data sets are distributed; every function writes below a root folder."""

import json
from pathlib import Path
from typing import Any

from pilot.data.rows import Rejected, Row, Rows, Skipped

from .python2 import pickled

TEN = ["net", "net", "net", "netting", "net", "mesh", "net", "net", "net", "net"]
PITA = ["pita", "bread", "pita", "pita bread", "pita", "bread", "pita", "pita", "wrap", "pita"]
VQA_ROWS = [
    ("What is this photo taken looking through?", 458752000, 458752, "net", TEN, "what is this", "other"),
    ("What color is the\u00a0cap?", 458752003, 262146, "pita", PITA, "what color is the", "other"),
]


def kept(rows: Rows) -> list[Row | Rejected]:
    """Rows without those that are skipped."""
    return [row for row in rows if not isinstance(row, Skipped)]


def write(root: Path, name: str, document: Any) -> None:
    """A JSON document, or bytes as they are."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())


def vqa(root: Path, questions: str, annotations: str, *, chosen: bool = True) -> None:
    """VQA's two files; `chosen`: with `multiple_choice_answer`, as VQAv2 and unlike OK-VQA."""
    asked = [{"image_id": image, "question": text, "question_id": key} for text, key, image, *_ in VQA_ROWS]
    answered = [
        {
            "question_type": kind,
            **({"multiple_choice_answer": best} if chosen else {"confidence": 3}),
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": n}
                | ({} if chosen else {"raw_answer": answer})
                for n, answer in enumerate(answers, start=1)
            ],
            "image_id": image,
            "answer_type": answer_type,
            "question_id": key,
        }
        for _, key, image, best, answers, kind, answer_type in VQA_ROWS
    ]
    head = {"info": {"version": "2.0"}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}}
    write(root, questions, head | {"data_subtype": "train2014", "questions": asked})
    write(root, annotations, head | {"data_subtype": "train2014", "annotations": answered})


AOKVQA: list[dict[str, Any]] = [
    {
        "split": "train",
        "image_id": 299207,
        "question_id": "22MexNkBPpdZGX6sxbxVBH",
        "question": "What is the man by the bags awaiting?",
        "choices": ["skateboarder", "train", "delivery", "cab"],
        "correct_choice_idx": 3,
        "direct_answers": ["ride", "ride", "bus", "taxi", "travelling", "traffic", "taxi", "cab", "cab", "ride"],
        "difficult_direct_answer": False,
        "rationales": ["A train would not be on the street."],
    }
]
TEXTVQA: list[dict[str, Any]] = [
    {
        "question": "what is the brand of phone?",
        "image_id": "0054c91397f2fe05",
        "image_classes": ["Belt", "Mobile phone"],
        "flickr_original_url": "https://farm6.staticflickr.com/x_o.jpg",
        "flickr_300k_url": "https://c6.staticflickr.com/x_z.jpg",
        "image_width": 1024,
        "image_height": 730,
        "answers": ["nokia"] * 9 + ["toshiba"],
        "question_tokens": ["what", "is", "the", "brand", "of", "phone"],
        "question_id": 0,
        "set_name": "train",
    }
]
GQA: dict[str, dict[str, Any]] = {
    "07333408": {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "wall (722332)"}],
        "entailed": ["07333406"],
        "equivalent": ["07333408"],
        "question": "What is on the white wall?",
        "imageId": "2375429",
        "isBalanced": True,
        "groups": {"global": "", "local": "14-wall_on,s"},
        "answer": "pipe",
        "semanticStr": "select: wall (722332)->filter color: white [0]",
        "annotations": {"answer": {"0": "722335"}, "question": {"4:6": "722332"}, "fullAnswer": {}},
        "types": {"detailed": "relS", "semantic": "rel", "structural": "query"},
        "fullAnswer": "The pipe is on the wall.",
    }
}
OCR_VQA: dict[str, dict[str, Any]] = {
    "761183272": {
        "imageURL": "http://ecx.images-amazon.com/images/I/51l6XIoa3rL.jpg",
        "title": "Mom's Family Wall Calendar 2016",
        "authorName": "Sandra Boynton",
        "genre": "Calendars",
        "split": 1,
        "questions": ["Who wrote this book?", "Is this a pharmaceutical book? "],
        "answers": ["Sandra Boynton", "No"],
    },
    "316881791": {"split": 2, "questions": [], "answers": []},
    "B00XLZZN1C": {
        "imageURL": "http://ecx.images-amazon.com/images/I/51x.png?a=.gif",
        "title": "T",
        "authorName": "",
        "genre": "Travel",
        "split": 3,
        "questions": ["What is the genre of this book?"],
        "answers": ["Travel"],
    },
}
CAPTIONS = ["A man with a red helmet on a small moped on a dirt road. ", "Man riding a motor bike.", "A man on a bike."]


def karpathy(root: Path) -> None:
    """`dataset_coco.json` with one image in each split, and `dataset_flickr30k.json` with one in `train`."""
    images = [
        {
            "filepath": "val2014" if split != "train" else "train2014",
            "sentids": [3 * number + n for n in range(3)],
            "filename": f"COCO_{'train' if split == 'train' else 'val'}2014_000000{391895 + number}.jpg",
            "imgid": number,
            "split": split,
            "sentences": [
                {"tokens": raw.lower().split(), "raw": raw, "imgid": number, "sentid": 3 * number + n}
                for n, raw in enumerate(CAPTIONS)
            ],
            "cocoid": 391895 + number,
        }
        for number, split in enumerate(("test", "restval", "train", "val"))
    ]
    write(root, "karpathy/dataset_coco.json", {"images": images, "dataset": "coco"})
    image = {name: images[2][name] for name in ("sentids", "imgid", "sentences", "split")}
    flickr = {"images": [image | {"filename": "1000092795.jpg"}], "dataset": "flickr30k"}
    write(root, "karpathy/dataset_flickr30k.json", flickr)


def coco_2017(root: Path) -> None:
    """`captions_train2017.json` of one image whose captions are not beside each other."""
    images = [
        {
            "license": 3,
            "file_name": f"000000{key}.jpg",
            "coco_url": f"http://images.cocodataset.org/train2017/000000{key}.jpg",
            "height": 360,
            "width": 640,
            "date_captured": "2013-11-14 11:18:45",
            "flickr_url": "http://farm9.staticflickr.com/x_z.jpg",
            "id": key,
        }
        for key in (391895, 522418)
    ]
    captions = [(391895, CAPTIONS[0]), (522418, "A woman cuts a cake."), (391895, CAPTIONS[1]), (391895, CAPTIONS[2])]
    annotations = [{"image_id": image, "id": n, "caption": text} for n, (image, text) in enumerate(captions)]
    document = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    write(root, "coco/annotations/captions_train2017.json", document)


def textcaps(root: Path) -> None:
    """`TextCaps_0.1_train.json`: one image, an entry per caption."""
    captions = [caption.strip() for caption in CAPTIONS]
    entries = [
        {
            "ocr_tokens": ["MBT"],
            "ocr_info": [],
            "image_id": "87a0f24d0a7a6ae8",
            "image_classes": ["Motorcycle"],
            "flickr_original_url": "https://c4.staticflickr.com/x_o.jpg",
            "image_width": 683,
            "image_height": 1024,
            "image_name": "87a0f24d0a7a6ae8",
            "image_path": "train/87a0f24d0a7a6ae8.jpg",
            "set_name": "train",
            "caption_id": n,
            "caption_str": caption,
            "caption_tokens": caption.lower().split(),
            "reference_strs": captions,
            "reference_tokens": [caption.lower().split() for caption in captions],
        }
        for n, caption in enumerate(captions)
    ]
    write(root, "textcaps/TextCaps_0.1_train.json", {"dataset_name": "textcaps", "data": entries})


REFS: list[dict[str, Any]] = [
    {
        "sent_ids": [0, 1, 2],
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "ann_id": 1719310,
        "ref_id": 0,
        "image_id": 581857,
        "split": "train",
        "sentences": [
            {"tokens": ["the", "lady"], "raw": "THE LADY", "sent_id": 0, "sent": "the lady"},
            {"tokens": ["lady"], "raw": "lady w/ blue", "sent_id": 1, "sent": "lady with blue"},
            {"tokens": ["caf\u00e9"], "raw": "caf\u00e9", "sent_id": 2, "sent": "caf\u00e9"},
        ],
        "category_id": 1,
    },
    {
        "sent_ids": [3],
        "file_name": "COCO_train2014_000000581857_17.jpg",
        "ann_id": 1719311,
        "ref_id": 1,
        "image_id": 581857,
        "split": "testA",
        "sentences": [{"tokens": ["man"], "raw": "man", "sent_id": 3, "sent": "man"}],
        "category_id": 1,
    },
]


def refcoco(root: Path, folder: str = "refcoco", author: str = "unc", refs: Any = None) -> None:
    """`refs(...).p` as Python 2 wrote it, and `instances.json`."""
    write(root, f"{folder}/refs({author}).p", pickled(REFS if refs is None else refs))
    image = {
        "license": 1,
        "file_name": "COCO_train2014_000000581857.jpg",
        "coco_url": "http://mscoco.org/images/581857",
        "height": 427,
        "width": 640,
        "date_captured": "2013-11-18 02:52:39",
        "flickr_url": "http://farm3.staticflickr.com/x_z.jpg",
        "id": 581857,
    }
    annotations = [
        {
            "segmentation": [[44.1, 167.74, 48.39]],
            "area": area,
            "iscrowd": 0,
            "image_id": 581857,
            "bbox": box,
            "category_id": 1,
            "id": key,
        }
        for key, box, area in ((1719310, [103.93, 299.99, 134.22, 177.42], 9607.4), (1719311, [0, 10, 20.5, 30], 600))
    ]
    categories = [{"supercategory": "person", "id": 1, "name": "person"}]
    document = {"info": {}, "licenses": [], "images": [image], "annotations": annotations, "categories": categories}
    write(root, f"{folder}/instances.json", document)
