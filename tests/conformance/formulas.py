"""The metrics a second time, from the papers, on tokens: slow, short, and sharing nothing with the suite's code."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

# pycocoevalcap adds these to matches and to n-grams, so that no precision is 0 or undefined.
SMALL_MATCHES, SMALL_NGRAMS = Fraction(1, 10**15), Fraction(1, 10**9)

Tokens = Sequence[str]
Box = tuple[int, int, int, int]


class Image(NamedTuple):
    """A caption and its references, as tokens."""

    caption: Tokens
    references: Sequence[Tokens]


def ngrams(tokens: Tokens, n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram occurs."""
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def bleu(images: Sequence[Image], max_n: int) -> float:
    """BLEU of a corpus: geometric mean of the modified n-gram precisions of n = 1..max_n, times brevity.

    Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", ACL 2002: an n-gram counts at
    most as often as in the reference that has it most; exp(1 - r / c) where the captions' length c is below r, the
    sum of the closest reference lengths (of two equally close ones, the shorter).
    """
    product = Fraction(1)
    for n in range(1, max_n + 1):
        matches, total = 0, 0
        for caption, references in images:
            most = Counter[tuple[str, ...]]()
            for reference in references:
                most |= ngrams(reference, n)
            matches += (ngrams(caption, n) & most).total()
            total += max(0, len(caption) - n + 1)
        product *= (matches + SMALL_MATCHES) / (total + SMALL_NGRAMS)
    length = sum(len(caption) for caption, _ in images)
    target = sum(min((abs(len(r) - len(caption)), len(r)) for r in references)[1] for caption, references in images)
    if length == 0:
        return 0.0
    return float(product) ** (1 / max_n) * math.exp(min(0.0, 1 - target / length))


def rouge_l(image: Image, beta: float = 1.2) -> float:
    """ROUGE-L of one caption, precision and recall each from its best reference.

    Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", ACL workshop 2004: F of LCS / caption length and
    LCS / reference length, with beta 1.2 as the COCO server has it.
    """
    caption, references = image
    common = [longest_common_subsequence(caption, reference) for reference in references]
    precision = max(length / len(caption) for length in common)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    if precision == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def longest_common_subsequence(first: Tokens, second: Tokens) -> int:
    """Its length: `best[j]` is that of the words so far with the first j words of `second`."""
    best = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, start=1):
            diagonal, best[j] = best[j], diagonal + 1 if word == other else max(best[j], best[j - 1])
    return best[-1]


def cider_d(images: Mapping[str, Image], sigma: float = 6.0) -> dict[str, float]:
    """CIDEr-D of each image.

    Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, section 5 (CIDEr-D), without
    stemming and with raw counts as the COCO server has it: 10 times the mean over n = 1..4 and over the references
    of exp(-(difference in length)^2 / (2 sigma^2)) sum_g min(c_g, r_g) r_g / (|c| |r|).
    """
    scores = dict.fromkeys(images, 0.0)
    for n in range(1, 5):
        in_images = Counter[tuple[str, ...]]()
        for _, references in images.values():
            in_images.update({ngram for reference in references for ngram in ngrams(reference, n)})
        for name, (caption, references) in images.items():
            for reference in references:
                c, r = (weigh(ngrams(tokens, n), in_images, len(images)) for tokens in (caption, reference))
                norms = math.hypot(*c.values()) * math.hypot(*r.values())
                overlap = sum(min(weight, r[ngram]) * r[ngram] for ngram, weight in c.items() if ngram in r)
                if norms > 0:
                    penalty = math.exp(-((len(caption) - len(reference)) ** 2) / (2 * sigma**2))
                    scores[name] += 10 / 4 / len(references) * penalty * overlap / norms
    return scores


def weigh(
    counts: Counter[tuple[str, ...]], in_images: Counter[tuple[str, ...]], num_images: int
) -> dict[tuple[str, ...], float]:
    """Count times log(images / images that have the n-gram in a reference, at least 1)."""
    return {ngram: count * math.log(num_images / max(1, in_images[ngram])) for ngram, count in counts.items()}


def leave_one_out(matches: Sequence[bool]) -> Fraction:
    """VQA accuracy: the mean of min(1, matches / 3) over all subsets of all humans but one."""
    subsets = list(combinations(matches, len(matches) - 1))
    return sum((min(Fraction(1), Fraction(sum(subset), 3)) for subset in subsets), Fraction()) / len(subsets)


def iou(a: Box, b: Box) -> Fraction:
    """Intersection over union of boxes with whole-number corners, exactly, by counting along each axis."""
    shared = [len(range(max(a[axis], b[axis]), min(a[axis + 2], b[axis + 2]))) for axis in (0, 1)]
    intersection = shared[0] * shared[1]
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    return Fraction(intersection, union) if union else Fraction()
