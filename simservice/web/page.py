"""One self-contained HTML page around its sections: the house's style sheet inside, nothing to load."""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib import resources


def page(title: str, sections: Iterable[str], *, styles: Iterable[str] = ("style.css",)) -> str:
    """The whole document; `styles` are files of this room, joined in their order. Sections are HTML already."""
    folder = resources.files("simservice.web")
    style = "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in styles)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )
