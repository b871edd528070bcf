"""The page: whole and partial runs, hostile texts, no network, the same bytes twice, nothing heavy imported."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.report.curves import FIRST
from pipeline.report.html import write_report
from pipeline.rundir import RunError

from .builder import TEXTS, build, write_rows

VOID = {"meta", "link", "input", "br", "use", "path"}
HOSTILE = '</p><script>alert(1)</script> "><img src=x onerror=alert(2)> {{ 7 * 7 }} \x00\x1b[31m \ud800 \u202e end'


class Page(HTMLParser):
    """Tags, ids and targets of a page; notes tags that don't nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "srcset", "data"):
                self.targets.append(value or "")
            assert not name.startswith("on"), f"inline handler {name} in <{tag}>"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.misnested.append(tag)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_report(build(tmp_path_factory.mktemp("runs") / "whole"))
    assert path.name == "report.html"
    return path.read_text(encoding="utf-8")


def test_a_whole_run_has_every_section_and_stays_small(whole: str) -> None:
    for heading in (
        "Win rates",
        "Answers",
        "Curves",
        "Reward model",
        "Samples",
        "Gates, cost and data",
        "How to reproduce it",
    ):
        assert re.search(rf"<h2 [^>]*>{heading}</h2>", whole), heading
    titles = ("SFT loss", "Held-out accuracy", "Reward score", "Score against distance", "Explained variance")
    cards = ("Calibration", "Scores of chosen and rejected", "Accuracy by margin")
    for title in (*titles, *cards, "Accuracy by kind of failure", "Where the time goes"):
        assert title in whole
    assert "Not finished" not in whole
    assert len(whole.encode()) < 1_500_000


def test_tags_nest_ids_are_unique_and_local_references_resolve(whole: str) -> None:
    page = Page(whole)
    assert not page.misnested
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    wanted = {target[1:] for target in page.targets if target.startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", whole))
    assert wanted <= set(page.ids)


def test_nothing_is_fetched(whole: str) -> None:
    assert all(target.startswith(("#", "data:")) for target in Page(whole).targets)
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?\s*(?:https?:)?//|url\(\s*[\"']?(?!#)|@import", whole)
    assert "http://" not in whole
    assert "https://" not in whole


def test_charts_are_named_for_those_who_cannot_see_them(whole: str) -> None:
    charts = re.findall(r"<svg [^>]*>", whole)
    assert len(charts) >= 20
    assert all('role="img"' in chart and re.search(r'aria-label="[^"]{20,}"', chart) for chart in charts)
    assert "#fe0" not in whole, "a placeholder colour was left in a chart"


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, whole: str) -> None:
    again = write_report(build(tmp_path / "whole")).read_text(encoding="utf-8")
    assert again == whole


def test_a_copy_without_texts_keeps_every_figure_and_no_prompt_or_answer(tmp_path: Path, whole: str) -> None:
    run = build(tmp_path / "whole")
    path = write_report(run, texts=False)
    assert path.name == "report-without-texts.html"
    assert not (run / "report.html").exists()
    text = path.read_text(encoding="utf-8")
    said = [part for who in ("prompt", "base", "best_of_n") for part in TEXTS[who]]  # nothing is marked in these
    assert all(part in whole for part in said)
    assert not any(part in text for parts in TEXTS.values() for part in parts)
    assert "soft yolk" in whole
    assert "soft yolk" not in text
    samples = re.compile(r'<h2 id="samples">.*?<h2 id="cost">', re.DOTALL)
    assert "holds no prompts and no answers" in samples.search(text)[0]  # type: ignore[index]
    assert samples.sub("", text) == samples.sub("", whole)
    assert not Page(text).misnested


def plant_hostile_texts(run: Path) -> None:
    """Wherever a model's or a data file's text may stand in a run, put one that would like to be markup."""
    answer = {"text": HOSTILE, "tokens": 3, "stopped": True, "judge": 1.0}
    answers = {"sft": answer, "policy": {**answer, "text": HOSTILE + " <b>more</b>"}}
    rows = [{"prompt": HOSTILE, "category": category, "answers": answers} for category in (HOSTILE, "<i>other</i>")]
    lines = "".join(json.dumps(row) + "\n" for row in rows)  # escaped, as a lone surrogate has no UTF-8
    (run / "evaluate" / "samples.jsonl").write_text(lines, encoding="utf-8")
    training = {"step": 1, "prompt": HOSTILE, "completion": HOSTILE, "score": 0.0, "kl": 0.0}
    (run / "policy" / "samples.jsonl").write_text(json.dumps(training) + "\n", encoding="utf-8")
    result = json.loads((run / "evaluate" / "result.json").read_text())
    result["metrics"]["overused.policy"] = [{"phrase": HOSTILE, "share": 0.5, "reference_share": 0.0}]
    (run / "evaluate" / "result.json").write_text(json.dumps(result))
    result = json.loads((run / "reward" / "result.json").read_text())
    result["metrics"][f"accuracy_by_failure.{HOSTILE}"] = 0.5
    result["metrics"]["accuracy_by_failure.$x_1$ </svg><script>"] = 0.5
    (run / "reward" / "result.json").write_text(json.dumps(result))


def test_model_output_stays_text(tmp_path: Path) -> None:
    run = build(tmp_path / "hostile", prompts=5, steps=3)
    plant_hostile_texts(run)
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not page.misnested
    assert "&lt;script&gt;alert(1)" in text
    assert "{{ 7 * 7 }}" in text
    assert not set(text) & set("\x00\x1b\ud800")


@pytest.mark.parametrize("stages", [("sft",), ("sft", "reward"), ("policy",)])
def test_a_partial_run_says_what_is_missing(tmp_path: Path, stages: tuple[str, ...]) -> None:
    text = write_report(build(tmp_path / "part", stages=stages, steps=3)).read_text(encoding="utf-8")
    names = {"sft": "SFT", "reward": "reward model", "policy": "policy", "evaluate": "evaluation"}
    missing = ", ".join(name for stage, name in names.items() if stage not in stages)
    assert f"<b>Not finished:</b> {missing}." in text
    assert "No comparison yet" in text
    assert "Samples</h2>" not in text or "policy" in stages


def test_what_matters_first_is_open_and_the_rest_is_folded(whole: str) -> None:
    section = whole.split('<h2 id="curves">')[1].split("<h2 ")[0]
    opened, folded = section.split("<details>")
    assert re.findall("<figcaption><strong>(.*?)</strong>", opened) == list(FIRST)
    titles = re.findall("<figcaption><strong>(.*?)</strong>", folded)
    assert f"<summary>More curves: {', '.join(titles[:-1])}</summary>" in folded
    assert {"Clip fraction", "Explained variance"} < set(titles)
    assert titles[-1] == "SFT loss"  # behind the fold, beside what SFT read


def test_every_chart_is_there_once(whole: str) -> None:
    titles = re.findall("<figcaption><strong>(.*?)</strong>", whole)
    assert len(titles) == len(set(titles)) == whole.count("<svg ")


def test_a_running_stage_shows_its_curves_so_far(tmp_path: Path) -> None:
    run = build(tmp_path / "running", stages=("evaluate", "policy"), prompts=5, steps=5)
    (run / "policy" / "result.json").unlink()
    with open(run / "policy" / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "objective/sc')
    text = write_report(run).read_text(encoding="utf-8")
    assert "Policy optimisation <small>(not finished)</small>" in text
    assert "Line chart over steps 1 to 5." in text


def test_forty_samples_are_open_and_none_is_lost(whole: str) -> None:
    shown, others = whole.split('<details id="others">', 1)
    assert shown.count('<article class="sample"') == 40
    assert others.count('<article class="sample"') == 160
    assert "They are not the best ones" in whole


def test_very_many_samples_are_thinned(tmp_path: Path) -> None:
    run = build(tmp_path / "large", stages=("evaluate",), prompts=20)
    answers = {name: {"text": "long " * 400, "tokens": 9, "stopped": True, "judge": 0.1} for name in ("sft", "policy")}
    write_rows(run / "evaluate" / "samples.jsonl", [{"prompt": str(i), "answers": answers} for i in range(2000)])
    path = write_report(run)
    assert path.stat().st_size < 1_500_000
    assert "the others are in <code>evaluate/samples.jsonl</code>" in path.read_text(encoding="utf-8")


def test_home_folders_stay_private(tmp_path: Path, whole: str) -> None:
    assert "somebody" not in whole
    assert "…/cache" in whole
    assert "whole/config.yaml run_dir=whole-again" in whole


def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    run = build(tmp_path / "light", stages=("sft",))
    code = (
        "import sys; from pathlib import Path; from pipeline.report.html import write_report\n"
        f"write_report(Path({str(run)!r}))\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'trl', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_finished_stage_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(RunError, match="has no finished stage yet"):
        write_report(build(tmp_path / "empty", stages=()))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.yaml", None, "has no config.yaml"),
        ("config.yaml", "a: [", "config.yaml can't be read"),
        ("config.yaml", "only a text", "config.yaml holds no settings"),
        ("sft/result.json", "{", "result.json is damaged"),
        ("sft/result.json", '{"stage": "sft", "fingerprint": "", "metrics": 1}', "result.json is damaged"),
        ("sft/metrics.jsonl", '{"step": 1', "metrics.jsonl can't be read"),
        ("sft/metrics.jsonl", "[1, 2]\n", "metrics.jsonl is damaged"),
        ("evaluate/samples.jsonl", "\n\nnot json\n", "samples.jsonl can't be read"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, file: str, content: str | None, message: str) -> None:
    run = build(tmp_path / "run", prompts=5, steps=3)
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_text(content)
    with pytest.raises(RunError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_reward_model_without_a_card_is_reported_all_the_same(tmp_path: Path) -> None:
    run = build(tmp_path / "old", stages=("sft", "reward"))
    result = json.loads((run / "reward" / "result.json").read_text())
    kept = {key: value for key, value in result["metrics"].items() if not isinstance(value, list)}
    (run / "reward" / "result.json").write_text(json.dumps(result | {"metrics": kept}))
    text = write_report(run).read_text(encoding="utf-8")
    assert "Reward model</h2>" in text
    assert "<strong>Calibration</strong>" not in text


def test_a_run_without_optional_files_is_reported_all_the_same(tmp_path: Path) -> None:
    run = build(tmp_path / "bare", stages=("sft", "evaluate"), prompts=5)
    for file in ("sft/metrics.jsonl", "evaluate/samples.jsonl"):
        (run / file).unlink()
    assert "This stage left no metrics.jsonl" in write_report(run).read_text(encoding="utf-8")
