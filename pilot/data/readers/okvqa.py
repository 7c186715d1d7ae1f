"""OK-VQA: questions that need outside knowledge, in VQA's file format.

Marino et al., CVPR 2019; https://okvqa.allenai.org/download.html; the page states no licence for the annotations,
COCO images have their own terms. There is no `multiple_choice_answer`: the training answer is the most frequent of
the human answers. `question_type` is the annotation file's code for a category of knowledge.
"""

from pathlib import Path

from pilot.data.readers import vqa_official
from pilot.data.readers.files import RelativePath
from pilot.data.rows import Rows


class Options(vqa_official.Options):
    """Files and path templates of images by number for each split."""

    train_questions: RelativePath = "okvqa/OpenEnded_mscoco_train2014_questions.json"
    train_annotations: RelativePath = "okvqa/mscoco_train2014_annotations.json"
    test_questions: RelativePath = "okvqa/OpenEnded_mscoco_val2014_questions.json"
    test_annotations: RelativePath = "okvqa/mscoco_val2014_annotations.json"


def read(options: Options, root: Path, split: str) -> Rows:
    """Return the rows of `pilot.data.readers.vqa_official.read`."""
    return vqa_official.read(options, root, split)
