"""Byte-level vocabulary: token id = byte value, and one id that separates documents.

One token per byte keeps positions and text aligned without a tokenizer in the way. The files are
plain JSON in the format that `tokenizers` and AutoTokenizer read, so no engine needs special code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

END_OF_TEXT_ID = 256
END_OF_TEXT = "<|endoftext|>"
VOCAB_SIZE = 257


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in byte-level tokenizers.

    Printable Latin-1 bytes stand for themselves; the other 68 take the code points from 256 on, in
    order (Radford et al., 2019).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def tokenizer_json() -> dict[str, Any]:
    """A BPE model without merges: every byte stays a token of its own."""
    vocab: dict[str, int] = {char: byte for byte, char in enumerate(byte_alphabet())}
    vocab[END_OF_TEXT] = END_OF_TEXT_ID
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": END_OF_TEXT_ID,
                "content": END_OF_TEXT,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [],
        },
    }


def write_tokenizer(folder: Path, max_length_tokens: int) -> None:
    """Write tokenizer.json and tokenizer_config.json into `folder`."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": max_length_tokens,
        "clean_up_tokenization_spaces": False,
    }
    for name, value in (("tokenizer.json", tokenizer_json()), ("tokenizer_config.json", config)):
        text = json.dumps(value, indent=1, ensure_ascii=True) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


def encode(text: str) -> list[int]:
    """The UTF-8 bytes of `text` as token ids; no special token is added."""
    return list(text.encode("utf-8"))


def decode(token_ids: list[int]) -> str:
    """Text of `token_ids`; separators are dropped, invalid UTF-8 is shown as U+FFFD."""
    return bytes(t for t in token_ids if t < 256).decode("utf-8", errors="replace")
