"""Words of somebody else's in Markdown: they stay words, whatever is written in them."""

__all__ = ["as_code", "as_words"]

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


def as_code(text: str) -> str:
    """For use between backticks."""
    return text.replace("`", "'").replace("\n", " ").replace("\r", " ").replace("|", "\\|")
