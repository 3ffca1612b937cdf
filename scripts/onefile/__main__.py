"""Where the one file begins. Pythons that are too old must understand this module, to say so."""

import os
import sys

if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit("conntrack-monitor: Python 3.10 or later is needed; this is {}.{}".format(*sys.version_info))

try:
    import bytecode

    bytecode.use(os.path.dirname(__file__))
except ImportError:  # a small Python: what the program itself needs, it says
    pass

from conntrack_monitor import main

main()
