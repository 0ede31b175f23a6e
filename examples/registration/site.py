"""Generates a restaurant's site from its menu: a front page, a page and a picture for each category, a style sheet.

`pages` and `images` are pure; `write_site` puts files where they belong, each whole or not at all.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from html import escape
from itertools import count
from pathlib import Path

from steplog.examples.registration.menu import Menu, MenuRow

_STYLE = Path(__file__).with_name("site.css")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<header>
<h1>{restaurant}</h1>
<nav>{links}</nav>
</header>
<main>
{body}
</main>
<footer>{restaurant} · {dishes} dishes</footer>
</body>
</html>
"""
_DISH = '<article class="dish"><h3>{name}</h3><span class="price">{price}</span><p>{tags}{text}</p></article>'
_IMAGE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 180" role="img">
<rect width="320" height="180" fill="hsl({hue} 45% 82%)"/>
<text x="160" y="98" text-anchor="middle" font-family="Georgia, serif" font-size="22">{name}</text>
</svg>
"""


def pages(restaurant: str, menu: Menu) -> dict[str, str]:
    """The site's files by name."""
    files = {f"{name}.html": rows for name, rows in zip(_page_names(menu), menu.categories.values(), strict=True)}
    links = " ".join(
        f'<a href="{page}">{escape(category)}</a>' for page, category in zip(files, menu.categories, strict=True)
    )

    def page(title: str, body: str) -> str:
        return _PAGE.format(
            title=escape(f"{title} · {restaurant}"),
            restaurant=escape(restaurant),
            links=links,
            body=body,
            dishes=len(menu.dishes),
        )

    made = {"style.css": _STYLE.read_text(encoding="utf-8"), "index.html": page("Menu", _front(files, menu))}
    for (name, rows), category in zip(files.items(), menu.categories, strict=True):
        made[name] = page(category, _category(category, rows))
    return made


def images(menu: Menu) -> dict[str, str]:
    """A placeholder picture (SVG) for each category, by file name."""
    return {
        f"{name}.svg": _IMAGE.format(hue=(index * 47) % 360, name=escape(category))
        for index, (name, category) in enumerate(zip(_page_names(menu), menu.categories, strict=True))
    }


def write_site(folder: Path, files: dict[str, str], written: Callable[[int], None] = lambda done: None) -> list[Path]:
    """Write the files and return their paths; `written` hears how many are done after each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name, content in files.items():
        path = folder / name
        part = path.with_name(f"{name}.part")
        part.write_text(content, encoding="utf-8")
        os.replace(part, path)
        paths.append(path)
        written(len(paths))
    return paths


def _page_names(menu: Menu) -> list[str]:
    """A file name for each category: readable, and told apart where two would be the same."""
    names = ["index"]
    for category in menu.categories:
        plain = unicodedata.normalize("NFKD", category).encode("ascii", "ignore").decode().lower()
        name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60] or "category"
        candidates = (f"{name}-{number}" if number > 1 else name for number in count(1))
        names.append(next(candidate for candidate in candidates if candidate not in names))
    return names[1:]


def _front(files: dict[str, list[MenuRow]], menu: Menu) -> str:
    items = "\n".join(
        f'<li><a href="{page}">{escape(category)}</a>: {len(rows)} dishes</li>'
        for (page, rows), category in zip(files.items(), menu.categories, strict=True)
    )
    return f"<ul>\n{items}\n</ul>"


def _category(category: str, rows: list[MenuRow]) -> str:
    about = escape(rows[0].categoryDescription)
    return "\n".join([f"<h2>{escape(category)}</h2>", f"<p>{about}</p>", *(_dish(row) for row in rows)])


def _dish(row: MenuRow) -> str:
    return _DISH.format(
        name=escape(row.shown_name),
        price=f"{row.dishPrice:.2f}",
        tags="".join(f'<span class="tag">{escape(tag)}</span>' for tag in row.tag_list),
        text=escape(row.dishDescription),
    )
