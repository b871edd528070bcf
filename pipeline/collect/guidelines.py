"""The owner's guidelines: Markdown in, HTML without any of the author's HTML out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from pipeline.collect.errors import CollectError


def render(path: Path) -> str:
    """A Markdown file as HTML: CommonMark and tables; tags show as text, pictures as their words, links open outside.

    Raises:
        CollectError: it can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CollectError(f"--guidelines {path} can't be read: {error}") from None
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    reader.add_render_rule("link_open", _outside)
    return str(reader.render(text))


def _outside(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer")
    return self.renderToken(tokens, index, options, env)
