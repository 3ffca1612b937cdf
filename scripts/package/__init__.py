"""The installed program: its modules lie flat in this folder, and only its own process finds them there.

``import conntrack_monitor`` changes nothing, and ``import parse`` beside it is whoever's that is. When the program
starts, this folder comes first on the path, as a script's folder does: so its modules are the checkout's, byte by byte.
"""

import os
import sys


def main():  # type: ignore[no-untyped-def]  # without __future__: it may be what is missing
    """Start the program."""
    here = os.path.dirname(os.path.abspath(__file__))
    if here not in sys.path[:1]:
        sys.path.insert(0, here)
    import importlib

    importlib.import_module("conntrack_monitor.conntrack_monitor").main()
