"""What `align data` found: tables, small histograms, a conversation with its taught tokens coloured."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.lm.chat import ChatFormat, Encoded
from pipeline.stages.doctor import BINS, Diagnosis, Examined, longer_wins, quantiles
from pipeline.terminal.blocks import blocks

EXAMPLES = 3
PREVIEW = 400  # tokens of the conversation that is shown


def show_diagnosis(found: Diagnosis, console: Console | None = None) -> None:
    """All that `align data` has to say, what needs attention last."""
    console = console or Console()
    console.print(_rows(found.sections))
    console.print(_lengths(found.sections))
    if found.preview is not None:
        console.print("\n[bold]The first demonstration as the model reads it[/bold]; what it is taught is green:")
        console.print(conversation(*found.preview))
    notes = attention(found)
    console.print(f"\n[bold]{'What to look at' if notes else 'Nothing to look at'}[/bold]")
    for note in notes:
        console.print(f"• {escape(note)}", highlight=False)
    if found.quarantine is not None:
        console.print(f"Rows that were turned away, with line and reason: {found.quarantine}", highlight=False)


def _rows(sections: Sequence[Examined]) -> Table:
    title = "Rows; equal: say what another one says, near: pairs of prompts nearly the same"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in ("section", "source", "schema", "read", "used", "turned away", "equal", "near"):
        words = head in ("section", "source", "schema", "turned away")
        table.add_column(head, justify="left" if words else "right", overflow="fold")
    for one in sections:
        info = one.source.info
        reasons = ", ".join(f"{reason} {count}" for reason, count in one.source.bad.counts.items()) or "–"
        counts = (len(one.equal), len(one.near))
        table.add_row(
            *(
                one.name,
                escape(Path(str(info["source"])).name),
                str(info["format"]),
                f"{info['read']:,}",
                f"{info['used']:,}",
            ),
            *(reasons, *(f"{count:,}" if count else "–" for count in counts)),
        )
    return table


def _lengths(sections: Sequence[Examined]) -> Table:
    table = Table(title="Tokens", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in ("section", "part", "min", "median", "95 %", "max", "0 to the longest", "limit", "longer"):
        words = head in ("section", "part", "0 to the longest")
        table.add_column(head, justify="left" if words else "right", no_wrap=True)
    for one in sections:
        for index, (part, tokens) in enumerate(one.lengths.items()):
            limit = ("" if one.limit is None else str(one.limit), f"{one.cut:,}" if one.cut else "–")
            table.add_row(
                one.name if index == 0 else "",
                part,
                *map(str, quantiles(tokens)),
                histogram(tokens),
                *(limit if index == 0 else ("", "")),
            )
    return table


def histogram(values: np.ndarray, bins: int = BINS) -> str:
    """Counts from 0 to the largest value, as a line of blocks; what isn't empty is at least the lowest block."""
    counts, _ = np.histogram(values, bins=bins, range=(0, int(values.max()) + 1))
    return blocks(counts.tolist())


def conversation(chat: ChatFormat, encoded: Encoded) -> Text:
    """Tokens as text, special ones as they are written, those that are taught in green."""
    text = Text()
    for token, taught in list(zip(encoded.ids, encoded.supervised, strict=True))[:PREVIEW]:
        text.append(chat.tokenizer.decode([token]), style="green" if taught else "dim")
    if len(encoded.ids) > PREVIEW:
        text.append(f" … {len(encoded.ids) - PREVIEW} more", style="dim italic")
    return text


def attention(found: Diagnosis) -> list[str]:
    """What a careful person would look at before training, one sentence each."""
    notes = []
    for one in found.sections:
        for reason, count in one.source.bad.counts.items():
            notes.append(f"{one.name}: {count:,} rows turned away, {reason}")
        if one.cut:
            notes.append(f"{one.name}: {one.cut:,} rows are longer than {one.limit} tokens and will be cut or left out")
        if one.equal:
            notes.append(
                f"{one.name}: {some(len(one.equal), 'row says', 'rows say')} what another one says: "
                f"{_places(one.equal)}"
            )
        if one.near:
            notes.append(
                f"{one.name}: {some(len(one.near), 'pair', 'pairs')} of prompts nearly the same: {_places(one.near)}"
            )
        notes += _label_notes(one)
    for (first, second), count in Counter((leak.first, leak.second) for leak in found.leaks).items():
        these = [leak for leak in found.leaks if (leak.first, leak.second) == (first, second)]
        equal = sum(leak.equal for leak in these)
        kinds = f"{equal:,} equal, {count - equal:,} nearly"
        harm = ": what is reported would not be held out" if second == "evaluate" else ""
        notes.append(
            f"{some(count, 'prompt', 'prompts')} of {first} in {second}, too ({kinds}){harm}: "
            f"{_places([leak.where for leak in these])}"
        )
    return notes


def _label_notes(one: Examined) -> list[str]:
    if one.labels is None:
        return []
    notes = []
    bias = longer_wins(one.labels)
    if bias["longer_wins_low"] > 0.55 or bias["longer_wins_high"] < 0.45:
        longer = bias["longer_wins"] > 0.5
        share = bias["longer_wins"] if longer else 1 - bias["longer_wins"]
        notes.append(
            f"{one.name}: the {'longer' if longer else 'shorter'} answer is chosen in {share:.0%} of the pairs: "
            "a reward model may learn length and nothing else"
        )
    for pairs, text in (
        (one.labels.contradicting, "contradict another one (the same answers, the other chosen)"),
        (one.labels.repeated, "repeat another one"),
    ):
        if pairs:
            notes.append(f"{one.name}: {some(len(pairs), 'pair', 'pairs')} {text}: {_places(pairs)}")
    return notes


def some(count: int, one: str, many: str) -> str:
    """1 → "1 pair", 2,000 → "2,000 pairs"."""
    return f"{count:,} {one if count == 1 else many}"


def _places(pairs: Sequence[tuple[str, str]]) -> str:
    shown = "; ".join(f"{a} and {b}" for a, b in pairs[:EXAMPLES])
    return shown + ("; …" if len(pairs) > EXAMPLES else "")
