"""`python -m binlatent` is `binlatent`."""

from binlatent.cli import main

main()
