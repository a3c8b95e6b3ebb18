"""``python -m shared_numpy demo`` shows the main job."""

import argparse
import sys


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m shared_numpy")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser("demo", help="send frames to another process and back")
    demo.add_argument("--frames", type=int, default=10, help="how many (10)")
    demo.add_argument("--side", type=int, default=3000, help="rows and columns (3000)")
    options = parser.parse_args()
    if options.command is None:
        parser.print_help()
        return 2
    if options.frames < 1 or options.side < 1:
        parser.error("--frames and --side must be at least 1")

    from .demo import run

    run(options.frames, options.side)
    return 0


if __name__ == "__main__":
    sys.exit(main())
