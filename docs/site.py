"""Adds the pages of the site that are in the root of the repository, and rewrites links to them."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of ``PAGES``, under their names on the site."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """A link to ``docs/x.md`` or ``../README.md`` leads to that page of the site."""
    markdown = markdown.replace("](docs/", "](")
    for source, page in PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({page}").replace(f"]({source}", f"]({page}")
    return markdown


def on_page_content(html: str, **_: object) -> str:
    """Docstrings mark the names of modules and functions for Sphinx (``:func:``); here the names do."""
    return re.sub(r":(mod|class|func|data|meth):(?=<code>)", "", html)
