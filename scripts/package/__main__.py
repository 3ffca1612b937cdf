"""``python -m conntrack_monitor``; and this file as a script, which is how the program starts its children then."""

if __package__:
    from conntrack_monitor import main
else:  # this folder is first on the path: this is the module in it, not the package
    from conntrack_monitor import main

main()
