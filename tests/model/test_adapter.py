"""Adapters' folders: what is read, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneiros.errors import ModelFileError, OneirosError, UnsupportedModelError
from oneiros.model.adapter import CONFIG, WEIGHTS, open_adapter
from oneiros.model.parameters import Parameters, open_parameters
from tests.model.adapters import write_adapter
from tests.model.builders import build_folder, build_gguf, tiny_architecture

ARCHITECTURE = tiny_architecture()
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
HEAD = "base_model.model.lm_head"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Parameters:
    return open_parameters(build_folder(tmp_path_factory.mktemp("base") / "base", ARCHITECTURE))


def test_scales_are_lora_s_and_rslora_s(base: Parameters, tmp_path: Path) -> None:
    plain = write_adapter(tmp_path / "plain", ARCHITECTURE, rank=4, alpha=8, targets=["o_proj"])
    ranked = write_adapter(
        tmp_path / "ranked",
        ARCHITECTURE,
        rank=4,
        alpha=8,
        targets=["o_proj"],
        settings={"use_rslora": True},
    )
    one, other = (open_adapter(path, base) for path in (plain, ranked))
    assert set(one.matrices) == {"blk.0.attn_output.weight", "blk.1.attn_output.weight"}
    assert one.sha256 != other.sha256
    for name, low in one.matrices.items():
        np.testing.assert_array_equal(other.matrices[name].b, 2 * low.b)  # sqrt(rank)


def test_rows_follow_the_layout_of_the_model_s_heads(base: Parameters, tmp_path: Path) -> None:
    """GGUF files of Llamas have the rows of q and k in another order than folders."""
    adapter = write_adapter(tmp_path / "adapter", ARCHITECTURE)
    gguf = open_parameters(build_gguf(tmp_path / "base.gguf", ARCHITECTURE))
    in_folder, in_gguf = (open_adapter(adapter, model) for model in (base, gguf))
    for name, low in in_folder.matrices.items():
        there = in_gguf.matrices[name]
        changed = base.tensors[name].float32() + low.b @ low.a
        changed_there = gguf.tensors[name].float32() + there.b @ there.a
        moved = ".attn_q." in name or ".attn_k." in name
        assert np.array_equal(low.b, there.b) is not moved
        np.testing.assert_allclose(
            np.sort(changed.sum(1)), np.sort(changed_there.sum(1)), atol=1e-5
        )


def test_an_adapter_of_some_layers_is_one(base: Parameters, tmp_path: Path) -> None:
    gone = {f"{Q0}.lora_{letter}.weight": None for letter in "AB"}
    path = write_adapter(
        tmp_path / "second",
        ARCHITECTURE,
        targets=["q_proj"],
        settings={"layers_to_transform": [1]},
        tensors=gone,
    )
    assert set(open_adapter(path, base).matrices) == {"blk.1.attn_q.weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern is"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices is"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"something_new": {"on": 1}}, "something_new is"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "target_modules names 'embed_tokens'"),
        ({"r": 257}, r"rank 257; the engine runs up to 256.*train merge"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(
    base: Parameters, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write_adapter(tmp_path / "adapter", ARCHITECTURE, settings=change)
    with pytest.raises(UnsupportedModelError, match=message):
        open_adapter(path, base)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": "4"}, r'"r" is not an integer'),
        ({"r": 0}, r'"r" is 0'),
        ({"lora_alpha": None}, '"lora_alpha" is missing'),
        ({"use_rslora": 1}, '"use_rslora" is not a boolean'),
        ({"r": 5}, r"lora_A has the shape .*, and rank 5"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(
    base: Parameters, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write_adapter(tmp_path / "adapter", ARCHITECTURE, settings=change)
    with pytest.raises(ModelFileError, match=message):
        open_adapter(path, base)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{HEAD}.lora_A.weight": (4, 64), f"{HEAD}.lora_B.weight": (9, 4)}, '"lm_head" has an'),
        ({f"{HEAD}.weight": (9, 64)}, "lm_head.weight.* is no part of a plain LoRA"),
        ({f"{Q0}.lora_magnitude_vector": (64,)}, "lora_magnitude_vector.* is no part"),
        ({f"{Q0}.lora_B.weight": None}, "q_proj.*lora_B is missing"),
        ({f"{Q0}.lora_A.default.weight": (4, 64)}, "q_proj.*lora_A is there twice"),
        ({f"{Q0}.lora_B.weight": (4, 64)}, r"lora_B has the shape \(4, 64\)"),
        (
            {f"{Q0}.lora_{letter}.weight": None for letter in "AB"},
            r"layers\.0\.self_attn\.q_proj\.lora_A is not there",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    base: Parameters, tmp_path: Path, change: dict[str, tuple[int, ...] | None], message: str
) -> None:
    tensors = {n: None if s is None else np.ones(s, np.float32) for n, s in change.items()}
    path = write_adapter(tmp_path / "adapter", ARCHITECTURE, tensors=tensors)
    with pytest.raises(ModelFileError, match=message):
        open_adapter(path, base)


def test_adapters_of_other_models_and_broken_ones_are_refused(
    base: Parameters, tmp_path: Path
) -> None:
    deeper = write_adapter(tmp_path / "deeper", tiny_architecture(layers=3))
    with pytest.raises(ModelFileError, match=r"layers\.2\..* has no place in base, which has 2"):
        open_adapter(deeper, base)
    wider = write_adapter(tmp_path / "wider", tiny_architecture(ffn_width=160))
    with pytest.raises(ModelFileError, match="belongs to another model"):
        open_adapter(wider, base)
    infinite = write_adapter(tmp_path / "infinite", ARCHITECTURE, size=float("inf"))
    with pytest.raises(ModelFileError, match="no number"):
        open_adapter(infinite, base)
    with pytest.raises(ModelFileError, match="holds no adapter"):
        open_adapter(tmp_path, base)
    good = write_adapter(tmp_path / "good", ARCHITECTURE, targets=["v_proj"])
    data = (good / WEIGHTS).read_bytes()
    for length in (0, 7, 60, len(data) - 1):
        (good / WEIGHTS).write_bytes(data[:length])
        with pytest.raises(ModelFileError):
            open_adapter(good, base)
    (good / WEIGHTS).unlink()
    with pytest.raises(ModelFileError):
        open_adapter(good, base)


SCALARS = st.sampled_from([None, True, 0, -1, 1 << 70, 0.5, 1e308, "", "v_proj", "a\x00"])
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from("ab"), SCALARS)
KEYS = ("r", "lora_alpha", "target_modules", "use_rslora", "bias", "layers_to_transform", "other")


@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_configuration_is_read_or_refused(
    base: Parameters, tmp_path: Path, changes: dict[str, object]
) -> None:
    path = tmp_path / "adapter"
    if not path.exists():
        write_adapter(path, ARCHITECTURE, targets=["v_proj"])
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 1, "target_modules": ["v_proj"]}
    (path / CONFIG).write_text(json.dumps(config | changes))
    try:
        open_adapter(path, base)
    except OneirosError as error:
        assert str(error)
