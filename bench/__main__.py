"""Measures a server of its own on this machine; `make bench BENCH_OPTIONS="growth --help"` tells how.

It runs `homeserver run` and a PostgreSQL with all that makes it durable, in a temporary folder that goes with them, and
speaks to the server as clients do. What is printed as CPU is that of the server and of PostgreSQL.
"""

import argparse
from collections.abc import Sequence

from bench import compare, delivery, growth, speed


def _sizes(text: str) -> tuple[int, ...]:
    """Sizes, separated by commas; none for an empty text."""
    sizes = tuple(sorted(int(size) for size in text.split(",") if size))
    if any(size < 2 for size in sizes):
        raise argparse.ArgumentTypeError("a size is at least 2")
    return sizes


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what the command line asks for; without a name, how fast the server is."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="write JSON; how far it is, is told on standard error")
    commands = parser.add_subparsers(dest="command", metavar="WHAT")
    one = commands.add_parser(
        "speed", help="registering, joining, sending, syncing (the default)", description=speed.__doc__
    )
    one.add_argument("--users", type=int, default=50, help="users in the room (default 50)")
    one.add_argument("--messages", type=int, default=1000, help="messages that are sent (default 1000)")
    one.add_argument("--senders", type=int, default=10, help="messages on their way at once (default 10)")
    one = commands.add_parser("growth", help="how costs grow with size", description=growth.__doc__)
    sizes = growth.Options()
    for name, text in (("members", "members of rooms"), ("rooms", "rooms of users"), ("events", "events in rooms")):
        default = getattr(sizes, name)
        shown = ",".join(str(size) for size in default)
        one.add_argument(f"--{name}", type=_sizes, default=default, help=f"{text}, with commas (default {shown})")
    one.add_argument("--repeats", type=int, default=sizes.repeats, help="operations of each kind (default 20)")
    one = commands.add_parser("delivery", help="long polls and WebSockets compared", description=delivery.__doc__)
    one.add_argument("--readers", type=int, default=20, help="users who wait (default 20)")
    one.add_argument("--events", type=int, default=50, help="events that are sent (default 50)")
    compare.add_options(
        commands.add_parser("compare", help="this server and a Synapse, side by side", description=compare.__doc__)
    )
    found = parser.parse_args(arguments)
    match found.command:
        case "growth":
            options = growth.Options(found.members, found.rooms, found.events, max(1, found.repeats))
            growth.run(options, as_json=found.json)
        case "delivery":
            delivery.run(delivery.Options(max(1, found.readers), max(1, found.events)), as_json=found.json)
        case "compare":
            compare.run(compare.options_of(found), as_json=found.json)
        case "speed":
            wanted = speed.Options(max(2, found.users), max(1, found.messages), max(1, found.senders))
            speed.run(wanted, as_json=found.json)
        case _:
            speed.run(speed.Options(), as_json=found.json)


if __name__ == "__main__":
    main()
