"""A page as a reader sees it."""

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
        if tag in ("meta", "wbr", "path", "use"):
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
