"""`python -m oneiros`."""

from oneiros.cli.app import main

if __name__ == "__main__":
    main()
