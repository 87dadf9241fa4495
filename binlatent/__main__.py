"""`python -m binlatent` is `binlatent`."""

from binlatent.cli.main import main

main()
