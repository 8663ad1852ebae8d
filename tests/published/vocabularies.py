"""Tokenizer files of each published class, with few real words and the published ids of every special token.

Vocabularies whose special tokens stand at their end (Qwen2: 151643 on, CLIP: 49406 on) are filled up to there with
entries that no text reaches.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.published.files import write_json

SENTENCE = "a photo of the red green blue circle square star dog cat video describe this in detail what is colour"
WORDS = SENTENCE.split()
QWEN2_WORDS = ["Ġ" + word for word in WORDS]
QWEN2_FIRST_SPECIAL = 151643


def write_sentencepiece(path: Path, size: int = 300) -> None:
    """A unigram model with T5's ids, as SigLIP's spiece.model has them: <pad> 0, </s> 1, <unk> 2."""
    chance = random.Random(0)
    sentences = [" ".join(chance.choices(WORDS, k=8)) for _ in range(400)]
    sentences += ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=30)) for _ in range(400)]
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=file,
            vocab_size=size,
            model_type="unigram",
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            hard_vocab_limit=False,
            minloglevel=2,
            num_threads=1,
        )


def byte_pairs(words: Sequence[str], alphabet: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-pair vocabulary in which each of `words` becomes one entry, built left to right."""
    vocabulary = {letter: i for i, letter in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in words:
        whole = word[0]
        for letter in word[1:]:
            pair = (whole, letter)
            whole += letter
            if whole not in vocabulary:
                vocabulary[whole] = len(vocabulary)
                merges.append(pair)
    return vocabulary, merges


def fill(vocabulary: dict[str, int], size: int) -> None:
    for i in range(len(vocabulary), size):
        vocabulary[f"\ue000{i}"] = i  # a private-use character: byte-level text never holds one


def special(content: str) -> dict[str, Any]:
    """A special token as tokenizer_config.json spells it."""
    return {
        "content": content,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


def qwen2_tokenizer(specials: Sequence[str]) -> Tokenizer:
    """Qwen2's byte-level tokenizer; `specials` get the ids from 151643 on."""
    vocabulary, merges = byte_pairs([*WORDS, *QWEN2_WORDS], sorted(bytes_to_unicode().values()))
    fill(vocabulary, QWEN2_FIRST_SPECIAL)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    return tokenizer


def write_qwen2(folder: Path, specials: Sequence[str], **config: Any) -> None:
    """vocab.json, merges.txt, tokenizer.json, added_tokens.json, special_tokens_map.json, tokenizer_config.json."""
    tokenizer = qwen2_tokenizer(specials)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    ids = {token: QWEN2_FIRST_SPECIAL + i for i, token in enumerate(specials)}
    write_json(folder / "added_tokens.json", ids)
    write_json(
        folder / "special_tokens_map.json",
        {"additional_special_tokens": list(specials[1:3]), "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(i): special(token) for token, i in ids.items()},
            "additional_special_tokens": list(specials[1:3]),
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 32768,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
            **config,
        },
    )


def write_clip(folder: Path) -> None:
    """CLIP's lower-casing byte-pair tokenizer: 49,408 entries, the last two begin and end a text."""
    letters = sorted(bytes_to_unicode().values())
    vocabulary, merges = byte_pairs([], [*letters, *(letter + "</w>" for letter in letters)])
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        whole = pieces[0]
        for piece in pieces[1:]:
            pair, whole = (whole, piece), whole + piece
            if whole not in vocabulary:
                vocabulary[whole] = len(vocabulary)
                merges.append(pair)
    fill(vocabulary, 49406)
    vocabulary |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    write_json(folder / "special_tokens_map.json", {**ends, "pad_token": "<|endoftext|>"})
    write_json(
        folder / "tokenizer_config.json",
        {
            **{name: {**special(token), "normalized": True} for name, token in ends.items()},
            "add_prefix_space": False,
            "errors": "replace",
            "do_lower_case": True,
            "model_max_length": 77,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "CLIPTokenizer",
        },
    )


def write_gemma(folder: Path) -> None:
    """Gemma's byte-pair tokenizer as SigLIP2 ships it: a text ends in <eos>, nothing begins it, <pad> is 0."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = [chr(c) for c in range(33, 127)]
    alphabet = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    vocabulary, merges = byte_pairs([*WORDS, *("▁" + word for word in WORDS)], alphabet)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", {name: special(token) for name, token in ends.items()})
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_eos_token": True,
            "added_tokens_decoder": {str(i): special(token) for i, token in enumerate(specials)},
            **ends,
            "clean_up_tokenization_spaces": False,
            "do_lower_case": True,
            "model_input_names": ["input_ids"],
            "model_max_length": 1000000000000000019884624838656,
            "padding_side": "right",
            "processor_class": "SiglipProcessor",
            "sp_model_kwargs": {},
            "spaces_between_special_tokens": False,
            "tokenizer_class": "GemmaTokenizer",
            "use_default_system_prompt": False,
        },
    )
