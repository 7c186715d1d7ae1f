"""Training of tiny-llava's tokenizer: byte-level BPE; numbers are pairs of digits, words in capitals single letters."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from pilot.pretraining.architecture import BEGIN, END, PAD, SPECIAL_TOKENS

SPLIT = r"USER:| ?ASSISTANT:|(?: ?\[|, )?\d\.(?=\d)|\d{1,2}| ?[A-Z]?[a-z]+| ?[A-Z]| ?[^\sA-Za-z\d]+|\s"
"""Pattern of words with their leading space; `0.12` is `0.` + `12`, so that a position shares its token with `x12`."""


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer whose ids 0..3 are padding, begin, end and image placeholder."""
    tokenizer = Tokenizer(BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[PAD],
        bos_token=SPECIAL_TOKENS[BEGIN],
        eos_token=SPECIAL_TOKENS[END],
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
    )
