"""What a model is shown: prompts to the letter, and answers found in replies."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.errors import EvaluationError
from oneiros.evaluation.gauntlet import benchmark_suite, examples_for
from oneiros.evaluation.items import Choice, Cloze, Reply, Suite, prompt_sha256
from oneiros.evaluation.questions import counting, final_number, question_suite, spelling, spelt
from oneiros.evaluation.reversal import OPTIONS, reversal_suite
from oneiros.evaluation.suites import Selection, suite_names


def write(path: Path, *records: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def suite(
    name: str, folder: Path, shots: int | None = None, *, seed: int = 1, fixed: bool = False
) -> Suite:
    return benchmark_suite(
        name, folder, shots=shots, seed=seed, choose=lambda n: range(n), fixed_shots=fixed
    )


def choices(count: int) -> list[dict[str, object]]:
    return [
        {"query": f"Question: q{i}\n", "choices": [f"no{i}", f"yes{i} "], "gold": 1}
        for i in range(count)
    ]


def test_multiple_choice_without_examples(tmp_path: Path) -> None:
    write(tmp_path / "piqa.jsonl", *choices(2))
    item = suite("piqa", tmp_path, 0).items[1]
    assert isinstance(item, Choice)
    assert {o.context for o in item.options} == {"Question: q1\nAnswer:"}
    assert [o.continuation for o in item.options] == [" no1", " yes1"]
    assert item.gold == 1


def test_examples_are_solved_and_each_on_a_line_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "piqa.jsonl", *choices(2))
    item = suite("piqa", tmp_path, 1).items[0]
    assert isinstance(item, Choice)
    expected = "Question: q1\nAnswer: yes1\nQuestion: q0\nAnswer:"
    assert item.options[0].context == expected


def test_choices_without_a_delimiter_follow_after_a_space(tmp_path: Path) -> None:
    copa = {"query": "It rained, because", "choices": ["a.", "b."], "gold": 0}
    write(tmp_path / "copa.jsonl", copa, copa | {"query": "It snowed, so"})
    item = suite("copa", tmp_path, 1).items[0]
    assert isinstance(item, Choice)
    assert item.options[1].context == "It snowed, so a.\nIt rained, because"
    assert item.options[1].continuation == " b."


def test_schemas_score_one_ending_after_several_contexts(tmp_path: Path) -> None:
    schema = {
        "context_options": ["The cup is in the bag as the cup", "... as the bag"],
        "continuation": "is small.",
        "gold": 0,
    }
    write(tmp_path / "winograd_wsc.jsonl", schema)
    item = suite("winograd", tmp_path).items[0]
    assert isinstance(item, Choice)
    assert [o.context for o in item.options] == schema["context_options"]
    assert {o.continuation for o in item.options} == {" is small."}


def test_the_end_of_a_text(tmp_path: Path) -> None:
    write(tmp_path / "lambada_openai.jsonl", {"context": "He saw the ", "continuation": "sea"})
    item = suite("lambada", tmp_path).items[0]
    assert isinstance(item, Cloze)
    assert (item.text.context, item.text.continuation) == ("He saw the", " sea")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 12), st.integers(0, 9), st.data())
def test_no_item_is_an_example_of_its_own(
    count: int, shots: int, seed: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, count - 1))
    shown = examples_for(index, count, shots, Random(seed))
    assert index not in shown
    assert len(set(shown)) == len(shown) == min(shots, count - 1)


def test_examples_are_the_seeds_and_the_items_own_unless_fixed(tmp_path: Path) -> None:
    write(tmp_path / "piqa.jsonl", *choices(30))

    def before(seed: int, fixed: bool) -> list[str]:
        items = suite("piqa", tmp_path, 3, seed=seed, fixed=fixed).items.values()
        contexts = [i.options[0].context for i in items if isinstance(i, Choice)]
        return ["\n".join(context.split("\n")[:6]) for context in contexts]

    assert before(1, False) == before(1, False) != before(2, False)
    assert len(set(before(1, False))) > 20
    assert len(set(before(1, True))) <= 4  # one, but where the item itself had to be left out


def test_baselines_are_a_guess_or_always_the_commonest_answer(tmp_path: Path) -> None:
    four = {"query": "q", "choices": ["w", "x", "y", "z"], "gold": 0}
    write(tmp_path / "openbook_qa.jsonl", four, four | {"choices": ["1", "2", "3", "4"]})
    yes, no = ({"query": "q", "choices": ["no", "yes"], "gold": g} for g in (1, 0))
    write(tmp_path / "boolq.jsonl", yes, yes, yes, no)
    assert suite("openbook_qa", tmp_path, 0).baseline == 0.25
    assert suite("boolq", tmp_path, 0).baseline == 0.75


def test_malformed_data_are_named_by_line(tmp_path: Path) -> None:
    good = {"query": "q", "choices": ["a", "b"], "gold": 0}
    for bad, message in (
        (good | {"gold": 2}, "names none of the options"),
        ({"query": "q", "choices": ["a"]}, '"gold" is missing'),
        ({"query": 3, "choices": ["a"], "gold": 0}, '"query" is missing or of another type'),
    ):
        write(tmp_path / "copa.jsonl", good, bad)
        with pytest.raises(EvaluationError, match=f"copa.jsonl, line 2: .*{message}"):
            suite("copa", tmp_path)
    (tmp_path / "copa.jsonl").write_text("{\n")
    with pytest.raises(EvaluationError, match="line 1: not JSON"):
        suite("copa", tmp_path)
    with pytest.raises(EvaluationError, match=r"piqa\.jsonl: no such file.*ONEIROS_DATA"):
        suite("piqa", tmp_path)


def question_items(name: str, data: Path | None = None, *, chat: bool, shots: int = 2) -> Suite:
    return question_suite(
        name,
        data,
        shots=shots,
        seed=1,
        choose=lambda n: range(min(n, 5)),
        fixed_shots=False,
        chat=chat,
    )


def test_word_problems_for_base_and_chat_models(tmp_path: Path) -> None:
    solved = {"question": "1+1?", "answer": "It is 1+1=<<1+1=2>>2.\n#### 2"}
    asked = {"question": "Cost?", "answer": "Much: <<1=1>>\n#### 1,234"}
    write(tmp_path / "math" / "gsm8k-train.jsonl", solved)
    write(tmp_path / "math" / "gsm8k-test.jsonl", asked)
    base = question_items("gsm8k", tmp_path, chat=False).items[0]
    chat = question_items("gsm8k", tmp_path, chat=True).items[0]
    assert isinstance(base, Reply) and isinstance(chat, Reply)
    lead = "A: Let's think step by step."
    assert base.prompt == f"Q: 1+1?\n{lead} It is 1+1=2. #### 2\nQ: Cost?\n{lead}"
    assert chat.prompt == (
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "It is 1+1=2. #### 2"},
        {"role": "user", "content": "Cost?"},
    )
    assert base.gold == chat.gold == "1234"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 and 4 make 7.", "7"),
        ("#### 1,234 dollars, 5 left", "1234"),
        ("It is $12.50", "12.5"),
        ("#### -3", "-3"),
        ("2.0 apples", "2"),
        ("first #### 1 then #### 20", "20"),
        ("100", "100"),
        ("none at all", None),
    ],
)
def test_the_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


@settings(max_examples=30, deadline=None)
@given(st.integers(-(10**9), 10**9))
def test_any_whole_number_is_found_as_it_is_written(value: int) -> None:
    assert final_number(f"12 of them, so #### {value:,}") == str(value)


@settings(max_examples=30, deadline=None)
@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=20), st.sampled_from("-, "))
def test_a_spelt_word_is_found(word: str, separator: str) -> None:
    assert spelt(f"Here it is: {separator.join(word)}.") == "-".join(word)


def test_a_word_that_is_not_spelt_is_no_answer() -> None:
    assert spelt("The word is strawberry.") is None
    assert spelt("A cat: C-A-T, of course") == "c-a-t"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_generated_questions_have_exact_answers(seed: int) -> None:
    for question in spelling(Random(seed), 5):
        assert f'"{question.answer.replace("-", "")}"' in question.text
    for question in counting(Random(seed), 5):
        _, letter, _, word, _ = question.text.split('"')
        assert question.answer == str(word.count(letter))


def test_generated_questions_are_the_seeds() -> None:
    items = [question_items("counting", chat=False).items for _ in range(2)]
    assert [*map(prompt_sha256, items[0].values())] == [*map(prompt_sha256, items[1].values())]


def test_the_reversal_curse_is_a_choice_among_the_answers_of_a_file(data_folder: Path) -> None:
    found = reversal_suite(
        "reversal_backward", data_folder / "reversal", seed=1, choose=lambda n: [0, n - 1]
    )
    assert list(found.items) == [0, 599]
    assert found.baseline == 1 / OPTIONS
    item = found.items[0]
    assert isinstance(item, Choice) and item.exact
    assert len({o.continuation for o in item.options}) == OPTIONS
    assert item.options[item.gold].continuation == " Daphne Barrington"
    assert item.options[0].context.startswith("Immersed in the world of directing")


def test_groups_stand_for_their_suites_and_unknown_names_are_refused() -> None:
    assert suite_names(["copa", "core", "copa"])[:2] == ["copa", "lambada"]
    assert len(suite_names(["core", "reversal", "bits-per-byte"])) == 9 + 4 + 1
    with pytest.raises(EvaluationError, match=r'no suite "mmlu".*piqa'):
        suite_names(["mmlu"])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 5))
def test_a_limit_draws_items_in_order_and_a_larger_one_adds_to_them(
    count: int, limit: int, seed: int
) -> None:
    chosen = Selection(None, limit=limit, seed=seed).choose("piqa", count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(limit, count) and set(chosen) <= set(range(count))
    more = Selection(None, limit=limit + 10, seed=seed).choose("piqa", count)
    assert set(chosen) <= set(more)
