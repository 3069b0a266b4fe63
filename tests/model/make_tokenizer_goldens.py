"""Make tests/data/tokenizer/goldens.json: what other programs make of the tests' texts.

Not run by the tests. It needs the packages gguf, sentencepiece and transformers (no torch), and a
Python that has llama-cpp-python, which `make peers` builds. From the root of the source tree:

    python -m tests.model.make_tokenizer_goldens --llama .peers/bin/python \
        ../shared/data SMOLLM2.gguf QWEN2.5-CODER.gguf

Token ids of texts come from llama.cpp, and are compared with `tokenizers` (the byte-level
vocabularies) and `sentencepiece`: where two of them differ, nothing is written. SmolLM2's
vocabulary under the names of other pre-tokenizers is tokenised by llama.cpp alone. Token ids of
conversations come from `apply_chat_template` of transformers, and so do the texts that it makes
with the two templates written for the tests.
"""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path

import gguf
import sentencepiece
import tokenizers
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from tests.model.tokenizer_texts import TOKENIZER_DATA, covered, digest, slices

PRE_TOKENIZERS = (
    *("default", "gpt-2", "smollm", "starcoder", "refact", "codeshell", "llama3", "llama-v3"),
    *("llama-bpe", "falcon3", "pixtral", "smaug-bpe", "qwen2", "deepseek-r1-qwen", "stablelm2"),
    *("deepseek-v3", "tekken"),
)
PRE_TOKENIZED = ("code", "multilingual", "soup")
# llama.cpp approximates Tekken's letter cases, which it gets right for ASCII.
PRE_TOKENIZED_TEKKEN = ("code",)
SHOWN = 32  # ids of each text that are stored as they are, to see where a difference starts

_LLAMA = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], vocab_only=True, verbose=False)
texts = json.load(sys.stdin)
json.dump([model.tokenize(text.encode(), add_bos=False, special=False) for text in texts], sys.stdout)
"""  # noqa: E501

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's weather <in> a place, in °C.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
CONVERSATIONS: dict[str, dict[str, object]] = {
    "question": {"messages": [{"role": "user", "content": "Why is the sky blue?"}]},
    "system": {
        "messages": [
            {"role": "system", "content": "You speak like a pirate.\n"},
            {"role": "user", "content": "  Hello,   world!  "},
            {"role": "assistant", "content": "Ahoy 🏴‍☠️\n\n"},
            {"role": "user", "content": "\nWho are you?\n"},
        ]
    },
    "finished": {
        "messages": [
            {"role": "user", "content": "Count to 3."},
            {"role": "assistant", "content": "1 2 3"},
        ],
        "add_generation_prompt": False,
    },
    "tools": {
        "messages": [
            {"role": "user", "content": "Weather in Zürich?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "type": "function",
                        "function": {"name": "weather", "arguments": {"place": "Zürich"}},
                    }
                ],
            },
            {"role": "tool", "content": "12 °C, rain"},
            {"role": "tool", "content": "{}"},
        ],
        "tools": [_WEATHER],
    },
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--llama", type=Path, required=True, help="Python with llama-cpp-python")
    options.add_argument("data_folder", type=Path)
    options.add_argument("smollm2", type=Path)
    options.add_argument("qwen", type=Path)
    arguments = options.parse_args()
    texts = {name: covered(text) for name, text in slices(arguments.data_folder).items()}
    digits = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    words = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_QWEN2_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    goldens: dict[str, object] = {"texts": {}, "conversations": CONVERSATIONS, "chats": {}}
    goldens["renderings"] = {name: renderings(name) for name in ("reasoning", "header")}
    goldens["pre_tokenizers"] = pre_tokenized(arguments.llama, arguments.smollm2, texts)
    for name, path, splitter, conversations in (
        ("smollm2-135m", arguments.smollm2, digits, ("question", "system", "finished")),
        ("qwen2.5-coder-0.5b", arguments.qwen, words, tuple(CONVERSATIONS)),
    ):
        fields = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
        peer = byte_level_peer(fields, splitter)
        ids = [peer.encode(text).ids for text in texts.values()]
        goldens["texts"][name] = agreed(arguments.llama, path, texts, ids)
        goldens["chats"][name] = chats(peer, fields, conversations)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tokenizer.model"
        model.write_bytes(
            lzma.decompress((TOKENIZER_DATA / "mistral-7b-v0.1.model.xz").read_bytes())
        )
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        write_gguf(processor, Path(folder) / "vocabulary.gguf")
        ids = processor.encode([*texts.values()])
        goldens["texts"]["mistral-7b-v0.1"] = agreed(
            arguments.llama, Path(folder) / "vocabulary.gguf", texts, ids
        )
    text = json.dumps(goldens, indent=1, ensure_ascii=False)
    (TOKENIZER_DATA / "goldens.json").write_text(text + "\n", encoding="utf-8")


def agreed(
    llama: Path, path: Path, texts: dict[str, str], ids: list[list[int]]
) -> dict[str, dict[str, object]]:
    """The ids of each text, on which llama.cpp and another peer agree."""
    entries = {}
    theirs_all = llama_ids(llama, path, [*texts.values()])
    for name, theirs, other in zip(texts, theirs_all, ids, strict=True):
        if theirs != other:
            raise SystemExit(f"{path.name}: the peers differ on {name!r}")
        entries[name] = {"tokens": len(other), "sha256": digest(other), "first": other[:SHOWN]}
    return entries


def llama_ids(llama: Path, path: Path, texts: list[str]) -> list[list[int]]:
    """Token ids by llama.cpp."""
    run = subprocess.run(
        [llama, "-c", _LLAMA, path],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def byte_level_peer(fields: dict[str, object], splitter: object) -> tokenizers.Tokenizer:
    """The tokenizer as a tokenizer.json would define it, without its added vocabulary."""
    pieces, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    normal = {
        piece: i for i, (piece, kind) in enumerate(zip(pieces, kinds, strict=True)) if kind == 1
    }
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    peer = tokenizers.Tokenizer(tokenizers.models.BPE(normal, merges))
    peer.pre_tokenizer = splitter
    return peer


def chats(
    peer: tokenizers.Tokenizer, fields: dict[str, object], names: tuple[str, ...]
) -> dict[str, list[int]]:
    """Token ids of conversations, by transformers, with the added vocabulary in its place."""
    full = json.loads(peer.to_str())
    kinds = fields["tokenizer.ggml.token_type"]
    for token_id, piece in enumerate(fields["tokenizer.ggml.tokens"]):
        if kinds[token_id] in (3, 4):
            full["model"]["vocab"][piece] = token_id
            full["added_tokens"].append(
                dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
                | {"id": token_id, "content": piece, "special": kinds[token_id] == 3}
            )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(full)),
        chat_template=fields["tokenizer.chat_template"],
    )
    found = {}
    for name in names:
        arguments = {"add_generation_prompt": True, **CONVERSATIONS[name]}
        found[name] = tokenizer.apply_chat_template(
            arguments.pop("messages"), tokenize=True, return_dict=False, **arguments
        )
    return found


def renderings(template: str) -> dict[str, str]:
    """The texts that transformers makes of the conversations; the date is written as DATE."""
    source = (TOKENIZER_DATA / f"{template}-template.jinja").read_text()
    made = {}
    for name, conversation in CONVERSATIONS.items():
        arguments = {"add_generation_prompt": True, "bos_token": "<|endoftext|>", **conversation}
        messages = arguments.pop("messages")
        [text], _ = render_jinja_template([messages], chat_template=source, **arguments)
        made[name] = text.replace(datetime.now().strftime("%d %b %Y"), "DATE")
    return made


def pre_tokenized(llama: Path, path: Path, texts: dict[str, str]) -> dict[str, str]:
    """Digest of the ids of PRE_TOKENIZED under each pre-tokenizer name, by llama.cpp."""
    reader = gguf.GGUFReader(path)
    digests = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in PRE_TOKENIZERS:
            copy = Path(folder) / "vocabulary.gguf"
            writer = gguf.GGUFWriter(copy, "llama")
            for key, field in reader.fields.items():
                if key.startswith(("GGUF.", "general.architecture")):
                    continue
                value = name if key == "tokenizer.ggml.pre" else field.contents()
                item = field.types[1] if len(field.types) > 1 else None
                writer.add_key_value(key, value, field.types[0], item)
            close(writer)
            parts = PRE_TOKENIZED_TEKKEN if name == "tekken" else PRE_TOKENIZED
            text = "".join(texts[part] for part in parts)
            digests[name] = digest(llama_ids(llama, copy, [text])[0])
    return digests


def write_gguf(processor: sentencepiece.SentencePieceProcessor, path: Path) -> None:
    """A GGUF file of the vocabulary alone, as llama.cpp converts it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(processor.vocab_size())
    writer.add_context_length(32)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    ids = range(processor.vocab_size())
    writer.add_token_list([processor.id_to_piece(i) for i in ids])
    writer.add_token_scores([processor.get_score(i) for i in ids])
    writer.add_token_types(
        [
            2 if processor.is_unknown(i) else 3 if processor.is_control(i) else
            6 if processor.is_byte(i) else 1
            for i in ids
        ]
    )  # fmt: skip
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    close(writer)


def close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
