"""``python -m gammawear`` is the command line."""

from gammawear.cli import main

main()
