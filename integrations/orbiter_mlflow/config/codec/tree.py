"""The params of a config as a tree, by the parts of their paths."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from orbiter_mlflow.config.codec.json_text import is_json
from orbiter_mlflow.config.codec.markers import REDACTED

__all__ = ["Node", "tree"]

_SECRET = f'{{"{REDACTED}"'
"""How the text of a param begins that is a secret as a whole."""


@dataclass(slots=True)
class Node:
    """A param and those below it."""

    text: str | None = None
    children: dict[str, "Node"] = field(default_factory=dict)

    @property
    def is_secret(self) -> bool:
        """Whether all of it was redacted."""
        return self.text is not None and self.text.startswith(_SECRET) and is_json(self.text)


def tree(params: Iterable[tuple[Iterable[str], str]]) -> Node:
    """The params, given by the parts of their paths, as one tree."""
    root = Node()
    for path, text in params:
        node = root
        for part in path:
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = Node()
            node = child
        node.text = text
    return root
