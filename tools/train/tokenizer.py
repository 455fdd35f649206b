"""CLIP's tokenizer with a small vocabulary: learns the merges, encodes, and writes the Hugging Face files.

Text is NFC-normalised, its white space collapsed, lower-cased, split as CLIP's pattern does, and encoded by byte-level BPE whose
words end in </w>. Ids: 256 bytes, the same 256 with </w>, one per merge, <|startoftext|>, <|endoftext|> (also padding and unknown).
"""

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Iterable

START, END = "<|startoftext|>", "<|endoftext|>"
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # as tokenizer.json states it
CONTRACTION = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d")


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte, in CLIP's order: printable bytes as themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


LETTERS = byte_letters()


def kind(char: str) -> str:
    """L for letters, N for numbers, S for white space, O for the rest: the classes of PATTERN."""
    if char.isspace():
        return "S"
    category = unicodedata.category(char)[0]
    return category if category in "LN" else "O"


def split(text: str) -> list[str]:
    """The pieces PATTERN finds in text, after normalisation. Python's re knows no \\p{L}, so this walks by character class."""
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()
    pieces, at = [], 0
    while at < len(text):
        contraction = CONTRACTION.match(text, at)
        end = contraction.end() if contraction else at + 1
        if not contraction and (group := kind(text[at])) in "LO":
            while end < len(text) and kind(text[end]) == group:
                end += 1
        if not text[at].isspace():
            pieces.append(text[at:end])
        at = end
    return pieces


def letters(piece: str) -> tuple[str, ...]:
    """The word's symbols before any merge: one letter per byte, the last one with </w>."""
    symbols = [LETTERS[byte] for byte in piece.encode()]
    return (*symbols[:-1], symbols[-1] + "</w>")


def merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """word with every occurrence of pair joined, from left to right."""
    out: list[str] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            out.append(word[at] + word[at + 1])
            at += 2
        else:
            out.append(word[at])
            at += 1
    return tuple(out)


class Tokenizer:
    """merges in order of rank; vocab maps token to id."""

    def __init__(self, merges: list[tuple[str, str]]):
        base = list(LETTERS.values())
        tokens = [*base, *(letter + "</w>" for letter in base), *(a + b for a, b in merges), START, END]
        self.merges = merges
        self.vocab = {token: i for i, token in enumerate(tokens)}
        self.rank = {pair: i for i, pair in enumerate(merges)}
        self.start, self.end = self.vocab[START], self.vocab[END]
        self.cache: dict[str, list[int]] = {}

    @staticmethod
    def train(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learns vocab_size - 514 merges: the most frequent pair first, ties in order of the pair's text."""
        counts = Counter(piece for text in texts for piece in split(text))
        words = {letters(piece): count for piece, count in sorted(counts.items())}
        merges: list[tuple[str, str]] = []
        while len(merges) < vocab_size - 514:
            pairs: Counter[tuple[str, str]] = Counter()
            for word, count in words.items():
                for pair in zip(word, word[1:]):
                    pairs[pair] += count
            best = min(pairs, key=lambda pair: (-pairs[pair], pair))
            words = {merged(word, best) if best[0] in word else word: count for word, count in words.items()}
            merges.append(best)
        return Tokenizer(merges)

    @staticmethod
    def load(folder: Path) -> "Tokenizer":
        lines = (folder / "merges.txt").read_text().splitlines()[1:]
        return Tokenizer([(a, b) for a, b in (line.split(" ") for line in lines)])

    def encode(self, text: str, max_length: int) -> list[int]:
        """Ids with both marks, cut to max_length with the end mark kept."""
        ids = [i for piece in split(text) for i in self.piece_ids(piece)]
        return [self.start, *ids[: max_length - 2], self.end]

    def piece_ids(self, piece: str) -> list[int]:
        if piece not in self.cache:
            word = letters(piece)
            while ranked := [self.rank[pair] for pair in zip(word, word[1:]) if pair in self.rank]:
                word = merged(word, self.merges[min(ranked)])
            self.cache[piece] = [self.vocab[symbol] for symbol in word]
        return self.cache[piece]

    def save(self, folder: Path, max_length: int) -> None:
        """Writes vocab.json, merges.txt, tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
        lines = [f"{a} {b}" for a, b in self.merges]
        special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "special": True}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        tokenizer = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": self.start, "content": START, "normalized": True, **flags},
                {"id": self.end, "content": END, "normalized": False, **flags},
            ],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "NFC"},
                    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                    {"type": "Lowercase"},
                ],
            },
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Removed", "invert": True},
                    byte_level,
                ],
            },
            "post_processor": {
                "type": "RobertaProcessing",
                "sep": [END, self.end],
                "cls": [START, self.start],
                "trim_offsets": False,
                "add_prefix_space": False,
            },
            "decoder": {**byte_level, "add_prefix_space": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": END,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "</w>",
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": self.vocab,
                "merges": lines,
            },
        }
        config = {
            "add_prefix_space": False,
            **special,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": max_length,
            "tokenizer_class": "CLIPTokenizer",
        }
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n")
        write_json(folder / "vocab.json", self.vocab)
        write_json(folder / "tokenizer.json", tokenizer)
        write_json(folder / "tokenizer_config.json", config, indent=2)
        write_json(folder / "special_tokens_map.json", special, indent=2)


def write_json(path: Path, value: object, indent: int | None = None) -> None:
    separators = None if indent else (",", ":")
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators) + "\n")
