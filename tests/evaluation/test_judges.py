"""Judges that run here: by hand, against plain forward passes, and where they must refuse."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from pipeline.data.schema import Message
from pipeline.evaluation.judges.asking import ONE_LETTER, question
from pipeline.evaluation.judges.llm_local import LocalLlmJudge
from pipeline.evaluation.judges.protocol import Answer, ByScore, JudgeError, Verdict
from pipeline.evaluation.judges.reward import ClassifierScorer, EnsembleScorer, RetokenisedScorer
from pipeline.evaluation.judges.rubric import Criterion, LengthScorer, RubricScorer, function_check, pattern_check
from pipeline.lm.backbone import Backbone
from pipeline.lm.chat import TemplateError
from pipeline.lm.classifier import Classifier
from pipeline.lm.reward import RewardModel
from pipeline.lm.sources import ModelError, resolve
from tests.lm.builders import SIZES, noisy, other_architecture, tiny

ASKED: tuple[Message, ...] = ({"role": "user", "content": "Well?"},)


def answer(text: str, tokens: int = 1, prompt: tuple[Message, ...] = ASKED) -> Answer:
    return Answer(prompt, text, [1], list(range(tokens)), True)


class Fixed:
    """Scores that stand in a table."""

    def __init__(self, name: str, scores: dict[str, float]) -> None:
        self.name, self._scores = name, scores

    def score(self, answers: Sequence[Answer]) -> list[float]:
        return [self._scores[one.text] for one in answers]


# ---- ensemble -----------------------------------------------------------------------------------------------


def test_an_ensemble_pays_for_what_its_members_disagree_on() -> None:
    """(1, 2, 3): mean 2, σ √(2/3) = .8165. (1.9, 1.9, 1.9): 1.9. (5, −1, 2): mean 2, σ √6 = 2.4495."""
    tables = ({"a": 1.0, "b": 1.9, "c": 5.0}, {"a": 2.0, "b": 1.9, "c": -1.0}, {"a": 3.0, "b": 1.9, "c": 2.0})
    members = [Fixed(str(i), table) for i, table in enumerate(tables)]
    answers = [answer(text) for text in "abc"]
    assert EnsembleScorer("e", members, penalty=1.0).score(answers) == pytest.approx([1.183503, 1.9, -0.449490])
    assert EnsembleScorer("e", members, penalty=0.5).score(answers) == pytest.approx([1.591752, 1.9, 0.775255])
    assert EnsembleScorer("e", members, penalty=0.0).score(answers) == pytest.approx([2.0, 1.9, 2.0])
    plain, careful = (ByScore(EnsembleScorer("e", members, penalty=price)) for price in (0.0, 1.0))
    pair = [(answers[0], answers[1])]
    assert (plain.compare(pair)[0].outcome, careful.compare(pair)[0].outcome) == (1.0, 0.0)


# ---- rubric and length --------------------------------------------------------------------------------------


def test_a_rubric_is_a_weighted_sum() -> None:
    criteria = [
        Criterion("polite", pattern_check(r"(?i)\bplease\b", wanted=True), 2.0),
        Criterion("no list", pattern_check(r"(?m)^- ", wanted=False), 0.5),
        Criterion("words", lambda prompt, text: len(text.split()) / 10, -1.0),
        Criterion("echo", lambda prompt, text: prompt in text, 4.0),
    ]
    texts = ["Please sit", "sit\n- down", "Well? no", "pleased"]
    expected = [2 + 0.5 - 0.2, -0.3, 0.5 - 0.2 + 4, 0.5 - 0.1]
    assert RubricScorer("r", criteria).score([answer(text) for text in texts]) == pytest.approx(expected)


@pytest.mark.parametrize("value", [True, 1, 1.0, np.float32(1), np.bool_(True), np.int64(1)])
def test_numbers_of_any_make_are_points(value: Any) -> None:
    assert RubricScorer("r", [Criterion("c", lambda p, a: value)]).score([answer("x")]) == [1.0]


@pytest.mark.parametrize("value", [None, "1", float("nan"), float("inf"), [1.0], np.array([1.0])])
def test_what_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(JudgeError, match=r"judge r, check 'c', answer 1 .* to 'Well\?': gave .*bool or a finite float"):
        RubricScorer("r", [Criterion("c", lambda p, a: value)]).score([answer("x")])


def test_an_error_in_a_check_is_named_with_prompt_and_row() -> None:
    def picky(prompt: str, text: str) -> float:
        return 1 / len(text)

    scorer = RubricScorer("r", [Criterion("c", picky)])
    with pytest.raises(JudgeError, match=r"check 'c', answer 2 .* to 'Well\?': ZeroDivisionError: division") as caught:
        scorer.score([answer("x"), answer("")])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, which isn't on the path."""
    text = "LIMIT = 3\nclass Checks:\n    @staticmethod\n    def short(prompt, answer): return len(answer) < LIMIT\n"
    (tmp_path / "my_checks.py").write_text(text, encoding="utf-8")
    (tmp_path / "my_broken.py").write_text("1 / 0\n", encoding="utf-8")
    (tmp_path / "colorsys.py").write_text("raise SystemError('shadowed')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    monkeypatch.delitem(sys.modules, "my_checks", raising=False)
    return "my_checks"


def test_a_users_function_is_found_in_the_working_directory(module: str) -> None:
    before = list(sys.path)
    check = function_check(f"{module}:Checks.short")
    assert (check("", "ab"), check("", "abcd")) == (True, False)
    assert sys.path == before
    function_check("colorsys:rgb_to_hsv")  # the working directory shadows nothing


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("my_nowhere:f", "ModuleNotFoundError"),
        ("my_checks:f", "AttributeError"),
        ("my_checks:LIMIT", "is int, not a function"),
        ("my_broken:f", "ZeroDivisionError"),
    ],
)
def test_a_function_that_isnt_there_is_one_sentence(module: str, place: str, why: str) -> None:
    with pytest.raises(JudgeError, match=why):
        function_check(place)


def test_length_is_the_control() -> None:
    pairs = [(answer("a", 3), answer("b", 2)), (answer("a", 2), answer("b", 2)), (answer("text", 1), answer("", 9))]
    longer, shorter = ByScore(LengthScorer("l", "longer")), ByScore(LengthScorer("l", "shorter"))
    assert [verdict.outcome for verdict in longer.compare(pairs)] == [1.0, 0.5, 0.0]
    assert [verdict.outcome for verdict in shorter.compare(pairs)] == [0.0, 0.5, 1.0]


# ---- a local language model ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loud(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model that has opinions: its output head is loud."""
    config = LlamaConfig(**SIZES | {"max_position_embeddings": 2048}, eos_token_id=2, bos_token_id=None, pad_token_id=0)
    return str(other_architecture(tmp_path_factory.mktemp("loud"), cache, config))


@pytest.fixture(scope="module")
def backbone(cache: Path, loud: str) -> Backbone:
    """With an adapter that would change every figure if it acted."""
    return noisy(tiny(cache, name=loud), "sft", std=1.0)


PAIRS = [(answer("yes, of course"), answer("no")), (answer("no"), answer("perhaps")), (answer("a"), answer("bb"))]


def plain_margin(folder: str, first: Answer, second: Answer) -> float:
    """log π("A") − log π("B") by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    message = [{"role": "user", "content": question(first, second, "Be fair.", ONE_LETTER)}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        table = AutoModelForCausalLM.from_pretrained(folder)(ids).logits[0, -1].log_softmax(-1)
    a, b = (tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB")
    return float(table[a] - table[b])


@pytest.mark.parametrize("size", [1, 4])
def test_log_probs_are_those_of_a_plain_forward_pass(backbone: Backbone, loud: str, size: int) -> None:
    found = LocalLlmJudge("l", backbone, instructions="Be fair.", batch_size=size)
    orders = [shown for first, second in PAIRS for shown in ((first, second), (second, first))]
    asked = [tuple(found.ids(*shown)) for shown in orders]
    margins = found.margins(asked)
    expected = [plain_margin(loud, *shown) for shown in orders]
    assert [margins[ids] for ids in asked] == pytest.approx(expected, abs=2e-5)
    assert max(abs(margin) for margin in expected) > 0.01
    for (first, second), verdict in zip(PAIRS, found.compare(PAIRS), strict=True):
        one, other = plain_margin(loud, first, second), plain_margin(loud, second, first)
        assert verdict == Verdict(float(one > other), (float(one > 0), float(other < 0)))


def test_equal_answers_are_exactly_a_tie(backbone: Backbone) -> None:
    same = [(answer(text), answer(text)) for text in ("", "yes", "no, not at all")]
    found = LocalLlmJudge("l", backbone, instructions="").compare([*PAIRS, *same])[len(PAIRS) :]
    assert [verdict.outcome for verdict in found] == [0.5] * 3
    assert all(verdict.orders in ((1.0, 0.0), (0.0, 1.0)) for verdict in found)  # it likes a letter, whatever it reads


def test_a_margin_up_to_tie_is_one(backbone: Backbone, loud: str) -> None:
    first, second = PAIRS[0]
    mean = (plain_margin(loud, first, second) - plain_margin(loud, second, first)) / 2
    for tie, expected in ((abs(mean) * 0.99, float(mean > 0)), (abs(mean) * 1.01, 0.5)):
        judge = LocalLlmJudge("l", backbone, instructions="Be fair.", tie=tie)
        assert judge.compare(PAIRS[:1])[0].outcome == expected


def test_a_question_that_is_too_long_is_refused(backbone: Backbone) -> None:
    with pytest.raises(JudgeError, match="the model reads 2048"):
        LocalLlmJudge("l", backbone, instructions="").compare([(answer("x" * 3000), answer("y"))])


def test_letters_that_begin_alike_are_refused(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone.chat, "completion_ids", lambda messages, text: [7, ord(text)])
    with pytest.raises(JudgeError, match="same token"):
        LocalLlmJudge("l", backbone, instructions="").letters()


# ---- reward models from elsewhere ---------------------------------------------------------------------------


def classifier(folder: Path, cache: Path, labels: int = 1, **changes: Any) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, num_labels=labels, bos_token_id=None, eos_token_id=2, pad_token_id=2, **changes)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("tiny", cache_dir=cache)).save_pretrained(folder)
    return folder


def test_a_classifier_scores_what_its_own_template_writes(cache: Path, tmp_path: Path) -> None:
    """Pad is the end of turn here, which stands in every conversation: padding would mislead it."""
    folder = classifier(tmp_path / "rm", cache)
    answers = [answer(text) for text in ("yes", "no", "of course", "yes", "x")]
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    for one in answers:
        text = tokenizer.apply_chat_template([*ASKED, {"role": "assistant", "content": one.text}], tokenize=False)
        with torch.no_grad():
            expected.append(model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits.item())
    for size in (1, 3):
        scorer = ClassifierScorer("rm", Classifier.load(str(folder), device="cpu"), batch_size=size)
        found = scorer.score(answers)
        assert found == pytest.approx(expected, abs=1e-6)
        assert found[0] == found[3]
    assert len({round(score, 5) for score in expected}) == 4


def test_what_is_no_reward_model_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 2 labels; a reward model has one"):
        Classifier.load(str(classifier(tmp_path / "two", cache, labels=2)), device="cpu")
    with pytest.raises(ModelError, match=r"was saved without score\.weight"):
        Classifier.load(resolve_as_classifier(cache, tmp_path / "causal"), device="cpu")
    with pytest.raises(ModelError, match="can't be loaded"):
        Classifier.load(str(tmp_path / "nowhere"), device="cpu")
    folder = classifier(tmp_path / "pickled", cache)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="can't be loaded"):
        Classifier.load(str(folder), device="cpu")
    folder = classifier(tmp_path / "mute", cache)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(TemplateError, match="no chat template"):
        Classifier.load(str(folder), device="cpu")


def resolve_as_classifier(cache: Path, folder: Path) -> str:
    """A causal model's folder whose config says one label: its head would be random."""
    model = AutoModelForCausalLM.from_pretrained(resolve("tiny", cache_dir=cache))
    model.config.num_labels = 1
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("tiny", cache_dir=cache)).save_pretrained(folder)
    return str(folder)


def test_a_reward_model_on_another_base_reads_texts_by_its_own_tokenizer(cache: Path) -> None:
    model = RewardModel(noisy(tiny(cache), "judge", head=True), "judge")
    chat = model.backbone.chat
    whole, cut = Answer(ASKED, "yes", [9, 9], [8], True), Answer(ASKED, "yes", [9, 9], [8], False)
    prompt, ids = chat.prompt_ids(ASKED), chat.completion_ids(ASKED, "yes")
    expected = [model.scores([prompt + ids]).item(), model.scores([prompt + ids[:-1]]).item()]
    assert RetokenisedScorer(model, name="other").score([whole, cut]) == pytest.approx(expected, abs=1e-6)
    assert expected[0] != pytest.approx(expected[1], abs=1e-4)
