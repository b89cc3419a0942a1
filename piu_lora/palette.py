"""The colours of everything that people look at in a browser: the report's page and the studio."""

from collections.abc import Mapping

__all__ = ["DARK", "LIGHT", "page_variables", "variables"]

LIGHT: Mapping[str, str] = {
    "page": "#f4f5f7",
    "card": "#ffffff",
    "ink": "#1a1d24",
    "muted": "#5b6370",
    "edge": "#dfe2e8",
    "grid": "#e8eaef",
    "accent": "#0b5cad",
    "accent-ink": "#ffffff",
    "accent-wash": "#e4eefa",
    "good": "#0b6b4f",
    "good-wash": "#e3f4ec",
    "bad": "#b3261e",
    "bad-wash": "#fdeceb",
    "unknown": "#5b6370",
    "unknown-wash": "#eceef2",
    "forget": "#c44e00",
    "unseen": "#8f3d2e",
    "random": "#0067a8",
    "nearest": "#00805c",
    "anchor": "#a4478a",
    "decoy": "#8a6500",
    "impostor": "#7a8290",
    "faint": "#cfd4dc",
    "heat": "#0b3c6f",
    "heat-ink": "#ffffff",
}
DARK: Mapping[str, str] = {
    "page": "#101217",
    "card": "#191c23",
    "ink": "#e9ebf0",
    "muted": "#a2a9b6",
    "edge": "#2d323d",
    "grid": "#282d37",
    "accent": "#7db8ff",
    "accent-ink": "#0b1a2b",
    "accent-wash": "#16273b",
    "good": "#5fd3a5",
    "good-wash": "#12302a",
    "bad": "#ff8f85",
    "bad-wash": "#3a1a1a",
    "unknown": "#a2a9b6",
    "unknown-wash": "#262a33",
    "forget": "#ff9457",
    "unseen": "#e0a090",
    "random": "#62b6f0",
    "nearest": "#3ecf9f",
    "anchor": "#e08cc6",
    "decoy": "#e3b341",
    "impostor": "#8d95a3",
    "faint": "#454c59",
    "heat": "#8cc4ff",
    "heat-ink": "#0b1a2b",
}


def variables(colours: Mapping[str, str]) -> str:
    """The declarations of a scheme's CSS variables."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def page_variables() -> str:
    """Both schemes for a page that follows the reader's system."""
    return (
        f":root {{\n  color-scheme: light dark; {variables(LIGHT)}\n}}\n"
        f"@media (prefers-color-scheme: dark) {{\n  :root {{\n    {variables(DARK)}\n  }}\n}}\n"
    )
