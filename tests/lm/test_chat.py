"""Templates: what is taught is what will be sampled, and endings are learned."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.lm.chat import CHATML, PLAIN, ChatFormat, TemplateError
from pipeline.lm.sources import resolve

QUESTION = [{"role": "user", "content": "Hi"}]
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you"},
]
BARE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Shows the answer only while it is the last turn, as templates that strip earlier reasoning do.
FORGETFUL = (
    "{% for m in messages %}<{{ m['role'] }}>"
    "{{ m['content'] if m['role'] == 'user' or loop.last else '…' }}{{ eos_token if m['role'] == 'assistant' }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Writes something into the prompt once an answer follows.
SHIFTY = (
    "{% if messages[-1]['role'] == 'assistant' %}[answered]{% endif %}"
    "{% for m in messages %}{{ m['content'] }}{{ eos_token if m['role'] == 'assistant' }}{% endfor %}"
)


@pytest.fixture
def tokenizer(cache: Path) -> Any:
    return AutoTokenizer.from_pretrained(resolve("tiny", cache_dir=cache))


def template(tokenizer: Any, text: str, folder: Path) -> ChatFormat:
    path = folder / "template.jinja"
    path.write_text(text, encoding="utf-8")
    return ChatFormat(tokenizer, template=str(path))


def taught(chat: ChatFormat, messages: list[dict[str, str]]) -> list[str]:
    """The supervised stretches as text, special tokens shown."""
    encoded = chat.encode(messages)
    runs: list[list[int]] = []
    previous = False
    for token, flag in zip(encoded.ids, encoded.supervised, strict=True):
        if flag and not previous:
            runs.append([])
        if flag:
            runs[-1].append(token)
        previous = flag
    return [chat.tokenizer.decode(run) for run in runs]


# ---- what the templates write -------------------------------------------------------------------------------


def test_chatml(tokenizer: Any) -> None:
    chat = ChatFormat(tokenizer, template="chatml")
    assert tokenizer.decode(chat.prompt_ids(QUESTION)) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(chat.completion_ids(QUESTION, "Hello")) == "Hello<|im_end|>"


def test_plain(tokenizer: Any) -> None:
    chat = ChatFormat(tokenizer, template="plain")
    assert tokenizer.decode(chat.prompt_ids(QUESTION)) == "Hi\n"
    assert tokenizer.decode(chat.completion_ids(QUESTION, "Hello")) == "Hello<|im_end|>"


def test_the_models_own_template_is_the_default(tokenizer: Any) -> None:
    own = tokenizer.chat_template
    assert ChatFormat(tokenizer).tokenizer.chat_template == own
    tokenizer.chat_template = PLAIN
    assert tokenizer.decode(ChatFormat(tokenizer).prompt_ids(QUESTION)) == "Hi\n"


def test_a_template_file(tokenizer: Any, tmp_path: Path) -> None:
    chat = template(tokenizer, BARE, tmp_path)
    assert tokenizer.decode(chat.prompt_ids(QUESTION)) == "<user>Hi<assistant>"
    # It writes no end of turn, so EOS is taught all the same: else generation would never stop.
    assert chat.completion_ids(QUESTION, "Yo")[-1] == tokenizer.eos_token_id


# ---- what is taught -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chatml", "plain"])
@pytest.mark.parametrize("answer", ["Hello", "Grüße, 你好 🙂", "two\nlines", "x"])
def test_training_tokens_are_the_ones_the_policy_would_see_and_emit(tokenizer: Any, name: str, answer: str) -> None:
    chat = ChatFormat(tokenizer, template=name)
    encoded = chat.encode([*QUESTION, {"role": "assistant", "content": answer}])
    prompt, completion = chat.prompt_ids(QUESTION), chat.completion_ids(QUESTION, answer)
    assert encoded.ids == prompt + completion
    assert encoded.supervised == [False] * len(prompt) + [True] * len(completion)
    assert chat.decode(completion) == answer


@pytest.mark.parametrize("name", ["chatml", "plain"])
def test_every_assistant_turn_is_taught_with_its_stop_token_and_nothing_else(tokenizer: Any, name: str) -> None:
    chat = ChatFormat(tokenizer, template=name)
    assert taught(chat, TALK) == ["Hello<|im_end|>", "See you<|im_end|>"]


def test_the_context_between_turns_is_the_template_to_the_letter(tokenizer: Any) -> None:
    """The newline that chatml writes after <|im_end|> is context: the policy stops before it."""
    chat = ChatFormat(tokenizer, template="chatml")
    encoded = chat.encode(TALK)
    whole = tokenizer.apply_chat_template(TALK, tokenize=False)
    assert tokenizer.decode(encoded.ids) == whole.removesuffix("\n")
    newline = next(i for i, flag in enumerate(encoded.supervised) if flag) + len("Hello") + 1
    assert tokenizer.decode(encoded.ids[newline : newline + 1]) == "\n"
    assert not encoded.supervised[newline]


def test_the_end_is_taught_also_when_pad_and_eos_are_one_token(tokenizer: Any) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    assert taught(ChatFormat(tokenizer), TALK) == ["Hello<|im_end|>", "See you<|im_end|>"]


def test_a_missing_pad_token_becomes_eos(tokenizer: Any) -> None:
    tokenizer.pad_token = None
    chat = ChatFormat(tokenizer)
    assert chat.tokenizer.pad_token_id == chat.tokenizer.eos_token_id
    assert taught(chat, TALK)[-1] == "See you<|im_end|>"


def test_stop_ids_are_eos_and_those_of_the_model(tokenizer: Any) -> None:
    assert ChatFormat(tokenizer, stop_ids=[9, 5, 9]).stop_ids == (2, 5, 9)


def test_an_answer_ends_at_whichever_stop_token_the_template_writes(tokenizer: Any) -> None:
    """Here the model stops at <|im_start|> too, and the template ends turns with it."""
    tokenizer.chat_template = BARE.replace(
        "{% endfor %}", "{% if m['role'] == 'assistant' %}<|im_start|>{% endif %}{% endfor %}"
    )
    chat = ChatFormat(tokenizer, stop_ids=[1])
    assert chat.completion_ids(QUESTION, "Yo")[-1] == 1
    assert tokenizer.decode(chat.completion_ids(QUESTION, "Yo")) == "Yo<|im_start|>"


def test_the_templates_end_token_is_a_stop_token_though_the_model_names_another(tokenizer: Any) -> None:
    """As of a base model: its own end is <|endoftext|>, chatml ends turns with <|im_end|>."""
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    chat = ChatFormat(tokenizer, template="chatml", stop_ids=[tokenizer.eos_token_id])
    assert [tokenizer.convert_ids_to_tokens(token) for token in chat.stop_ids] == ["<|im_end|>", "<|endoftext|>"]
    assert tokenizer.decode(chat.completion_ids(QUESTION, "Yo")) == "Yo<|im_end|>"


def test_what_ends_turns_as_plain_text_is_no_stop_token(tokenizer: Any, tmp_path: Path) -> None:
    text = BARE.replace("{% endfor %}", "{{ '###' if m['role'] == 'assistant' }}{% endfor %}")
    assert template(tokenizer, text, tmp_path).stop_ids == (2,)


def test_llama3(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"})
    tokenizer.add_tokens(["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], special_tokens=True)
    chat = ChatFormat(tokenizer, template="llama3")
    shown = tokenizer.decode(chat.prompt_ids(QUESTION))
    assert shown == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert tokenizer.decode(chat.completion_ids(QUESTION, "Yo")) == "Yo<|eot_id|>"
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") in chat.stop_ids


def test_decoding_drops_special_tokens_and_outer_space(tokenizer: Any) -> None:
    chat = ChatFormat(tokenizer)
    assert chat.decode(chat.completion_ids(QUESTION, " Hello ")) == "Hello"


def test_no_second_beginning_of_sequence(tokenizer: Any) -> None:
    """The template writes BOS, and the tokenizer would add one of its own."""
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    assert tokenizer("Hi")["input_ids"][0] == 1  # the trap is set
    tokenizer.chat_template = "{{ bos_token }}" + PLAIN
    chat = ChatFormat(tokenizer)
    assert chat.encode([*QUESTION, {"role": "assistant", "content": "Yo"}]).ids.count(1) == 1


# ---- what is refused ----------------------------------------------------------------------------------------


def test_no_template_names_the_setting(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(
        TemplateError, match=r"no chat template; set model\.chat_template to chatml, llama3, plain or a file"
    ):
        ChatFormat(tokenizer)


def test_a_template_that_is_no_file_is_quoted(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match="'chatlm': neither 'chatml', 'llama3', 'plain' nor a file"):
        ChatFormat(tokenizer, template="chatlm")


def test_no_end_of_sequence_token_is_refused(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(TemplateError, match="no end-of-sequence token"):
        ChatFormat(tokenizer)


def test_a_template_that_changes_the_prompt_once_answered_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    chat = template(tokenizer, SHIFTY, tmp_path)
    with pytest.raises(TemplateError, match=r"renders a prompt differently.*set model\.chat_template"):
        chat.completion_ids(QUESTION, "Yo")


def test_a_template_that_rewrites_earlier_turns_is_refused_for_conversations_only(
    tokenizer: Any, tmp_path: Path
) -> None:
    chat = template(tokenizer, FORGETFUL, tmp_path)
    assert taught(chat, TALK[1:3]) == ["Hello<|im_end|>"]
    with pytest.raises(TemplateError, match="rewrites earlier turns; use single-turn data or another template"):
        chat.encode(TALK[1:])


def test_a_template_that_cant_render_a_conversation_says_so(tokenizer: Any, tmp_path: Path) -> None:
    """Many templates raise for a system turn; that must come out as a template's error, not Jinja's."""
    chat = template(tokenizer, "{{ raise_exception('System role not supported') }}" + CHATML, tmp_path)
    with pytest.raises(TemplateError, match="System role not supported"):
        chat.prompt_ids(TALK[:2])


# ---- the contract -------------------------------------------------------------------------------------------


def test_an_adapter_trained_on_the_same_template_is_welcome(tokenizer: Any, tmp_path: Path) -> None:
    ChatFormat(tokenizer, template="chatml").save(tmp_path)
    ChatFormat(tokenizer, template="chatml").require(tmp_path)
    ChatFormat(tokenizer, template="chatml").require(tmp_path / "foreign")  # no contract, nothing to hold


def test_another_template_is_refused_with_both_sides(tokenizer: Any, tmp_path: Path) -> None:
    mine = ChatFormat(copy.deepcopy(tokenizer), template="chatml")
    mine.save(tmp_path)
    other = ChatFormat(copy.deepcopy(tokenizer), template="plain")
    with pytest.raises(TemplateError, match="chat template sha256") as caught:
        other.require(tmp_path)
    for side in (mine, other):
        assert side.contract()["chat_template_sha256"][:40] in str(caught.value)


@pytest.mark.parametrize("what", ["stop_ids", "special_tokens", "golden_ids", "golden_answer_ids"])
def test_whatever_differs_is_named(tokenizer: Any, tmp_path: Path, what: str) -> None:
    chat = ChatFormat(tokenizer, template="chatml")
    chat.save(tmp_path)
    path = tmp_path / "chat_contract.json"
    contract = json.loads(path.read_text(encoding="utf-8"))
    contract[what] = {"eos_token": "</s>"} if what == "special_tokens" else [*contract[what][:-1], 77]
    path.write_text(json.dumps(contract), encoding="utf-8")
    with pytest.raises(TemplateError, match=what.replace("_", " ")):
        chat.require(tmp_path)


def test_the_golden_answer_ends_with_a_stop_token_and_today_does_not_matter(tokenizer: Any) -> None:
    dated = "{{ strftime_now('%d %H:%M:%S') }} " + CHATML
    chat = ChatFormat(tokenizer)
    chat.tokenizer.chat_template = dated
    contract = chat.contract()
    assert contract["golden_answer_ids"][-1] in contract["stop_ids"]
    chat.tokenizer.chat_template = dated.replace("%d", "%Y")
    assert chat.contract()["golden_answer_ids"] == contract["golden_answer_ids"]
