"""Attack an adapter and report what came back."""
