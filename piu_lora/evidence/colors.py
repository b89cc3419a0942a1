"""Colours of many methods in one picture."""

__all__ = ["color"]


def color(index: int) -> tuple[float, float, float, float]:
    """Of a method's place in a picture: dark ones first, then pale ones, twenty that differ."""
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["tab20"]((2 * index + index // 10) % 20)
    return red, green, blue, alpha
