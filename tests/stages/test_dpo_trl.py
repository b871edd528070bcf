"""DPO beside TRL's trainer: the same adapters on the same pairs give the same loss and the same gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.utils import load_peft_weights, set_peft_model_state_dict
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.data.schema import Preference
from pipeline.stages.dpo import Pair, logprobs, pair_losses, remember_reference
from pipeline.stages.inputs import EncodedPair
from tests.lm.builders import noisy, tiny

IDS = [([1, 40, 41], [50, 51, 2], [60, 2]), ([1, 70], [71, 2], [72, 73, 74, 2])]  # prompt, chosen, rejected
BETA = 0.3


def squared(parameters: list[Any]) -> float:
    """Of the gradient's norm."""
    return float(sum(p.grad.square().sum() for p in parameters))


def test_loss_and_gradient_are_trl_s(tmp_path: Path, cache: Path, model: str) -> None:
    trl: Any = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    backbone = noisy(noisy(tiny(cache, name=model), "sft", seed=1), "dpo", seed=2)
    for name in ("sft", "dpo"):
        backbone.roles.save(name, tmp_path / name)

    row = Preference((), "", "", 0.0, "", {})
    pairs = [Pair(EncodedPair(a + b, a + c, len(a), 0.0, row)) for a, b, c in IDS]
    remember_reference(backbone, pairs, 2, visible=False)
    backbone.roles.train_only("dpo")
    ours = pair_losses(*logprobs(backbone, "dpo", pairs), pairs, BETA).mean()
    ours.backward()  # type: ignore[no-untyped-call]

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    learner = PeftModel.from_pretrained(base, str(tmp_path / "sft"), is_trainable=True)
    arguments = trl.DPOConfig(str(tmp_path / "trl"), beta=BETA, use_cpu=True, report_to="none", bf16=False)
    rows = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = trl.DPOTrainer(learner, args=arguments, train_dataset=rows, processing_class=tokenizer)
    set_peft_model_state_dict(trainer.model, load_peft_weights(str(tmp_path / "dpo")))  # its "ref" stays what sft is
    batch = trainer.data_collator(
        [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids, strict=True)) for ids in IDS]
    )
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()

    assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert abs(ours.item() - 0.6931) > 0.01  # the adapters differ
    learned = [p for name, p in trainer.model.named_parameters() if ".default." in name]
    assert squared(backbone.roles.parameters_of("dpo")) == pytest.approx(squared(learned), rel=1e-3)
