"""A published reward model: transformers' sequence classifier with one label, which reads a conversation whole."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from pipeline.lm.chat import ChatFormat
from pipeline.lm.options import choose_device, choose_dtype, disable_dropout
from pipeline.lm.products import hasten
from pipeline.lm.sources import ModelError

Key = tuple[int, ...]


class Classifier:
    """The score of a conversation whose last turn is the answer.

    Batches hold sequences of one length and so no padding: where a classifier looks for the last token it compares with
    the pad id, which is often the end of turn.
    """

    def __init__(self, model: Any, chat: ChatFormat) -> None:
        self._model, self._chat = model, chat

    @staticmethod
    def check(name: str) -> None:
        """Look at the configuration alone, which is small, long before the model is needed.

        Raises:
            ModelError: not found, or more than one label.
        """
        try:
            labels = AutoConfig.from_pretrained(name).num_labels
        except (OSError, ConnectionError, ValueError) as error:
            raise _not_loaded(name, error) from None
        if labels != 1:
            raise ModelError(f"{name!r} has {labels} labels; a reward model has one")

    @classmethod
    def load(cls, name: str, *, device: str = "auto", dtype: str = "auto") -> "Classifier":
        """From a hub id or a local folder, safetensors only.

        Raises:
            ModelError: not found, more than one label, or a head that was never trained.
            TemplateError: its tokenizer has no chat template.
        """
        cls.check(name)
        where = choose_device(device)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model, found = AutoModelForSequenceClassification.from_pretrained(
                name, use_safetensors=True, dtype=choose_dtype(dtype, where), output_loading_info=True
            )
        except (OSError, ConnectionError, ValueError) as error:
            raise _not_loaded(name, error) from None
        if found["missing_keys"]:
            missing = ", ".join(sorted(found["missing_keys"])[:3])
            raise ModelError(f"{name!r} was saved without {missing}: it is no trained sequence classifier")
        disable_dropout(model)
        hasten(model)
        return cls(model.to(where).eval(), ChatFormat(tokenizer))

    def encode(self, prompt: Sequence[Any], answer: str) -> list[int]:
        """Tokens of the whole conversation, as the classifier's own template writes it."""
        text = self._chat.render([*prompt, {"role": "assistant", "content": answer}], add_generation_prompt=False)
        return list(self._chat.tokenizer(text, add_special_tokens=False)["input_ids"])

    def batches(self, sequences: Sequence[Key], size: int) -> Iterator[list[Key]]:
        """Sequences of equal length together, at most `size`; long ones first."""
        for _, group in groupby(sorted(sequences, key=len, reverse=True), key=len):
            rows = list(group)
            yield from (rows[start : start + size] for start in range(0, len(rows), size))

    @torch.no_grad()
    def scores(self, sequences: Sequence[Key]) -> list[float]:
        """Scores of sequences of one length."""
        ids = torch.tensor(sequences, device=self._model.device)
        logits = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return logits.float().squeeze(-1).tolist()  # type: ignore[no-any-return]


def _not_loaded(name: str, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    return ModelError(f"sequence classifier {name!r} can't be loaded: {reason}")
