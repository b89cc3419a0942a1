"""``python -m piu_lora``, which ``accelerate launch -m piu_lora`` needs."""

from piu_lora.cli.app import main

main()
