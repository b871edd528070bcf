"""Chat templates: what the model reads, which tokens it is taught, which tokens end its answer.

The same split serves every stage: a prompt is everything up to the assistant's first word, a completion is
the assistant's words and the stop token. Prompt and completion are tokenised apart, exactly as when sampling,
so that the tokens a stage trains on are the tokens the policy will emit.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Llama 3's header tokens, without the date and the system turn that its own template adds.
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# For base models without a template: contents one after the other, the answer ends with EOS.
PLAIN = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
)

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "plain": PLAIN}
CONTRACT = "chat_contract.json"
# Read by every template and tokenizer: case, numbers, punctuation, letters beyond ASCII, white space, two turns.
GOLDEN = (
    {"role": "user", "content": "Was it 3.14, or 42?\n\tTell me  – naïvely."},
    {"role": "assistant", "content": "It's “both”; I'd say: 日本 & <b>ok</b>!"},
)


class TemplateError(ValueError):
    """A chat template that can't be used for training; the message says why and what to set."""


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens; `supervised[i]` is True where token i is taught."""

    ids: list[int]
    supervised: list[bool]


class ChatFormat:
    """A tokenizer with its template and stop tokens."""

    def __init__(self, tokenizer: Any, *, template: str | None = None, stop_ids: Sequence[int] = ()) -> None:
        """
        Args:
            template: None = the tokenizer's own; one of TEMPLATES, or the path of a Jinja file.
            stop_ids: the model's stop tokens (its generation config); EOS is added, and the special token with which
                the template ends an answer: a base model's own lack it.

        Raises:
            TemplateError: no template at all, a named file that doesn't exist, or no end-of-sequence token.
        """
        self.tokenizer = tokenizer
        if template in TEMPLATES:
            tokenizer.chat_template = TEMPLATES[template]
        elif template is not None:
            if not Path(template).is_file():
                known = ", ".join(repr(name) for name in TEMPLATES)
                raise TemplateError(f"model.chat_template {template!r}: neither {known} nor a file")
            tokenizer.chat_template = Path(template).read_text(encoding="utf-8")
        if not tokenizer.chat_template:
            raise TemplateError(
                "the model has no chat template; set model.chat_template to chatml, llama3, plain or a file"
            )
        if tokenizer.eos_token_id is None:
            raise TemplateError("the tokenizer has no end-of-sequence token, so no answer could ever end")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token  # harmless: masks come from lengths, never from token ids
        self.stop_ids = tuple(sorted({tokenizer.eos_token_id, *stop_ids, self._end_of_turn()} - {None}))

    def prompt_ids(self, messages: Sequence[Any]) -> list[int]:
        """Tokens of a prompt, up to and including the header of the assistant's turn."""
        return self._tokens(self.render(messages, add_generation_prompt=True))

    def completion_ids(self, messages: Sequence[Any], answer: str) -> list[int]:
        """Tokens of `answer` after `messages`, ending with the stop token the template puts there (or EOS)."""
        prefix = self.render(messages, add_generation_prompt=True)
        whole = self.render([*messages, {"role": "assistant", "content": answer}], add_generation_prompt=False)
        if not whole.startswith(prefix):
            raise TemplateError(
                "the chat template renders a prompt differently once the answer follows, so no completion can be "
                "cut out; set model.chat_template (chatml fits most models with <|im_start|> tokens)"
            )
        ids = self._tokens(whole[len(prefix) :])
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), None)
        return ids[: end + 1] if end is not None else [*ids, self.tokenizer.eos_token_id]

    def encode(self, messages: Sequence[Any]) -> Encoded:
        """Tokens of a conversation; every assistant turn with its stop token is supervised, nothing else is."""
        ids: list[int] = []
        supervised: list[bool] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = self.prompt_ids(messages[:index])
            # What stands between two assistant turns (and the closing mark the template adds after a stop
            # token) is context; its tokens come from the rendering of the longer prompt.
            context = prompt[len(ids) :] if prompt[: len(ids)] == ids else self._suffix(messages, index, ids)
            answer = self.completion_ids(messages[:index], message["content"])
            ids += context + answer
            supervised += [False] * len(context) + [True] * len(answer)
        return Encoded(ids, supervised)

    def contract(self) -> dict[str, Any]:
        """What an adapter's training took for granted: the template, the special tokens, and how some text is read."""
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        question, answer = GOLDEN
        return {
            "chat_template_sha256": hashlib.sha256(self.tokenizer.chat_template.encode()).hexdigest(),
            "special_tokens": {name: getattr(self.tokenizer, name) for name in names},
            "stop_ids": list(self.stop_ids),
            # Not the whole rendered prompt: some templates put today's date there.
            "golden_ids": self._tokens(question["content"]),
            "golden_answer_ids": self.completion_ids([question], answer["content"]),
        }

    def save(self, folder: Path) -> None:
        """Write the tokenizer with its template, and the contract beside it."""
        self.tokenizer.save_pretrained(folder)
        text = json.dumps(self.contract(), indent=2, ensure_ascii=False) + "\n"
        (folder / CONTRACT).write_text(text, encoding="utf-8")

    def require(self, folder: Path) -> None:
        """Hold the contract of an adapter's folder against this one; a foreign adapter has none.

        Raises:
            TemplateError: they differ; names what, and both sides.
        """
        if not (folder / CONTRACT).is_file():
            return
        ours = self.contract()
        for name, theirs in json.loads((folder / CONTRACT).read_text(encoding="utf-8")).items():
            if ours.get(name) != theirs:
                raise TemplateError(
                    f"{folder} was trained with {name.replace('_', ' ')} {_short(theirs)}, this run has "
                    f"{_short(ours.get(name))}: what it reads would not be what it was taught; set model.name and "
                    "model.chat_template as they were, or repeat the stages"
                )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _end_of_turn(self) -> int | None:
        """The special token that the template writes right behind an answer; None where it writes text, or nothing."""
        answer = "Yes."
        try:
            text = self.render(
                [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": answer}],
                add_generation_prompt=False,
            )
        except TemplateError:
            return None  # the first conversation that it can't render will say so
        behind = self._tokens(text.rpartition(answer)[2].lstrip())[:1]
        special = (token for token, added in self.tokenizer.added_tokens_decoder.items() if added.special)
        return next((token for token in special if [token] == behind), None)

    def _suffix(self, messages: Sequence[Any], index: int, ids: list[int]) -> list[int]:
        """Context tokens before turn `index` when its prompt doesn't retokenise to the same prefix."""
        before = self.tokenizer.decode(ids, skip_special_tokens=False)
        text = self.render(messages[:index], add_generation_prompt=True)
        if not text.startswith(before):
            raise TemplateError("the chat template rewrites earlier turns; use single-turn data or another template")
        return self._tokens(text[len(before) :])

    def render(self, messages: Sequence[Any], *, add_generation_prompt: bool) -> str:
        """A conversation as the template writes it. Raises TemplateError where it can't."""
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template can't render this conversation: {error}") from None
        return str(text)

    def _tokens(self, text: str) -> list[int]:
        # The template writes special tokens itself; adding another BOS here would double it.
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
