"""`python -m homeserver` is the command `homeserver`."""

from homeserver.cli import main

if __name__ == "__main__":
    main()
