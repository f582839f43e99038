"""The program `kdrun`: signals are watched before anything else is imported."""

from kdrun import signals


def main() -> None:
    """Run the command that was typed."""
    with signals.watched(last=True):
        from kdrun import cli

        cli.main()


if __name__ == "__main__":
    main()
