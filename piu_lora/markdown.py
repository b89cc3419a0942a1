"""Words of somebody else's in Markdown: they stay words, whatever is written in them."""

__all__ = ["as_code", "as_name", "as_words"]

_SPECIAL = {
    "\\": "\\\\",
    "|": "\\|",
    "<": "&lt;",
    ">": "&gt;",
    "`": "\\`",
    "*": "\\*",
    "_": "\\_",
    "[": "\\[",
    "]": "\\]",
    "\n": " ",
    "\r": " ",
}


def as_words(text: str) -> str:
    """No markup, no HTML, no new cell of a table."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def as_name(text: str) -> str:
    """Of a method and its settings, in tables that are shown on a screen as well: underscores stay bare."""
    return "".join(letter if letter == "_" else _SPECIAL.get(letter, letter) for letter in text)


def as_code(text: str) -> str:
    """For use between backticks."""
    return text.replace("`", "'").replace("\n", " ").replace("\r", " ").replace("|", "\\|")
