"""Words that differ between two answers: found, joined sensibly, and never at the cost of the text."""

import random

import pytest

from pipeline.report.differences import Piece, differences


def marked(one: str, other: str) -> tuple[str, str]:
    """Both texts with brackets around what differs."""
    return tuple(  # type: ignore[return-value]
        "".join(f"[{piece.text}]" if piece.differs else piece.text for piece in pieces)
        for pieces in differences(one, other)
    )


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ("Boil for ten minutes.", "Boil for six minutes.", ("Boil for [ten] minutes.", "Boil for [six] minutes.")),
        ("Yes, tea.", "yes tea", ("Yes, tea.", "yes tea")),  # case and punctuation alone say nothing
        ("red, green", "blue, black", ("[red, green]", "[blue, black]")),  # one mark over the comma, not two beside it
        ("Well, no.", "Well.", ("Well, [no].", "Well.")),  # space and punctuation at a mark's ends stay outside
        ("don't", "do", ("[don't]", "[do]")),
        ("", "All of it", ("", "[All of it]")),
        ("a  b", "a\nc  b", ("a  b", "a\n[c]  b")),
        ("我喝茶", "我喝水", ("我喝[茶]", "我喝[水]")),  # signs of a script without spaces count one by one
        ("fine 🙂", "fine 🙁", ("fine [🙂]", "fine [🙁]")),
    ],
)  # fmt: skip
def test_what_differs_is_marked(one: str, other: str, shown: tuple[str, str]) -> None:
    assert marked(one, other) == shown


def test_equal_texts_have_no_mark() -> None:
    assert differences("same " * 900, "same " * 900) == ([Piece("same " * 900)], [Piece("same " * 900)])


def test_the_pieces_are_the_text_again() -> None:
    rng = random.Random(0)
    signs = [
        "tea",
        "Tea",
        ",",
        ".",
        " ",
        "\n",
        "\t",
        "don't",
        "茶",
        "é",
        "e\u0301",
        "\x00",
        "\ud800",
        "_",
        "-",
        "🙂",
        "  ",
    ]
    for _ in range(300):
        texts = ["".join(rng.choices(signs, k=rng.randrange(30))) for _ in range(2)]
        assert ["".join(piece.text for piece in pieces) for pieces in differences(*texts)] == texts
