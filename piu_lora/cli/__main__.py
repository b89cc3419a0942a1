"""``python -m piu_lora.cli``."""

from piu_lora.cli.app import main

main()
