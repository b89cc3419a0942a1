"""The studio's looks: the report's colours, one typeface, one accent."""

import inspect
from importlib.resources import files

import gradio

from piu_lora.palette import DARK, LIGHT, variables

__all__ = ["HEAD", "style", "theme"]

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace")
HEAD = '<script src="studio/static/studio.js" defer></script>'
# Gradio's variables, and the colour of the palette that each takes.
_PAINTED = {
    "body_background_fill": "page",
    "body_text_color": "ink",
    "body_text_color_subdued": "muted",
    "background_fill_primary": "card",
    "background_fill_secondary": "page",
    "block_background_fill": "card",
    "block_border_color": "edge",
    "border_color_primary": "edge",
    "border_color_accent": "accent",
    "block_label_background_fill": "card",
    "block_label_text_color": "muted",
    "block_title_text_color": "ink",
    "block_info_text_color": "muted",
    "input_background_fill": "page",
    "input_border_color": "muted",
    "input_border_color_focus": "accent",
    "input_placeholder_color": "muted",
    "color_accent": "accent",
    "color_accent_soft": "accent-wash",
    "slider_color": "accent",
    "link_text_color": "accent",
    "link_text_color_hover": "accent",
    "link_text_color_visited": "accent",
    "link_text_color_active": "accent",
    "checkbox_background_color": "card",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color": "muted",
    "checkbox_border_color_selected": "accent",
    "checkbox_label_background_fill": "page",
    "checkbox_label_background_fill_selected": "accent-wash",
    "checkbox_label_text_color": "ink",
    "checkbox_label_text_color_selected": "ink",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent",
    "button_primary_text_color": "accent-ink",
    "button_primary_text_color_hover": "accent-ink",
    "button_primary_border_color": "accent",
    "button_secondary_background_fill": "card",
    "button_secondary_background_fill_hover": "accent-wash",
    "button_secondary_text_color": "ink",
    "button_secondary_text_color_hover": "ink",
    "button_secondary_border_color": "muted",
    "error_text_color": "bad",
    "error_background_fill": "bad-wash",
}


def theme() -> gradio.themes.Base:
    """Gradio's plain theme in the colours of the palette; no font comes from elsewhere."""
    base = gradio.themes.Base(font=_SANS, font_mono=_MONO, radius_size="lg", text_size="md")
    schemes = inspect.signature(gradio.themes.Base.set).parameters
    painted = {name: f"var(--{colour})" for name, colour in _PAINTED.items()}
    dark = {f"{name}_dark": colour for name, colour in painted.items() if f"{name}_dark" in schemes}
    # Needed before the page has its variables.
    first = {
        "body_background_fill": LIGHT["page"],
        "body_background_fill_dark": DARK["page"],
        "body_text_color": LIGHT["ink"],
        "body_text_color_dark": DARK["ink"],
    }
    return base.set(**{**painted, **dark, **first}, block_shadow="none", block_border_width="1px")


def style() -> str:
    """The studio's own rules, with both schemes of the palette."""
    rules = files(__package__).joinpath("static", "studio.css").read_text(encoding="utf-8")
    # Gradio marks the body where the reader's system, or they themselves, ask for dark.
    return f":root {{ {variables(LIGHT)} }}\n.dark {{ {variables(DARK)} }}\n{rules}"
