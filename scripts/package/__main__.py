"""``python -m conntrack_monitor``; and this file as a script, which is how the program starts its children then.

As a script this folder is first on the path, and ``conntrack_monitor`` is the module in it; else it is the package.
"""

from conntrack_monitor import main

main()
