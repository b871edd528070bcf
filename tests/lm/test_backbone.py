"""One base carries every role: the same numbers as separate models, and a test for each trap of sharing."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, LlamaConfig

import pipeline.lm.backbone as backbone_module
from pipeline.lm.backbone import Backbone
from pipeline.lm.footprint import Footprint
from pipeline.lm.generate import generate
from pipeline.lm.options import choose_device, choose_dtype
from pipeline.lm.policy import LanguagePolicy, rollout_logprobs
from pipeline.lm.reward import RewardModel
from pipeline.lm.sources import ModelError, resolve
from pipeline.rl.kl import kl_k1
from pipeline.rl.objective import Objective
from pipeline.rl.update import update

from .builders import LORA, PROMPTS, SIZES, fill, noisy, other_architecture, rollout, tiny

IDS = torch.tensor([[1, 40, 41, 42, 43], [1, 50, 51, 52, 53]])


def base_hash(backbone: Backbone) -> str:
    """A hash of every weight that is neither LoRA nor head."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        if ".lora_" not in name and not name.startswith("heads."):
            digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def trainable(backbone: Backbone) -> set[str]:
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def gradients(parameters: list[Any]) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def slope(hidden: Tensor) -> Tensor:
    """A loss with gradient everywhere. (The sum of squares is constant: the last layer normalises.)"""
    return (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum()


def train(backbone: Backbone, name: str, steps: int) -> None:
    """A few large steps on an arbitrary loss of one adapter."""
    optimizer = torch.optim.AdamW(backbone.roles.train_only(name), lr=1e-2)
    for _ in range(steps):
        slope(backbone.hidden(name, IDS)).backward()
        optimizer.step()
        optimizer.zero_grad()


# ---- roles on one base against separate models --------------------------------------------------------------


def test_roles_on_one_base_give_what_separate_models_give(cache: Path, tmp_path: Path) -> None:
    shared = tiny(cache)
    for seed, name in enumerate(("sft", "policy", "reward", "critic")):
        noisy(shared, name, seed=seed, head=name in ("reward", "critic"))
        shared.save(name, tmp_path / name)
    folder = resolve("tiny", cache_dir=cache)
    for name in ("policy", "reward", "sft", "critic"):
        alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / name).eval()
        logits = shared.logits(shared.hidden(name, IDS))
        assert_close(logits, alone(input_ids=IDS).logits, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(logits, shared.logits(shared.hidden(None, IDS)), atol=1e-2)
        if name in shared.heads:
            hidden = alone.base_model.model.model(input_ids=IDS).last_hidden_state
            head = shared.heads[name]
            theirs = hidden @ head.weight[0] + head.bias  # the head is a plain linear map
            assert_close(shared.score(name, shared.hidden(name, IDS)), theirs, atol=1e-5, rtol=1e-5)


def test_without_an_adapter_it_is_the_plain_base_model(cache: Path) -> None:
    shared = noisy(tiny(cache), "sft")
    alone = AutoModelForCausalLM.from_pretrained(resolve("tiny", cache_dir=cache)).eval()
    # Not bit for bit: norms are summed in another order, which shows on some processors.
    assert_close(shared.logits(shared.hidden(None, IDS)), alone(input_ids=IDS).logits, atol=1e-5, rtol=1e-5)


# ---- trap 1: adapters off is the base, not the SFT model ----------------------------------------------------


def test_trap_1_kl_at_step_0_is_0_against_sft_and_not_against_the_base(cache: Path) -> None:
    shared = noisy(tiny(cache), "sft")
    shared.roles.clone("sft", "policy")
    acted = rollout(shared)

    def kl(reference: str | None) -> Tensor:
        policy, other = (
            rollout_logprobs(shared, name, acted, temperature=1.0, batch_size=4) for name in ("policy", reference)
        )
        return kl_k1(policy, other)

    assert torch.equal(kl("sft"), torch.zeros_like(acted.logprobs))
    assert kl(None).abs().max() > 0.01  # what "adapters off" would have given


# ---- trap 2: PEFT's switching flips requires_grad -----------------------------------------------------------


def test_trap_2_the_trainable_set_survives_switches_rollouts_and_new_adapters(cache: Path) -> None:
    shared = noisy(noisy(noisy(tiny(cache), "sft"), "policy"), "reward", head=True)
    shared.roles.clone("reward", "critic")
    policy = LanguagePolicy(shared, critic="adapter")
    roles = policy.trainable_parameters()
    before = trainable(shared)
    expected = {id(p) for parameters in roles.values() for p in parameters}
    assert {id(p) for p in shared.parameters() if p.requires_grad} == expected
    acted = rollout(shared)
    assert trainable(shared) == before
    for name in (None, "sft", "reward", "critic", "policy"):
        with shared.roles.using(name):
            assert trainable(shared) == before
        assert trainable(shared) == before
    RewardModel(shared).score(acted)
    shared.roles.add("late")
    assert trainable(shared) == before


def test_using_restores_the_adapter_before_also_after_an_error(cache: Path) -> None:
    shared = noisy(tiny(cache), "sft")
    noisy(shared, "policy", seed=2)
    with shared.roles.using("sft"):
        inside = shared.trunk(input_ids=IDS).last_hidden_state
        with pytest.raises(KeyError), shared.roles.using("policy"):
            raise KeyError
        assert torch.equal(shared.trunk(input_ids=IDS).last_hidden_state, inside)


# ---- trap 3: the distribution that was really sampled -------------------------------------------------------


def test_trap_3_dropout_is_off_while_sampling_and_scoring(cache: Path) -> None:
    """Two passes agree although the config asks for a LoRA dropout of one half."""
    shared = noisy(tiny(cache, lora={"dropout": 0.5}), "policy")
    assert torch.equal(shared.hidden("policy", IDS), shared.hidden("policy", IDS))


@pytest.mark.parametrize("layers", ["all", "upper"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_trap_3_the_first_ratio_is_1(cache: Path, dropout: float, checkpointing: bool, layers: str) -> None:
    """Through the real update(), at a temperature other than 1, whatever dropout the config names."""
    lora = {"dropout": dropout, "layers": layers}
    shared = noisy(tiny(cache, lora=lora, gradient_checkpointing=checkpointing), "policy")
    acted = rollout(shared, temperature=0.7)
    policy = LanguagePolicy(shared, temperature=0.7)
    optimizer = torch.optim.SGD(policy.trainable_parameters()["policy"], lr=1e-3)
    stats = update(policy, optimizer, acted, acted.mask.float(), None, Objective(), minibatch_size=6, microbatch_size=2)
    assert stats["policy/first_ratio_error"] <= 1e-5
    assert stats["policy/clip_fraction"] == 0


def test_trap_3_another_temperature_gives_another_ratio(cache: Path) -> None:
    shared = noisy(tiny(cache), "policy")
    acted = rollout(shared, temperature=0.7)
    policy = LanguagePolicy(shared, temperature=1.0)
    optimizer = torch.optim.SGD(policy.trainable_parameters()["policy"], lr=1e-3)
    stats = update(policy, optimizer, acted, acted.mask.float(), None, Objective(), minibatch_size=6)
    assert stats["policy/first_ratio_error"] > 0.01


# ---- trap 4: gradient checkpointing -------------------------------------------------------------------------


@pytest.fixture
def twins(cache: Path) -> tuple[Backbone, Backbone]:
    """The same two adapters without and with gradient checkpointing."""
    pair = []
    for checkpointing in (False, True):
        shared = noisy(tiny(cache, gradient_checkpointing=checkpointing), "policy", seed=1)
        pair.append(noisy(shared, "critic", seed=2, head=True))
    return pair[0], pair[1]


@pytest.mark.parametrize("between", ["nothing", "switch", "other forward"])
def test_trap_4_checkpointing_gives_the_same_gradients(twins: tuple[Backbone, Backbone], between: str) -> None:
    found = []
    for shared in twins:
        parameters = shared.roles.train_only("policy")
        loss = slope(shared.hidden("policy", IDS))
        if between == "switch":
            with shared.roles.using("critic"):
                loss.backward()
        else:
            if between == "other forward":
                shared.hidden("critic", IDS)
            loss.backward()
        found.append(gradients(parameters))
    assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    assert max(gradient.abs().max() for gradient in found[0]) > 0.1


def test_trap_4_policy_and_critic_in_one_loss(twins: tuple[Backbone, Backbone]) -> None:
    found = []
    for shared in twins:
        parameters = shared.roles.train_only("policy", "critic")
        policy = shared.hidden("policy", IDS)
        value = shared.score("critic", shared.hidden("critic", IDS))
        (slope(policy) + value.square().sum()).backward()
        found.append(gradients(parameters))
    assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    assert all(gradient.abs().max() > 0 for gradient in found[0])


def test_trap_4_checkpointing_doesnt_change_what_is_sampled(twins: tuple[Backbone, Backbone]) -> None:
    """transformers drops the KV cache when it checkpoints in training mode; sampling must not run like that."""
    done = [generate(shared, "policy", PROMPTS, temperature=0, max_new_tokens=6) for shared in twins]
    assert torch.equal(done[0].tokens, done[1].tokens)
    assert_close(done[0].logprobs, done[1].logprobs, atol=1e-5, rtol=1e-5)


# ---- trap 5: the head is saved, and padding can't be seen ---------------------------------------------------


def test_trap_5_a_reloaded_reward_adapter_reproduces_its_scores(cache: Path, tmp_path: Path) -> None:
    shared = noisy(tiny(cache), "reward", head=True)
    train(shared, "reward", 2)
    sequences = [[1, 40, 41, 2], [1, 50, 2]]
    scores = RewardModel(shared).scores(sequences)
    shared.save("reward", tmp_path / "reward")
    again = tiny(cache)
    again.roles.load("reward", tmp_path / "reward")
    assert torch.equal(RewardModel(again).scores(sequences), scores)


def test_trap_5_scores_see_neither_padding_nor_batch_mates_nor_pad_tokens(cache: Path) -> None:
    shared = noisy(tiny(cache), "reward", head=True)
    model = RewardModel(shared)
    short, long = [1, 40, 41, 2, 2], [1, *range(60, 80), 2]  # ends with two stop tokens
    alone = model.scores([short])
    assert_close(model.scores([short, long])[:1], alone, atol=1e-5, rtol=1e-5)
    tokenizer = shared.chat.tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    assert_close(model.scores([long, short])[1:], alone, atol=1e-5, rtol=1e-5)
    assert (model.scores([short[:-1]]) - alone).abs() > 1e-4  # the second stop token is real, not padding


# ---- trap 6: nothing is ever merged -------------------------------------------------------------------------


def test_trap_6_training_leaves_the_base_untouched_to_the_bit(cache: Path) -> None:
    shared = noisy(noisy(tiny(cache), "policy"), "reward", head=True)
    fingerprint, off = base_hash(shared), shared.hidden(None, IDS)
    before = shared.hidden("policy", IDS)
    train(shared, "policy", 10)
    train(shared, "reward", 10)
    generate(shared, "policy", PROMPTS, max_new_tokens=3)
    assert base_hash(shared) == fingerprint
    assert torch.equal(shared.hidden(None, IDS), off)
    assert not torch.allclose(shared.hidden("policy", IDS), before, atol=1e-3)  # it did learn


# ---- LoRA ---------------------------------------------------------------------------------------------------


def test_a_new_adapter_changes_nothing_and_learns_through_b_first(cache: Path) -> None:
    """B = 0: logits bit-equal to the base; ∂L/∂A = 0 and ∂L/∂B ≠ 0."""
    shared = tiny(cache)
    shared.roles.add("sft")
    shared.roles.train_only("sft")
    hidden = shared.hidden("sft", IDS)
    assert torch.equal(shared.logits(hidden), shared.logits(shared.hidden(None, IDS)))
    slope(hidden).backward()
    lora = {name: p.grad for name, p in shared.named_parameters() if p.requires_grad and p.grad is not None}
    a, b = ([g for name, g in lora.items() if part in name] for part in ("lora_A", "lora_B"))
    assert len(a) == len(b) == 14  # seven linear layers in each of two blocks
    assert all(not gradient.any() for gradient in a)
    assert all(gradient.any() for gradient in b)


def test_merged_equals_unmerged(cache: Path, tmp_path: Path) -> None:
    """Merging is an export step on a copy; its error in fp32 stays below 1e-5."""
    shared = noisy(tiny(cache), "policy", std=0.05)
    shared.save("policy", tmp_path)
    base = AutoModelForCausalLM.from_pretrained(resolve("tiny", cache_dir=cache))
    merged = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).merge_and_unload()
    ours = shared.logits(shared.hidden("policy", IDS))
    assert_close(merged(input_ids=IDS).logits, ours, atol=1e-5, rtol=0)
    assert (base(input_ids=IDS).logits - ours).abs().max() > 1e-3


def test_a_saved_folder_is_an_ordinary_peft_folder(cache: Path, tmp_path: Path) -> None:
    shared = noisy(tiny(cache), "reward", head=True)
    shared.save("reward", tmp_path / "reward", role={"role": "reward"})
    names = {path.name for path in (tmp_path / "reward").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "head.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    config: Any = PeftConfig.from_pretrained(str(tmp_path / "reward"))
    assert (config.peft_type, config.r, config.lora_alpha) == ("LORA", 4, 8.0)
    assert json.loads((tmp_path / "reward" / "role.json").read_text()) == {"role": "reward"}


def test_a_clone_is_an_exact_copy_and_independent(cache: Path) -> None:
    shared = noisy(tiny(cache), "reward", head=True)
    shared.roles.clone("reward", "critic")
    original = shared.score("reward", shared.hidden("reward", IDS))
    assert torch.equal(shared.score("critic", shared.hidden("critic", IDS)), original)
    train(shared, "critic", 2)
    with torch.no_grad():
        shared.heads["critic"].weight.add_(1.0)  # type: ignore[operator, union-attr]
    assert torch.equal(shared.score("reward", shared.hidden("reward", IDS)), original)
    assert not torch.allclose(shared.score("critic", shared.hidden("critic", IDS)), original, atol=1e-2)


def test_a_deleted_adapter_is_gone_and_the_others_stay(cache: Path) -> None:
    shared = noisy(noisy(tiny(cache), "sft"), "reward", head=True)
    before = shared.hidden("sft", IDS)
    shared.roles.remove("reward")
    assert (shared.roles.names, "reward" in shared.heads) == (["sft"], False)
    assert torch.equal(shared.hidden("sft", IDS), before)


# ---- what is refused ----------------------------------------------------------------------------------------


def test_an_adapter_of_another_rank_is_refused(cache: Path, tmp_path: Path) -> None:
    noisy(tiny(cache), "sft").save("sft", tmp_path)
    with pytest.raises(ModelError, match=r"rank 4, the config says lora\.r 8"):
        tiny(cache, lora={"r": 8}).roles.load("sft", tmp_path)


def test_an_adapter_of_another_alpha_is_refused_or_keeps_its_scale(cache: Path, tmp_path: Path) -> None:
    """α/r scales what the adapter adds; loaded under twice the α it would be another model, silently."""
    shared = noisy(tiny(cache), "sft")
    shared.save("sft", tmp_path)
    other = tiny(cache, lora={"alpha": 16.0})
    try:
        other.roles.load("sft", tmp_path)
    except ModelError as error:
        found = str(error)
    else:
        found = "alpha kept" if torch.allclose(other.hidden("sft", IDS), shared.hidden("sft", IDS)) else "another model"
    assert "alpha" in found


def test_an_adapter_for_other_layers_is_refused(cache: Path, tmp_path: Path) -> None:
    noisy(tiny(cache), "sft").save("sft", tmp_path)
    with pytest.raises(ModelError, match="doesn't fit this base"):
        tiny(cache, lora={"targets": ["q_proj"]}).roles.load("sft", tmp_path)


def test_an_unknown_adapter_is_named_with_those_there_are(cache: Path) -> None:
    shared = noisy(tiny(cache), "sft")
    with pytest.raises(ModelError, match="no adapter 'polcy'; loaded: sft"):
        shared.hidden("polcy", IDS)
    with pytest.raises(ModelError, match="no adapter 'sft'; loaded: none"):
        tiny(cache).hidden("sft", IDS)


def test_an_unreachable_hub_is_one_sentence_with_the_fix(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to the hub.\nA second line.\nA third line.")

    monkeypatch.setattr(backbone_module, "load_chat", offline)
    with pytest.raises(ModelError) as caught:
        tiny(cache, name="somebody/some-model")
    message = str(caught.value)
    assert "'somebody/some-model' can't be loaded: We couldn't connect to the hub." in message
    assert "give its folder as model.name" in message
    assert "second line" not in message


def test_an_architecture_that_scales_its_logits_is_refused(cache: Path, tmp_path: Path) -> None:
    """Cohere multiplies its logits; log-probs from the bare head would be wrong."""
    from transformers import CohereConfig

    sizes = {**SIZES, "logit_scale": 0.25, "eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0}
    folder = other_architecture(tmp_path / "cohere", cache, CohereConfig(**sizes))
    with pytest.raises(ModelError, match="output head isn't a plain projection"):
        tiny(cache, name=str(folder))


# ---- device, dtype, quantisation ----------------------------------------------------------------------------


def test_the_precision_of_products_is_the_configs(cache: Path) -> None:
    tiny(cache, matmul="medium")
    assert torch.get_float32_matmul_precision() == "medium"
    tiny(cache)
    assert torch.get_float32_matmul_precision() == "highest"


def test_device_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device().type == "cpu"
    for name in ("cuda", "mps"):
        with pytest.raises(ModelError, match=f"model.device {name}: torch sees no"):
            choose_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device().type == "cuda"
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("asked", "device", "bf16", "expected"),
    [
        ("auto", "cpu", True, torch.float32),
        ("auto", "mps", True, torch.float32),
        ("auto", "cuda", True, torch.bfloat16),
        ("auto", "cuda", False, torch.float32),
        ("float16", "cuda", True, torch.float16),
        ("bfloat16", "cpu", False, torch.bfloat16),
    ],
)
def test_dtype_choice(
    monkeypatch: pytest.MonkeyPatch, asked: str, device: str, bf16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert choose_dtype(asked, torch.device(device)) == expected


def test_a_bf16_base_keeps_adapters_and_heads_usable(cache: Path) -> None:
    shared = noisy(tiny(cache, dtype="bfloat16"), "reward", head=True)
    assert shared.dtype == torch.bfloat16
    hidden = shared.hidden("reward", IDS)
    assert shared.score("reward", hidden).dtype == torch.float32
    # On a CPU logits aren't rounded to bf16's eight bits.
    exact = hidden.double() @ shared.base.get_output_embeddings().weight.double().T
    torch.testing.assert_close(shared.logits(hidden).double(), exact, rtol=1e-5, atol=1e-5)
    drawn = shared.logprobs("reward", hidden[0], IDS[0]).logprobs
    found = exact[0].log_softmax(-1).gather(1, IDS[0, :, None]).squeeze(1)
    torch.testing.assert_close(drawn.double(), found, rtol=1e-5, atol=1e-5)


def test_a_whole_model_in_bf16_learns_the_head_that_it_has(cache: Path) -> None:
    whole = Backbone.load("tiny", lora=None, cache_dir=cache, device="cpu", dtype="bfloat16")
    assert whole.head_weight.dtype == torch.bfloat16


@pytest.fixture(scope="module")
def block_model(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose layers are a whole number of 64-weight quantisation blocks wide."""
    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 128}
    config = LlamaConfig(**sizes, eos_token_id=2, bos_token_id=None, pad_token_id=0)
    return other_architecture(tmp_path_factory.mktemp("blocks"), cache, config, spread=1.0)


def quantised(cache: Path, folder: Path, kind: str) -> Backbone:
    try:
        return tiny(cache, name=str(folder), quantization=kind)
    except (ImportError, NotImplementedError, ModelError) as error:
        pytest.skip(f"bitsandbytes can't do {kind} here: {error}")


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_a_quantised_base_carries_roles_and_stays_quantised(
    cache: Path, block_model: Path, tmp_path: Path, kind: str
) -> None:
    shared = quantised(cache, block_model, kind)
    noisy(noisy(shared, "policy", std=0.05), "reward", head=True)
    weights = {name: p.dtype for name, p in shared.named_parameters() if name.endswith("q_proj.base_layer.weight")}
    assert set(weights.values()) <= {torch.int8, torch.uint8}
    assert weights
    policy, off = shared.hidden("policy", IDS), shared.hidden(None, IDS)
    assert not torch.allclose(policy, off, atol=1e-2)
    train(shared, "policy", 1)
    assert not torch.equal(shared.hidden("policy", IDS), policy)
    assert torch.equal(shared.hidden(None, IDS), off)
    assert RewardModel(shared).scores([[1, 40, 2], [1, 2]]).shape == (2,)
    assert generate(shared, "policy", PROMPTS, max_new_tokens=2).tokens.shape == (3, 2)
    assert {p.dtype for name, p in shared.named_parameters() if name in weights} == set(weights.values())
    shared.save("policy", tmp_path)
    again = quantised(cache, block_model, kind)
    again.roles.load("policy", tmp_path)
    adds, error = ((shared.hidden("policy", IDS) - other).abs().max() for other in (off, again.hidden("policy", IDS)))
    assert error < 0.05 * adds  # kernels that compute in bf16 don't round alike after every load


@pytest.mark.parametrize(("kind", "alike"), [("8bit", 0.98), ("4bit", 0.8)])
def test_gradients_flow_through_a_quantised_base(cache: Path, block_model: Path, kind: str, alike: float) -> None:
    """The first layer's gradient points where the unquantised model's does: what the first layer changes reaches the
    loss through all the others, and kernels without a backward pass lose that part silently."""
    found = []
    for shared in (tiny(cache, name=str(block_model)), quantised(cache, block_model, kind)):
        noisy(shared, "policy", std=0.05)
        shared.roles.train_only("policy")
        slope(shared.hidden("policy", IDS)).backward()
        weights = [p.grad for name, p in shared.named_parameters() if "layers.0.self_attn.v_proj.lora_" in name]
        found.append(torch.cat([grad.flatten() for grad in weights if grad is not None]))
    assert torch.cosine_similarity(found[0], found[1], dim=0) > alike  # rounding the weights turns it a little


def test_the_tiny_model_can_be_quantised_too(cache: Path) -> None:
    """It is what people try an option on first; an option that fails there should say why."""
    for kind in ("8bit", "4bit"):
        shared = noisy(quantised(cache, Path("tiny"), kind), "policy")
        assert shared.hidden("policy", IDS).isfinite().all()


def test_fill_is_reproducible(cache: Path) -> None:
    """The builders of this file: the same seed gives the same adapter, another seed another."""
    shared = noisy(noisy(tiny(cache), "a", seed=1), "b", seed=1)
    assert torch.equal(shared.hidden("a", IDS), shared.hidden("b", IDS))
    fill(shared, "b", seed=2)
    assert not torch.allclose(shared.hidden("a", IDS), shared.hidden("b", IDS), atol=1e-2)


def test_a_model_that_reads_more_than_text_is_refused(cache: Path, tmp_path: Path) -> None:
    from transformers import Gemma3Config

    text = SIZES | {"head_dim": 8, "eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(text_config=text, vision_config=vision | {"image_size": 28, "patch_size": 14})
    folder = str(other_architecture(tmp_path, cache, config))
    with pytest.raises(ModelError, match="text-only"):
        tiny(cache, name=folder)
    with pytest.raises(ModelError, match="text-only"):
        Footprint.of(folder, LORA)
