"""The model card of an export: what it is, what was measured with which interval, how to repeat it, its limits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, hf_hub_download

from pipeline import __version__
from pipeline.report.headline import Comparison, cautions, comparisons, headline
from pipeline.report.load import Run, load
from pipeline.report.wording import interval, local_paths_shortened, number, system_name
from pipeline.rundir import RunDir

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SECTIONS = {"sft": "demonstrations", "reward": "preferences", "policy": "prompts", "evaluate": "held-out prompts"}
LIMITS = (
    "The judge is a reward model of the same base, trained on other pairs than the policy's. It measures the manner "
    "that the preferences teach, not truth.",
    "Nothing here was tested for safety, bias, or languages and subjects beyond the data.",
)
USE = {
    "merged": '```python\nfrom transformers import pipeline\n\nchat = pipeline("text-generation", "FOLDER_OR_REPO")\n'
    'chat([{"role": "user", "content": "How do I start?"}])\n```',
    "adapter": "```python\nfrom peft import AutoPeftModelForCausalLM\n\n"
    'model = AutoPeftModelForCausalLM.from_pretrained("FOLDER_OR_REPO")\n```\n\n'
    "`base_model_name_or_path` in `adapter_config.json` names the base; set it where the base lies elsewhere.",
    "gguf": "```\nllama-server -m FILE.gguf\n```",
}


@dataclass(frozen=True)
class Licences:
    """What the user says; nothing is made up where they say nothing."""

    model: str | None = None
    data: str | None = None


def model_card(run_dir: RunDir, *, form: str, role: str, told: Mapping[str, Any], licences: Licences) -> str:
    """The text of README.md, with the hub's front matter. `told` is what the export says of itself."""
    run = load(run_dir.path)
    name = run.config["model"]["name"]
    base = licences.model or base_licence(name)
    pairs = [pair for pair in comparisons(run["evaluate"].metrics) if pair.a == role]
    sources = {section: run.config[section]["data"]["source"] for section in SECTIONS}
    data = ModelCardData(
        license=base,
        base_model=name if on_hub(name) else None,
        datasets=sorted({source for source in sources.values() if on_hub(source)}) or None,
        library_name={"adapter": "peft", "merged": "transformers"}.get(form),
        pipeline_tag="text-generation",
        tags=["align-pipeline", "lora", *(["rlhf"] if role == "policy" else ["sft"])],
        model_name=f"{run.name}-{role}" if pairs else None,
        eval_results=[_eval_result(run, pair, sources["evaluate"]) for pair in pairs] or None,
    )
    parts = [
        f"# {run.name}: {system_name(role)}",
        _what(run, form, role, local_paths_shortened(name)),
        f"## Use\n\n{USE[form]}",
        _measured(run, role, pairs, told),
        _data(run, sources, base, licences),
        _again(run),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in (*cautions(run), *LIMITS)),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def base_licence(name: str) -> str | None:
    """The licence that the base's own card names; None where it has none, or can't be read."""
    try:
        readme = Path(name) / "README.md" if Path(name).is_dir() else None
        if readme is None and on_hub(name):
            readme = Path(hf_hub_download(name, "README.md"))
        found = ModelCard.load(readme).data.license if readme is not None else None
    except Exception:  # the hub's clients raise a dozen unrelated types; a card less is no reason to stop
        return None
    return found if isinstance(found, str) else None


def on_hub(name: str) -> bool:
    """Whether a name is OWNER/NAME, and neither a path nor a file that is there."""
    return bool(HUB_ID.fullmatch(name)) and not Path(name).exists() and not Path(name).suffix


def _eval_result(run: Run, pair: Comparison, source: str) -> EvalResult:
    over = system_name(pair.b, run["evaluate"].metrics.get("best_of"))
    return EvalResult(
        task_type="text-generation",
        dataset_type=source if on_hub(source) else Path(source).stem,
        dataset_name=Path(source).name,
        metric_type="win_rate",
        metric_name=f"win rate over {over}, 95 % interval [{pair.low:.3f}, {pair.high:.3f}]",
        metric_value=round(pair.rate, 4),
    )


def _what(run: Run, form: str, role: str, base: str) -> str:
    trained = {
        "sft": "supervised fine-tuning with LoRA",
        "policy": f"supervised fine-tuning with LoRA, then {run.config['policy']['algorithm'].upper()} against a "
        "reward model",
    }[role]
    kind = {"merged": "its adapter merged into the base", "adapter": "a LoRA adapter", "gguf": "a GGUF file"}[form]
    return f"`{base}` after {trained}, by align-pipeline {__version__}; {kind}."


def _measured(run: Run, role: str, pairs: Sequence[Comparison], told: Mapping[str, Any]) -> str:
    metrics, lines = run["evaluate"].metrics, ["## Measured", ""]
    if role == "policy":
        lines += [headline(run), ""]
    if pairs:
        lines += ["| | wins, 95 % interval | prompts |", "|---|---|---|"]
        lines += [
            f"| over {system_name(p.b, metrics.get('best_of'))} | {interval(p.rate, p.low, p.high)} | {p.n} |"
            for p in pairs
        ]
        judge = metrics.get("judge")
        lines += ["", f"Judged blind by the run's {'own reward model' if judge == 'reward' else 'held-out judge'}."]
    if role == "sft" and "loss" in run["sft"].metrics:
        before, after = (run["sft"].metrics[key] for key in ("loss_before", "loss"))
        lines += [f"Held-out loss {number(before)} → {number(after)} nats a token."]
    if found := told["fidelity"]:
        lines += [
            "",
            f"This copy ({told['stored']}) against adapter on base: log-probs are {found['mean']:.1e} nats a token "
            f"apart on average, {found['max']:.1e} at most, over {found['tokens']} tokens of answers to "
            f"{found['prompts']} held-out prompts; the adapter itself moves them by {found['adapter_effect']:.1e}.",
        ]
    return "\n".join(lines)


def _data(run: Run, sources: Mapping[str, str], base: str | None, licences: Licences) -> str:
    lines = ["## Data and licences", "", "| for | source | rows used |", "|---|---|---|"]
    for section, source in sources.items():
        result = run[section].result
        used = next((d.get("used") for d in result.data.values() if "used" in d), None) if result else None
        shown = source if on_hub(source) else Path(source).name
        lines.append(f"| {SECTIONS[section]} | {shown} | {'–' if used is None else used} |")
    lines += [
        "",
        f"- Base: {base}."
        if base
        else "- Base: its licence isn't known to this run. Look it up before passing this on.",
        f"- Data: {licences.data}." if licences.data else "- Data: no licence was stated.",
    ]
    return "\n".join(lines)


def _again(run: Run) -> str:
    environment = next((stage.result.environment for stage in reversed(run.finished) if stage.result), {})
    versions = ", ".join(
        f"{name} {environment[name]}" for name in ("torch", "transformers", "peft") if name in environment
    )
    return (
        "## Again\n\n```\nalign run align_run.yaml\n```\n\n"
        f"`align_run.yaml` beside this card holds every setting, seed {run.config['seed']} included"
        + (f"; it was run with {versions} on {environment.get('device', 'cpu')}." if versions else ".")
    )
