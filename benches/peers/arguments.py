"""A type for arguments of a command line."""

import argparse


def positive(kind):
    """Parse a number of this kind that is above 0."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number") from error
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return parse
