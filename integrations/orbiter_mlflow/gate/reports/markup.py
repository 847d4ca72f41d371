"""Elements of a page, built as a tree: what is put in as text can only come out as text."""

from xml.etree import ElementTree

from orbiter_mlflow.text.escaping import plain

__all__ = ["Element", "element", "serialized"]

Element = ElementTree.Element

_INLINE = frozenset({"a", "b", "br", "code", "span", "strong", "summary", "title", "text"})


def element(tag: str, *children: "Element | str", **attributes: str) -> Element:
    """`element("a", "text", href=address, class_="quiet")`; `aria_label` is `aria-label`.

    Attributes are for our own texts only: no text from outside stands in one.
    """
    made = Element(tag, {name.rstrip("_").replace("_", "-"): v for name, v in attributes.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, str):
            if last is None:
                made.text = (made.text or "") + plain(child)
            else:
                last.tail = (last.tail or "") + plain(child)
        else:
            made.append(child)
            last = child
            if child.tag not in _INLINE:
                child.tail = "\n"
    return made


def serialized(root: Element) -> str:
    """The tree as HTML."""
    return "<!doctype html>\n" + ElementTree.tostring(root, "unicode", method="html") + "\n"
