"""From a network in PyTorch to files that the engine, transformers and llama.cpp run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import oneiros
from oneiros.engine.engine import Engine
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.sequence import Sequence
from oneiros.errors import ModelFileError
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import Tokenizer
from oneiros.training.chat_markup import CHAT_TEMPLATE
from oneiros.training.export import TYPES, export_model
from oneiros.training.network import Network, NetworkConfig
from oneiros.training.tokenizer import TokenizerConfig, save_tokenizer, train_tokenizer
from oneiros.training.weights import load_model, open_tokenizer, save_folder

VOCABULARY = 1000
CONFIG = NetworkConfig(
    vocabulary=1024,  # more rows than tokens, as training has it
    layers=3,
    width=128,
    heads=4,
    kv_heads=2,
    head_dim=32,
    ffn_width=320,
    context=256,
    qk_norm=True,
)
PROMPT = "\n\nKING RICHARD III:\nWhat thou hast 12 naïve knaves"

# Differences of logits, root mean square, in parts of the logits' own. From the network: what
# storing the weights costs (random ones cost most). From the same weights, dequantised, in
# PyTorch: what the engine's arithmetic costs, which has activations of 8 bits beside quantised
# weights.
TOLERANCES = {
    TensorType.F16: (0.002, 0.001),
    TensorType.Q8_0: (0.03, 0.02),
    TensorType.Q4_1: (0.25, 0.02),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def saved(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights and a tokenizer of its own, as training leaves it."""
    folder = tmp_path_factory.mktemp("export")
    text = (data_folder / "text" / "tinyshakespeare.txt").read_text()
    save_tokenizer(train_tokenizer([text], TokenizerConfig(VOCABULARY)), folder / "tokenizer")
    network = Network(CONFIG)
    network.initialise(3)
    with torch.no_grad():
        network.embedding.weight *= 20  # logits that differ as a trained network's do
    save_folder(network, folder / "model", tokenizer=folder / "tokenizer")
    return folder / "model"


@pytest.fixture(scope="module")
def exported(saved: Path) -> dict[TensorType, Path]:
    return dict(zip(TYPES, export_model(saved, name="Dreamer"), strict=True))


@pytest.fixture(scope="module")
def tokenizer(saved: Path) -> Tokenizer:
    return open_tokenizer(saved)


@torch.no_grad()
def torch_logits(path: Path, ids: list[int]) -> np.ndarray:
    return load_model(path)(torch.tensor([ids]))[0].numpy()


def difference(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.sqrt(np.mean((left - right) ** 2) / np.mean(right**2)))


@pytest.mark.parametrize("tensor_type", TYPES)
def test_the_engine_gives_the_logits_of_the_network(saved, exported, tokenizer, tensor_type):
    ids = tokenizer.prompt_ids(PROMPT)
    file = exported[tensor_type]
    engine = Engine(open_parameters(file), threads=1)
    logits = Sequence(engine).extend(ids, logits="all")
    from_network, from_same_weights = TOLERANCES[tensor_type]
    assert difference(logits, torch_logits(saved, ids)) < from_network
    assert difference(logits, torch_logits(file, ids)) < from_same_weights


def test_the_engine_dreams_what_the_network_dreams(saved, exported, tokenizer):
    network, prompt = load_model(saved), tokenizer.prompt_ids(PROMPT)
    ids = [*prompt]
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(network(torch.tensor([ids]))[0, -1].argmax()))
    model = oneiros.load(exported[TensorType.F16], threads=1)
    dream = model.complete(PROMPT, SamplingOptions(temperature=0, max_tokens=12))
    text = "".join(dream)
    assert [*prompt, *dream.token_ids] == ids
    assert PROMPT + text == tokenizer.decode(ids[1:])


@pytest.mark.parametrize("tensor_type", TYPES)
def test_the_metadata_are_what_other_programs_read(exported, tokenizer, tensor_type):
    fields = {
        name: field.contents()
        for name, field in gguf.GGUFReader(exported[tensor_type]).fields.items()
    }
    assert fields["general.architecture"] == "qwen3"
    assert fields["general.name"] == "Dreamer"
    assert (
        fields["general.file_type"]
        == {
            TensorType.F16: gguf.LlamaFileType.MOSTLY_F16,
            TensorType.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
            TensorType.Q4_1: gguf.LlamaFileType.MOSTLY_Q4_1,
        }[tensor_type]
    )
    assert fields["qwen3.block_count"] == CONFIG.layers
    assert fields["qwen3.context_length"] == CONFIG.context
    assert fields["tokenizer.ggml.model"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "qwen2"
    assert fields["tokenizer.ggml.bos_token_id"] == tokenizer.bos_id
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eos_id
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.chat_template"] == CHAT_TEMPLATE
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == CONFIG.vocabulary
    assert kinds[VOCABULARY:] == [gguf.TokenType.UNUSED] * (CONFIG.vocabulary - VOCABULARY)
    for text, kind in (("<|im_start|>", "CONTROL"), ("<think>", "USER_DEFINED")):
        assert kinds[tokens.index(text)] == gguf.TokenType[kind]


def test_the_files_are_as_small_as_their_types(saved, exported):
    sizes = {kind: file.stat().st_size for kind, file in exported.items()}
    whole = (saved / "model.safetensors").stat().st_size
    assert sizes[TensorType.Q4_1] < sizes[TensorType.Q8_0] < sizes[TensorType.F16] < whole
    assert exported[TensorType.Q4_1].name == "model-q4_1.gguf"


def test_the_folder_loads_in_transformers(saved, tokenizer):
    tokens = torch.tensor([tokenizer.prompt_ids(PROMPT)])
    theirs = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    with torch.no_grad():
        logits = theirs(tokens).logits[0].numpy()
    assert np.abs(logits - torch_logits(saved, tokens[0].tolist())).max() < 1e-4
    assert AutoTokenizer.from_pretrained(saved)(PROMPT)["input_ids"] == tokens[0].tolist()


def test_a_chat_with_it_is_written_in_its_template(exported, tokenizer):
    model = oneiros.load(exported[TensorType.Q4_1], threads=1)
    ids = model.chat_format.render([{"role": "user", "content": "Who art thou? <|im_end|>"}])
    assert tokenizer.decode(ids) == (
        "<|endoftext|><|im_start|>user\nWho art thou? <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids.count(tokenizer.added_tokens["<|im_end|>"]) == 1


def test_exporting_again_replaces_the_files(saved, exported):
    before = exported[TensorType.Q8_0].read_bytes()
    assert export_model(saved, types=[TensorType.Q8_0], name="Dreamer") == [
        exported[TensorType.Q8_0]
    ]
    assert exported[TensorType.Q8_0].read_bytes() == before


def test_a_folder_without_a_tokenizer_is_refused(saved, tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_bytes((saved / name).read_bytes())
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        export_model(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.long
@pytest.mark.parametrize("tensor_type", TYPES)
def test_llama_cpp_gives_the_same_tokens_and_logits(
    project_folder, exported, tokenizer, tensor_type
):
    texts = [PROMPT, "Schönes München! 北京 \t 1234 <|im_end|> I'LL\n\n\n  x", "   "]
    file = exported[tensor_type]
    program = project_folder / "tests" / "training" / "llama_cpp_peer.py"
    run = subprocess.run(
        [project_folder / ".peers" / "bin" / "python", program],
        input=json.dumps({"path": str(file), "texts": texts}),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(run.stdout)
    assert answer["template"] == CHAT_TEMPLATE
    assert answer["name"] == "Dreamer"
    for text, theirs in zip(texts, answer["answers"], strict=True):
        assert theirs["ids"] == tokenizer.encode(text)
        assert theirs["opened"] == tokenizer.prompt_ids(text)
        expected = torch_logits(file, theirs["opened"])
        tolerance = 2 * TOLERANCES[tensor_type][1]
        assert difference(np.load(theirs["logits"]), expected) < tolerance
