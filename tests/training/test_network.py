"""The network in PyTorch: equal to transformers' and the engine's, and blind across documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from oneiros.engine.engine import Engine
from oneiros.engine.sequence import Sequence
from oneiros.errors import ModelFileError, TrainingError
from oneiros.model.architecture import RopeScaling
from oneiros.model.convert import convert
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import load_tokenizer
from oneiros.training.network import (
    Network,
    NetworkConfig,
    attend,
    block_mask,
    dense_mask,
    score_mask,
)
from oneiros.training.weights import load_model, open_tokenizer, save_folder
from tests.model.builders import (
    LLAMA3_SCALING,
    VOCABULARY,
    build_folder,
    build_gguf,
    tiny_architecture,
)

TEXT = (
    "The quick brown fox jumps over the lazy dog. Причина 北京 £9.99\n\n\tdef f(x): return x ** 2"
)
DOCUMENTS = torch.tensor([[0] * 5 + [1] * 9 + [2] * 2, [0] * 1 + [1] * 3 + [2] * 12])

tiny = NetworkConfig(
    vocabulary=VOCABULARY,
    layers=2,
    width=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn_width=128,
    context=256,
)
SHAPES = {
    "llama": tiny,
    "wide heads": replace(tiny, head_dim=32, kv_heads=4),
    "untied": replace(tiny, tied=False),
    "qwen2": replace(tiny, attention_bias=True),
    "qwen3": replace(tiny, qk_norm=True, head_dim=32),
    "llama 3.1": replace(tiny, rope_scaling=LLAMA3_SCALING, rope_base=500000.0),
    "stretched": replace(tiny, rope_scaling=RopeScaling("linear", 4.0)),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer for the tiny networks."""
    return build_folder(tmp_path_factory.mktemp("tokenizer") / "tiny", tiny_architecture("qwen2"))


def random_network(config: NetworkConfig, seed: int = 0) -> Network:
    """With norms and biases that are not just ones and zeros."""
    network = Network(config)
    network.initialise(seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=random)
        network.embedding.weight *= 20
    return network.eval()


def random_tokens(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits_of(network: Network, tokens: torch.Tensor, documents: torch.Tensor | None = None):
    return network(tokens, documents).numpy()


# --- the same as others -----------------------------------------------------------------------


def test_logits_of_the_default_model_equal_those_of_transformers(default_model_path, tmp_path):
    convert(default_model_path, tmp_path / "folder", tensor_type=TensorType.F32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "folder", dtype=torch.float32)
    ids = load_tokenizer(open_parameters(default_model_path)).encode(TEXT)
    tokens = torch.tensor([ids])
    with torch.no_grad():
        expected = theirs(tokens).logits.numpy()
    del theirs
    ours = load_model(default_model_path)
    assert ours.config == NetworkConfig.of(open_parameters(tmp_path / "folder").architecture)
    assert np.abs(logits_of(ours, tokens) - expected).max() < 1e-4


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_a_saved_network_gives_its_logits_in_transformers_and_in_the_engine(
    config, tokenizer_folder, tmp_path
):
    network, tokens = random_network(config), random_tokens((1, 40))
    expected = logits_of(network, tokens)
    save_folder(network, tmp_path / "saved", tokenizer=tokenizer_folder)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    with torch.no_grad():
        assert np.abs(theirs(tokens).logits.numpy() - expected).max() < 1e-4
    engine = Engine(open_parameters(tmp_path / "saved"), threads=1)
    engines = Sequence(engine).extend(tokens[0].tolist(), logits="all")
    # The engine's cache holds keys and values in half precision.
    assert np.abs(engines - expected[0]).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_files_of_both_kinds_load_as_the_same_network(name, tmp_path):
    architecture = tiny_architecture(name, tied=name == "llama")
    file = load_model(build_gguf(tmp_path / "tiny.gguf", architecture))
    folder = load_model(build_folder(tmp_path / "tiny", architecture))
    assert file.config == folder.config
    tokens = random_tokens((2, 12))
    assert np.array_equal(logits_of(file, tokens), logits_of(folder, tokens))


# --- documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SHAPES["llama"], SHAPES["qwen3"]], ids=["llama", "qwen3"])
def test_a_document_gives_the_same_logits_alone_and_among_others(config):
    network, tokens = random_network(config), random_tokens((2, 16))
    packed = logits_of(network, tokens, DOCUMENTS)
    for row in range(2):
        for document in range(3):
            places = (DOCUMENTS[row] == document).nonzero()[:, 0]
            alone = logits_of(network, tokens[row, places][None])
            assert np.abs(packed[row, places] - alone[0]).max() < 1e-4


@pytest.mark.parametrize("place", range(16))
def test_changing_a_token_changes_no_logit_of_another_document_or_of_an_earlier_place(place):
    network, tokens = random_network(tiny), random_tokens((2, 16))
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % VOCABULARY
    before = logits_of(network, tokens, DOCUMENTS)
    after = logits_of(network, changed, DOCUMENTS)
    for row in range(2):
        same = (DOCUMENTS[row] == DOCUMENTS[row, place]) & (torch.arange(16) >= place)
        assert np.array_equal(before[row, ~same], after[row, ~same])
        assert np.all(before[row, same] != after[row, same])


def test_learning_in_bfloat16_never_looks_into_another_document() -> None:
    network, tokens = random_network(tiny), random_tokens((2, 16))
    changed = tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % VOCABULARY
    with torch.autocast("cpu", torch.bfloat16):
        before, after = (network(ids, DOCUMENTS).detach() for ids in (tokens, changed))
    for row in range(2):
        same = (DOCUMENTS[row] == DOCUMENTS[row, 6]) & (torch.arange(16) >= 6)
        assert torch.equal(before[row, ~same], after[row, ~same])
        assert not torch.equal(before[row, same], after[row, same])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attention_in_blocks_equals_attention_with_a_full_mask():
    random = torch.Generator().manual_seed(0)
    documents = torch.arange(200).div(37, rounding_mode="floor")[None].expand(2, -1).contiguous()
    queries = torch.randn(2, 4, 200, 16, generator=random)
    keys, values = torch.randn(2, 2, 2, 200, 16, generator=random)
    dense = attend(queries, keys, values, dense_mask(documents))
    blocks = attend(queries, keys, values, block_mask(documents))
    torch.testing.assert_close(blocks, dense)


@pytest.mark.parametrize("masked", [False, True], ids=["causal", "documents"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_that_learns_gives_the_values_and_gradients_of_the_fused_one(masked, kv_heads):
    random = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 4, 16, 8, generator=random, requires_grad=True)
    keys, values = torch.randn(2, 2, kv_heads, 16, 8, generator=random)
    inputs = (queries, keys.requires_grad_(), values.requires_grad_())
    direction = torch.randn(2, 4, 16, 8, generator=random)
    documents = DOCUMENTS if masked else None
    mask = dense_mask(DOCUMENTS) if masked else None
    results = []
    for form in (mask, score_mask(torch.zeros(2, 16, 32), documents)):
        found = attend(*inputs, form)
        results.append((found, *torch.autograd.grad(found, inputs, direction)))
    torch.testing.assert_close(results[1], results[0])


# --- saving and loading -----------------------------------------------------------------------


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_a_saved_network_comes_back_bit_by_bit(config, tokenizer_folder, tmp_path):
    network = random_network(config)
    save_folder(network, tmp_path / "saved", tokenizer=tokenizer_folder)
    loaded = load_model(tmp_path / "saved")
    assert loaded.config == config
    values = dict(network.named_parameters())
    assert values.keys() == dict(loaded.named_parameters()).keys()
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, values[name]), name
        assert parameter.requires_grad
    assert torch.equal(loaded.frequencies, network.frequencies)


def test_a_saved_folder_holds_the_tokenizer_and_the_chat_template(tokenizer_folder, tmp_path):
    save_folder(random_network(tiny), tmp_path / "saved", tokenizer=tokenizer_folder)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    ours = open_tokenizer(tmp_path / "saved")
    assert theirs(TEXT)["input_ids"] == ours.encode(TEXT)
    messages = [{"role": "user", "content": "in the end"}]
    assert theirs.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>user\nin the end<|im_end|>\n"
    )
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").config
    assert config.bos_token_id == ours.bos_id
    assert set(config.eos_token_id) == ours.end_ids


def test_the_tokenizer_of_a_gguf_file_goes_along_too(tmp_path):
    file = build_gguf(tmp_path / "tiny.gguf")
    save_folder(load_model(file), tmp_path / "saved", tokenizer=file)
    assert open_tokenizer(tmp_path / "saved").sha256 == open_tokenizer(file).sha256


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2.0**-8), ("float16", 2.0**-11)])
def test_weights_are_stored_in_half_precision_if_asked(
    dtype, tolerance, tokenizer_folder, tmp_path
):
    network = random_network(tiny)
    save_folder(network, tmp_path / "saved", tokenizer=tokenizer_folder, dtype=dtype)
    assert (tmp_path / "saved" / "model.safetensors").stat().st_size < 2.2 * sum(
        parameter.numel() for parameter in network.parameters()
    )
    for ours, loaded in zip(
        network.parameters(), load_model(tmp_path / "saved").parameters(), strict=True
    ):
        torch.testing.assert_close(loaded, ours, rtol=tolerance, atol=1e-7)


def test_a_weight_that_half_precision_cannot_hold_is_named_and_nothing_is_left(
    tokenizer_folder, tmp_path
):
    network = random_network(tiny)
    with torch.no_grad():
        network.blocks[1].feed_forward.up.weight[3, 4] = 1e6
    with pytest.raises(ModelFileError, match=r"layers\.1\.mlp\.up_proj\.weight.*F16"):
        save_folder(network, tmp_path / "saved", tokenizer=tokenizer_folder, dtype="float16")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_with_more_tokens_than_the_network_is_refused(tokenizer_folder, tmp_path):
    network = Network(replace(tiny, vocabulary=VOCABULARY - 1))
    with pytest.raises(TrainingError, match="trained with another tokenizer"):
        save_folder(network, tmp_path / "saved", tokenizer=tokenizer_folder)


def test_nothing_is_overwritten(tokenizer_folder, tmp_path):
    with pytest.raises(ModelFileError, match="exists already"):
        save_folder(Network(tiny), tokenizer_folder, tokenizer=tokenizer_folder)


# --- its numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_heads": 3}, "4 query heads cannot share 3"),
        ({"head_dim": 15}, "odd"),
        ({"layers": 0}, "layers is 0"),
        ({"qk_norm": True, "attention_bias": True}, "either"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(TrainingError, match=message):
        replace(tiny, **changes)


def test_the_same_seed_gives_the_same_network_wherever_it_was_made():
    first = Network(tiny)
    first.initialise(7)
    with torch.device("meta"):
        second = Network(tiny)
    second.to_empty(device="cpu").initialise(7)
    other = Network(tiny)
    other.initialise(8)
    tokens = random_tokens((1, 8))
    assert np.array_equal(logits_of(first, tokens), logits_of(second, tokens))
    assert not np.array_equal(logits_of(first, tokens), logits_of(other, tokens))


def test_a_new_network_knows_nothing():
    network = Network(replace(tiny, layers=6))
    network.initialise(0)
    tokens = random_tokens((4, 64))
    logits = network(tokens).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, tokens.flatten().roll(-1))
    assert abs(loss.item() - np.log(VOCABULARY)) < 0.1


def test_the_head_has_weights_of_its_own_only_where_it_is_untied():
    names = {name for name, _ in Network(tiny).named_parameters()}
    untied = {name for name, _ in Network(SHAPES["untied"]).named_parameters()}
    assert untied - names == {"head.weight"}
