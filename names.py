"""Names for numbers: services by port, IP protocols, connection states.

A table of our own, because minimal hosts have no /etc/services or /etc/protocols. Source: the IANA registries, cut to
what is seen on routers; states: nf_conntrack_proto_{tcp,sctp,dccp}.c as libnetfilter_conntrack prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def called(value: str, names: Mapping[T, str]) -> list[T]:
    """What has this name, in any case."""
    return [number for number, name in names.items() if name.casefold() == value.casefold()]


def or_names(names: Mapping[T, str]) -> str:
    return f", and no name; there are: {' '.join(dict.fromkeys(names.values()))}" if names else ""
