"""The ``piu-lora`` command, and ``python -m piu_lora``, which ``accelerate launch -m piu_lora`` needs."""

from piu_lora import interrupts, telemetry, threads

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script: listens to Ctrl-C before anything that takes time is imported."""
    interrupts.listen()
    threads.wait_briefly()
    telemetry.switch_off()
    try:
        from piu_lora.cli.app import main as run_commands
    except KeyboardInterrupt:
        interrupts.leave()
    run_commands()


if __name__ == "__main__":
    main()
