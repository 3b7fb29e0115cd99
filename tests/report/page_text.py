"""A page as a reader sees it."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Elements, attributes and texts of a page.

    Attributes:
        elements: (tag, attributes) in order.
        boxes: the exact text of each `div` of class `text box`, in order.
        words: all text outside of styles, blanks collapsed.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.boxes: list[str] = []
        self._words: list[str] = []
        self._open: list[str] = []
        self._box_depth: int | None = None
        self.feed(html)
        self.close()
        self.words = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag in ("meta", "wbr", "img", "link", "path", "use"):
            return
        self._open.append(tag)
        if tag == "div" and attributes.get("class") == "text box":
            self.boxes.append("")
            self._box_depth = len(self._open)

    def handle_endtag(self, tag):
        if tag in ("path", "use"):
            return
        assert self._open, f"</{tag}> closes nothing"
        opened = self._open.pop()
        assert opened == tag, f"<{opened}> closed by </{tag}>"
        if self._box_depth is not None and len(self._open) < self._box_depth:
            self._box_depth = None

    def handle_data(self, data):
        if self._box_depth is not None:
            self.boxes[-1] += data
        if "style" not in self._open:
            self._words.append(data)

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]

    @property
    def headings(self) -> list[str]:
        return [attributes["aria-label"] or "" for tag, attributes in self.elements if tag == "section"]


def asks_for(html: str) -> list[str]:
    """Everything in a page that a browser would fetch, or that could run; empty for a page that needs only itself."""
    found = [sign for sign in ("://", "@import", "javascript:") if sign in html]
    found += [target for target in re.findall(r"url\(([^)]*)\)", html) if not target.startswith("#")]
    for tag, attributes in Page(html).elements:
        if tag in ("script", "link", "img", "iframe", "object", "base", "form"):
            found.append(f"<{tag}>")
        found += [f"{tag} {name}" for name in attributes if name == "src" or name.startswith("on")]
        if not (attributes.get("href") or "#").startswith("#"):
            found.append(f"{tag} href={attributes['href']}")
    return found if "default-src 'none'" in html else [*found, "no policy against it"]


def dangling_ids(html: str) -> list[str]:
    """Ids that stand twice, and references to ids that are not there."""
    ids = Page(html).ids
    twice = sorted({name for name in ids if ids.count(name) > 1})
    return twice + sorted(set(re.findall(r'(?:href="|url\()#([^")]+)', html)) - set(ids))


def own_colours(html: str) -> list[str]:
    """Colours of a page's figures that are no variable, so that they would be the same in light and dark."""
    figures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    return [found for svg in figures for found in re.findall(r"(?:fill|stroke): (?!none|var\()[^;\"]*", svg)]
