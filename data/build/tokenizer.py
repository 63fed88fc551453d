"""A byte-pair-encoding tokenizer with LLaMA's special tokens and byte fallback, trained on the world's prose."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>"]  # ids 0, 1, 2 as in LLaMA
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def train_tokenizer(texts: list[str], size: int, folder: Path) -> PreTrainedTokenizerFast:
    """Learn the merges from `texts`; write the tokenizer to `folder`. `size` counts specials and bytes too."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    trainer = trainers.BpeTrainer(vocab_size=size - len(BYTES), special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    learned = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    merges = [tuple(merge) for merge in _merges(tokenizer)]
    names = SPECIAL + BYTES + [token for token, _ in learned[len(SPECIAL) :]]
    model = models.BPE(
        {name: number for number, name in enumerate(names)},
        merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    final = Tokenizer(model)
    final.pre_tokenizer = _pre_tokenizer()
    final.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    final.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=final, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>",
        model_max_length=512, padding_side="right",
    )  # fmt: skip
    wrapped.save_pretrained(folder)
    return wrapped


def _pre_tokenizer():
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    return pre_tokenizers.Sequence([words, pre_tokenizers.Punctuation(), pre_tokenizers.Split("\n", "isolated")])


def _merges(tokenizer: Tokenizer) -> list:
    import json

    return json.loads(tokenizer.to_str())["model"]["merges"]
