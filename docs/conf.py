"""The documentation site: the notebooks as they are committed, never run, in a page each. Built by `make docs`, offline.

Reads what it says of the project from settings.ini; needs the packages of the extra `docs`."""
import json
import os
import posixpath
import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
settings = ConfigParser(delimiters=["="])
settings.read(ROOT / "settings.ini", encoding="utf-8")
cfg = settings["DEFAULT"]
SOURCE = f"{cfg['git_url']}/blob/{cfg['branch']}/"  # where files that are no page of the site can be read

project, author, copyright, release = cfg["title"], cfg["author"], f"{cfg['copyright']}", cfg["version"]
extensions = ["myst_nb", "sphinx-mathjax-offline"]
root_doc = "index"
exclude_patterns = ["**/.*", "**/_*"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
html_theme = "sphinx_book_theme"
html_title = cfg["title"]
html_context = {"default_mode": "auto"}  # dark or light, as the reader's system is
html_theme_options = {
    "repository_url": cfg["git_url"], "repository_branch": cfg["branch"], "path_to_docs": cfg["nbs_path"],
    "use_repository_button": True, "use_source_button": True, "show_toc_level": 2, "navbar_persistent": [],
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
}


def directives(code):
    "`#| name: value` lines of a cell as a dict."
    return {m[1]: m[2].strip() for m in re.finditer(r"^#\s*\|\s*([\w-]+):?[ \t]*(.*)$", code, re.M)}


def without_directives(cell):
    "The code cell as a reader wants it, or None where it is for nbdev alone."
    code = "".join(cell["source"])
    flags = directives(code)
    code = re.sub(r"^#\s*\|.*\n?", "", code, flags=re.M).strip("\n")
    if {"default_exp", "hide"} & flags.keys() or not code: return None
    metadata = {**cell["metadata"], "mystnb": {"image": {"alt": flags["fig-alt"]}}} if "fig-alt" in flags else cell["metadata"]
    return {**cell, "source": code, "metadata": metadata}


def links(text, folder):
    "Anchors in the site's spelling (JupyterLab's keeps capitals). What is no page of it, such as ../LICENSE, is read in the repository; pictures come along."
    text = re.sub(r"\]\(([^)#\s]*)#([^)]*)\)", lambda m: f"]({m[1]}#{re.sub('[^a-z0-9_-]', '', m[2].lower())})" if "://" not in m[1] else m[0], text)
    def elsewhere(m):
        path = posixpath.normpath(posixpath.join(cfg["nbs_path"], folder, m[2]))
        return m[0] if path.startswith(cfg["nbs_path"] + "/") else f"{m[1]}({SOURCE}{path}{m[3] or ''})"
    return re.sub(r"(?<!!)(\[[^\]\[]*\])\((\.\./[^)#\s]*)(#[^)]*)?\)", elsewhere, text)


def contents(app):
    "The table of contents, as a cell for the first page: the notebooks in the order of their names, then the solutions."
    pages = sorted(app.env.found_docs - {root_doc})
    parts = [(caption, [p for p in pages if ("/" in p) == inner]) for caption, inner in (("The course", False), ("Solutions", True))]
    return "\n\n".join("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```"]) for caption, names in parts if names)


def prepare(app, page, source):
    "What a page is made from: the notebook's JSON, changed in memory."
    nb = json.loads(source[0])
    cells = [without_directives(c) if c["cell_type"] == "code" else {**c, "source": links("".join(c["source"]), posixpath.dirname(page))} for c in nb["cells"]]
    if page == root_doc: cells.append({"cell_type": "markdown", "metadata": {}, "source": contents(app), "id": "contents"})
    source[0] = json.dumps({**nb, "cells": [c for c in cells if c]})


ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 100 100'%3E%3Ctext y='80' font-size='80'%3E🦙%3C/text%3E%3C/svg%3E"


STYLE = ".bd-page-width, .bd-main .bd-content .bd-article-container {max-width: 100%}"  # code wants room


def add_to_head(app, page, template, context, doctree):
    context["metatags"] = context.get("metatags", "") + f'<link rel="icon" href="{ICON}"><style>{STYLE}</style>'


def setup(app):
    app.connect("source-read", prepare)
    app.connect("html-page-context", add_to_head)
