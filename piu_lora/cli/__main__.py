"""``python -m piu_lora.cli``."""

from piu_lora.__main__ import main

main()
