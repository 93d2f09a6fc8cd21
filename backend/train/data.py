"""Training data: Rust sources of pinned crates, licence-checked, tokenized, split into train and held-out.

Everything is derived from `crates.txt` and the seed. Files written to the work folder:
`vendor/` (cargo's output), `crates.json`, `tokenizer.json`, `train.npy`, `heldout.npy` (uint16 token ids), `data.json` (counts).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CRATES_FILE = Path(__file__).parent / "crates.txt"
HELDOUT_CRATES = 8
MAX_FILE_BYTES = 150_000
MAX_DIGIT_SHARE = 0.12  # above it a file is a generated table, not code
MAX_PAIR_CHARS = 700  # a chat pair must fit the window of 256 tokens

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = [END_OF_TEXT, IM_START, IM_END]  # ids 0, 1, 2
VOCAB_SIZE = 2048

# The two patterns of llama.cpp's "smollm" pre-tokenizer, applied one after the other:
# each digit alone first, then GPT-2's words.
DIGIT_PATTERN = r"\p{N}"
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"

FUNCTION_WITH_DOC = re.compile(
    r"(?P<doc>(?:^[ \t]*///[^\n]*\n)+)(?:^[ \t]*#\[[^\n]*\]\n)*(?P<head>^(?P<indent>[ \t]*)(?:pub(?:\([a-z]+\))? )?(?:const |async |unsafe )*fn [^;{}]*\{)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Crate:
    """One crate that was read: its licence expression as published, and its share of the data."""

    name: str
    version: str
    licence: str
    files: int
    bytes: int
    heldout: bool


def allowed_licence(expression: str) -> bool:
    """Whether MIT and Apache-2.0 together satisfy an SPDX expression (`/` is crates' old way of writing OR)."""
    words = re.findall(r"[()]|[^\s()/]+|/", expression.replace(" WITH ", "-WITH-"))
    python = {"(": "(", ")": ")", "OR": "or", "/": "or", "AND": "and"}
    terms = [python.get(word) or str(word in ("MIT", "Apache-2.0")) for word in words]
    return bool(words) and bool(eval(" ".join(terms), {"__builtins__": {}}))  # only True, False, and, or, ()


def read_pins() -> dict[str, str]:
    """Crate name to exact version."""
    return dict(line.split() for line in CRATES_FILE.read_text().splitlines() if line.strip())


def vendor(pins: dict[str, str], work_dir: Path) -> Path:
    """Fetches the crates (and, unused, what they depend on) with cargo; returns the folder of `name-version` folders."""
    target = work_dir / "vendor"
    if target.is_dir():
        return target
    project = work_dir / "fetch"
    (project / "src").mkdir(parents=True, exist_ok=True)
    (project / "src/lib.rs").write_text("")
    dependencies = "\n".join(
        f'{name} = {{ version = "={version.split("+")[0]}", default-features = false }}' for name, version in pins.items()
    )
    (project / "Cargo.toml").write_text(
        f'[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n\n[workspace]\n\n[dependencies]\n{dependencies}\n'
    )
    subprocess.run(
        ["cargo", "vendor", "--quiet", "--versioned-dirs", str(target.resolve())],
        cwd=project, check=True, stdout=subprocess.DEVNULL,
    )
    return target


def usable(text: str) -> bool:
    """Whether a file reads like code or prose rather than like a table."""
    return len(text) > 200 and sum(char.isdigit() for char in text) < MAX_DIGIT_SHARE * len(text)


def read_crate(folder: Path, seen: set[bytes]) -> list[str]:
    """The crate's Rust files and its readme; texts already in `seen` (SHA-256) are left out."""
    texts = []
    for path in sorted([*folder.rglob("*.rs"), *folder.glob("README.md")]):
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        digest = hashlib.sha256(text.encode()).digest()
        if digest in seen or not usable(text) or any(token in text for token in SPECIAL_TOKENS):
            continue
        seen.add(digest)
        texts.append(text)
    return texts


def function_end(text: str, start: int) -> int | None:
    """Index after the brace that closes the one before `start`; None if it is not near. Braces in strings are counted too."""
    depth = 1
    for index in range(start, min(len(text), start + MAX_PAIR_CHARS)):
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return index + 1
    return None


def chat(user: str, assistant: str) -> str:
    """One ChatML exchange, as the model's chat template writes it."""
    return f"{IM_START}user\n{user}{IM_END}\n{IM_START}assistant\n{assistant}{IM_END}\n"


def chat_pairs(text: str) -> list[str]:
    """Doc comment as the question, function as the answer, for the short documented functions of one file."""
    pairs = []
    for match in FUNCTION_WITH_DOC.finditer(text):
        end = function_end(text, match.end())
        if end is None:
            continue
        doc = "\n".join(line.strip()[3:].strip() for line in match["doc"].splitlines()).strip()
        indent = match["indent"]
        code = "\n".join(line.removeprefix(indent) for line in text[match.start("head") : end].splitlines())
        if doc and "```" not in doc and len(doc) + len(code) <= MAX_PAIR_CHARS:
            pairs.append(chat(doc, code))
    return pairs


def train_tokenizer(texts: list[str], path: Path) -> Tokenizer:
    """Byte-level BPE with llama.cpp's "smollm" pre-tokenization; saved to `path`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(DIGIT_PATTERN), "isolated"),
        pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    """All documents in one row of uint16 ids, each after an end-of-text token."""
    row: list[np.ndarray] = []
    for start in range(0, len(documents), 256):
        for encoding in tokenizer.encode_batch([END_OF_TEXT + text for text in documents[start : start + 256]]):
            row.append(np.array(encoding.ids, dtype=np.uint16))
    return np.concatenate(row)


def token_bytes(work_dir: Path) -> np.ndarray:
    """[vocab] bytes of text that each token stands for; none for the special ones."""
    vocab = json.loads((work_dir / "tokenizer.json").read_text())["model"]["vocab"]
    return np.array([0 if token in SPECIAL_TOKENS else len(token) for token in sorted(vocab, key=vocab.get)])


def prepare(work_dir: Path, seed: int) -> None:
    """Writes the tokenizer, the two token rows and the counts to `work_dir`; does nothing where they are there."""
    if (work_dir / "data.json").is_file():
        if json.loads((work_dir / "data.json").read_text())["seed"] != seed:
            raise SystemExit(f"{work_dir} holds data of another seed; give another --work-dir")
        return
    work_dir.mkdir(parents=True, exist_ok=True)
    pins = read_pins()
    folder = vendor(pins, work_dir)
    heldout_names = set(random.Random(seed).sample(sorted(pins), HELDOUT_CRATES))

    crates: list[Crate] = []
    train_files: list[str] = []
    heldout_files: list[str] = []
    seen: set[bytes] = set()
    for name, version in pins.items():
        crate_dir = folder / f"{name}-{version}"
        licence = tomllib.loads((crate_dir / "Cargo.toml").read_text())["package"].get("license", "")
        if not allowed_licence(licence):
            raise SystemExit(f"{name} {version}: licence {licence!r} is not covered by MIT or Apache-2.0; take it out of crates.txt")
        texts = read_crate(crate_dir, seen)
        heldout = name in heldout_names
        (heldout_files if heldout else train_files).extend(texts)
        crates.append(Crate(name, version, licence, len(texts), sum(len(text.encode()) for text in texts), heldout))

    tokenizer = train_tokenizer(train_files, work_dir / "tokenizer.json")
    train_pairs = [pair for text in train_files for pair in chat_pairs(text)]
    documents = train_files + train_pairs
    random.Random(seed).shuffle(documents)
    train, heldout_row = encode(tokenizer, documents), encode(tokenizer, heldout_files)
    np.save(work_dir / "train.npy", train)
    np.save(work_dir / "heldout.npy", heldout_row)
    (work_dir / "crates.json").write_text("[\n" + ",\n".join(f" {json.dumps(asdict(crate))}" for crate in crates) + "\n]\n")
    counts = {
        "seed": seed,
        "train_files": len(train_files),
        "train_chat_pairs": len(train_pairs),
        "train_bytes": sum(len(text.encode()) for text in documents),
        "train_tokens": len(train),
        "heldout_files": len(heldout_files),
        "heldout_bytes": sum(len(text.encode()) for text in heldout_files),
        "heldout_tokens": len(heldout_row),
    }
    (work_dir / "data.json").write_text(json.dumps(counts, indent=1) + "\n")
    print(json.dumps(counts), flush=True)
