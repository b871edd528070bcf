"""What a sitting is made of: pairs and where they come from, names and tokens, guidelines, messages."""

import json
import stat
from pathlib import Path

import pytest

from pipeline.collect.adjudication import disputes
from pipeline.collect.annotators import Doors, annotators, owner_token
from pipeline.collect.errors import CollectError
from pipeline.collect.guidelines import render
from pipeline.collect.messages import FOLDER, languages, load_messages
from pipeline.collect.serving import Sitting, standings
from pipeline.collect.sources import checks_of, pairs_of_files, pairs_of_run
from pipeline.collect.store import ADJUDICATOR
from pipeline.evaluation.alpaca import AlpacaError, Output, write_outputs

from .builders import finished_run, label, pair


def test_a_runs_answers_become_pairs_but_equal_ones_do_not(tmp_path: Path) -> None:
    found = pairs_of_run(finished_run(tmp_path, prompts=3, equal=1), "sft_vs_policy")
    assert [(pair.a.source, pair.b.source) for pair in found] == [("sft", "policy")] * 2
    assert [pair.prompt for pair in found] == [({"role": "user", "content": f"Prompt {i}?"},) for i in (1, 2)]
    assert found[0].a.text == "sft on 1"
    again = pairs_of_run(tmp_path, "policy_vs_sft")
    assert not {pair.id for pair in found} & {pair.id for pair in again}
    assert [pair.id for pair in found] == [pair.id for pair in pairs_of_run(tmp_path, "sft_vs_policy")]


def test_a_whole_conversation_is_kept(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    (found,) = pairs_of_run(finished_run(tmp_path, prompts=1, messages=turns), "sft_vs_policy")
    assert list(found.prompt) == turns


def test_two_samples_of_one_policy_need_two_samples(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "one", prompts=2)
    with pytest.raises(CollectError, match=r"kept one: set evaluate\.samples=2 and repeat it with `align evaluate"):
        pairs_of_run(run, "policy_vs_policy")
    run = finished_run(tmp_path / "two", prompts=2, samples=2)
    found = pairs_of_run(run, "policy_vs_policy")
    assert [(one.a.text, one.b.text) for one in found] == [(f"policy on {i}", f"policy on {i}, 1") for i in range(2)]


def test_unknown_systems_and_all_equal_answers_are_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path, prompts=2, equal=2)
    for wrong in ("sft_vs_dpo", "sft", "_vs_", "policy vs sft"):
        with pytest.raises(CollectError, match="has answers of sft, policy; name two of them as A_vs_B"):
            pairs_of_run(run, wrong)
    with pytest.raises(CollectError, match="sft_vs_policy: all answers are equal"):
        pairs_of_run(run, "sft_vs_policy")


def test_files_of_answers_are_matched_by_instruction(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    write_outputs(ours, [Output("One?", "1", "us"), Output("Two?", "2", "us"), Output("Same?", "=", "us")])
    write_outputs(
        theirs, [Output("Same?", "= ", "them"), Output("Two? ", "zwei", "them"), Output("Three?", "3", "them")]
    )
    (found,) = pairs_of_files(ours, theirs)
    assert (found.a.text, found.a.source, found.b.text, found.b.source) == ("2", "us", "zwei", "them")
    write_outputs(theirs, [Output("Three?", "3", "them")])
    with pytest.raises(CollectError, match="no instruction stands both in"):
        pairs_of_files(ours, theirs)
    with pytest.raises(AlpacaError, match="no file at"):
        pairs_of_files(ours, tmp_path / "none.json")


def test_planted_pairs_expect_the_chosen_one(tmp_path: Path) -> None:
    file = tmp_path / "checks.jsonl"
    file.write_text(json.dumps({"prompt": "2 + 2?", "chosen": "4", "rejected": "A fish."}) + "\n")
    (found,) = checks_of(file)
    assert (found.expected, found.a.text, found.b.text) == ("a", "4", "A fish.")


# ---- names and tokens ---------------------------------------------------------------------------------------


def test_names_and_guests() -> None:
    assert annotators("anna, ben", None) == ("anna", "ben")
    assert annotators(None, 2) == ("guest-1", "guest-2")
    assert annotators(None, None) == ("annotator",)


@pytest.mark.parametrize("names", ["", "anna,,ben", "anna,anna", "../x", "a/b", "<b>", ADJUDICATOR, "x" * 41, "a\nb"])
def test_what_is_no_name_is_told(names: str) -> None:
    with pytest.raises(CollectError):
        annotators(names, None)


def test_names_and_guests_exclude_each_other() -> None:
    with pytest.raises(CollectError, match="give one of them"):
        annotators("anna", 2)


def test_the_owners_token_is_kept_and_private(tmp_path: Path) -> None:
    path = tmp_path / "collect" / "token"
    token = owner_token(path, None)
    assert len(token) == 32
    assert owner_token(path, None) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert owner_token(path, "a-token-of-my-own") == "a-token-of-my-own"
    for wrong in ("short", "with spaces in it", "a/slash/in/the/token"):
        with pytest.raises(CollectError, match="--token needs at least 16"):
            owner_token(path, wrong)


def test_tokens_tell_nothing_of_each_other() -> None:
    doors, other = Doors("one-owner-s-token", ("anna", "ben")), Doors("another-s-token--", ("anna", "ben"))
    tokens = [door.token(name) for door in (doors, other) for name in ("anna", "ben", ADJUDICATOR)]
    assert len({*tokens, doors.csrf("anna"), doors.csrf("ben"), doors.csrf(ADJUDICATOR)}) == 9
    assert [doors.who(token) for token in (*tokens[:3], "", "anna", "ü")] == [
        "anna",
        "ben",
        ADJUDICATOR,
        None,
        None,
        None,
    ]


def test_beyond_this_machine_a_token_is_needed(tmp_path: Path) -> None:
    from pipeline.collect.plan import Plan

    with pytest.raises(CollectError, match=r"--host 0\.0\.0\.0 lets other machines in.*--token SECRET"):
        Sitting(tmp_path, [pair(0)], Plan(("anna",)), host="0.0.0.0")
    assert not (tmp_path / "collect").exists()


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    from pipeline.collect.plan import Plan

    first = Sitting(tmp_path, [pair(0)], Plan(("anna",)))
    with pytest.raises(CollectError, match=f"nothing can listen at 127.0.0.1:{first.port}"):
        Sitting(tmp_path, [pair(0)], Plan(("anna",)), port=first.port)


# ---- guidelines and messages --------------------------------------------------------------------------------


def test_guidelines_are_markdown_without_anything_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "guide.md"
    file.write_text(
        "# Look\n\n**closely** <script>alert(1)</script> [bad](javascript:alert(1)) [good](https://example.org)\n\n"
        "<img src=x onerror=alert(1)>\n\n![picture](https://example.org/x.png)\n\n| a |\n|---|\n| b |\n"
    )
    html = render(file)
    assert "<h1>Look</h1>" in html
    assert "<strong>closely</strong>" in html
    assert "<td>b</td>" in html
    assert '<a href="https://example.org" target="_blank" rel="noopener noreferrer">good</a>' in html
    assert "&lt;script&gt;" in html
    assert not any(sign in html for sign in ("<script", "<img", 'href="javascript'))
    with pytest.raises(CollectError, match=r"--guidelines .* can't be read"):
        render(tmp_path / "none.md")


def test_every_language_says_everything() -> None:
    english = load_messages()
    assert languages() == ["de", "en"]
    for language in languages():
        found = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
        assert list(found) == list(english)
        assert found["lang"] == language
        for key, text in found.items():
            holes = {part.split("}")[0] for part in text.split("{")[1:]}
            assert holes == {part.split("}")[0] for part in english[key].split("{")[1:]}, key
    assert sum(load_messages("de")[key] == text for key, text in english.items()) == 2  # "System", "{annotator}: …"


def test_a_file_of_ones_own_wins_and_english_fills_up(tmp_path: Path) -> None:
    file = tmp_path / "fr.json"
    file.write_text(json.dumps({"lang": "fr", "tie": "Égalité"}))
    found = load_messages("en", file)
    assert (found["lang"], found["tie"], found["skip"]) == ("fr", "Égalité", "Skip")
    assert load_messages("de", file)["skip"] == "Auslassen"
    for wrong, told in (
        ('{"tye": "x"}', "no message is called tye"),
        ("[]", "one JSON object of texts"),
        ("{", "can't be"),
    ):
        file.write_text(wrong)
        with pytest.raises(CollectError, match=told):
            load_messages("en", file)
    with pytest.raises(CollectError, match="--language fr: there are de, en"):
        load_messages("fr")


# ---- what was said ------------------------------------------------------------------------------------------


def test_a_dispute_is_two_different_verdicts_on_a_pair_that_is_not_planted() -> None:
    one, two, three, planted = pair(1), pair(2), pair(3), pair(4, expected="a")
    labels = [label(one, "anna", "a"), label(one, "ben", "tie"), label(two, "anna", "b"), label(two, "ben", "b")]
    labels += [label(three, "anna", "a"), label(three, "ben", "skip")]
    labels += [label(planted, "anna", "a"), label(planted, "ben", "b"), label(two, ADJUDICATOR, "a")]
    (found,) = disputes(labels)
    assert (found.pair, found.labels, found.decision) == (one, tuple(labels[:2]), None)
    decision = label(one, ADJUDICATOR, "b")
    (found,) = disputes([*labels, decision])
    assert found.decision == decision


def test_standing_counts_what_each_did() -> None:
    planted = pair(4, expected="a")
    labels = [label(pair(1), "ben", "skip", 1), label(planted, "ben", "a", 9), label(pair(2), "anna", "tie", 5)]
    labels += [label(pair(5, expected="b"), "ben", "tie", 3)]
    anna, ben = standings(labels)
    assert (anna.annotator, anna.verdicts, anna.checks, anna.median_seconds) == ("anna", 1, 0, 3.0)
    assert (ben.verdicts, ben.skipped, ben.checks, ben.checks_right, ben.latest[14:19]) == (3, 1, 2, 1, "00:09")
