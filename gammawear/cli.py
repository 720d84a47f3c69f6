"""The `gammawear` command."""


def main() -> None:
    """Run the command line."""
