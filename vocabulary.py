"""The words that people type and more than one room knows: names of the views, fields of the filter language.

This room imports nothing of the house: --help prints these words, and must not wait for what they stand for.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

ViewName = Literal[
    "connections", "hosts", "countries", "networks", "services", "nat", "events", "map", "states", "usage", "remotes",
    "zones", "marks", "nodes", "usage-countries", "usage-networks", "usage-services",
]  # fmt: skip
# Where names of hosts are read: what --names takes. The first ones are read where nobody says anything.
USUAL_NAMES = ("leases", "neighbours", "containers", "wireguard", "hosts", "processes")
NAME_SOURCES = (*USUAL_NAMES, "crictl", "kubectl", "dns")
EVENT_NAMES = ("new", "update", "destroy", "list")  # of a stream
VIEW_NAMES: tuple[ViewName, ...] = get_args(ViewName)


class FilterField(NamedTuple):
    """A field of the filter language; ``filters.MAKERS`` makes its predicates."""

    name: str
    example: str
    meaning: str

    @property
    def term(self) -> str:
        """The example as a filter has it."""
        return f"{self.name}:{self.example}"


FIELDS = (
    FilterField("proto", "tcp", "protocol, by name or number"),
    FilterField("state", "established", "state; also `unreplied` and `assured`; `none`: protocol without states"),
    FilterField("family", "6", "IPv4 or IPv6"),
    FilterField("src", "10.0.0.0/8", "original source: an address or a network"),
    FilterField("dst", "2001:db8::1", "original destination: an address or a network"),
    FilterField("host", "192.0.2.1", "either end, before or after NAT"),
    FilterField("port", "443", "either port, before or after NAT; a number, a range or a name"),
    FilterField("sport", "1024-65535", "source port"),
    FilterField("dport", "https,8080", "destination port"),
    FilterField("country", "DE", "country of the remote end, by code or name; `none`: unknown"),
    FilterField("cc", "DE", "the same as `country:`"),
    FilterField("asn", "15169", "network of the remote end, by AS number; `none`: unknown"),
    FilterField("org", "google", "owner of that network, by part of the name"),
    FilterField("city", "berlin", "city of the remote end, by part of the name"),
    FilterField("dir", "in", "`in` to this host, `out` from it, `fwd` through it, `local` within it"),
    FilterField("nat", "snat", "translation: `snat` `masq` `dnat` `both` `any` `none`; `stale`: uses an old address"),
    FilterField("mark", "0x10", "connection mark, with a mask (`0x10/0xf0`) or by name (see Settings)"),
    FilterField("zone", "3", "conntrack zone, by number or name (see Settings)"),
    FilterField("flag", "unreplied", "flag: `unreplied` `assured` `offload` `hw_offload` `none`"),
    FilterField("bytes", ">1M", "total bytes; `k M G` are decimal, `Ki Mi Gi` binary; `1k-2k` is a range"),
    FilterField("packets", "<10", "total packets"),
    FilterField("rate", ">100k", "bytes per second"),
    FilterField("age", "<10s", "age; a flow of unknown start matches only `age:>`"),
    FilterField("timeout", ">1h", "time left"),
    FilterField("idle", ">1h", "time since the last packet, from the timeout of its state"),
    FilterField("fanout", ">100", "flows of local hosts by their number of remote addresses"),
    FilterField("ports", ">20", "flows of local hosts by their number of destination ports"),
    FilterField("id", "208240208", "the kernel's id"),
    FilterField("helper", "ftp", "helper"),
    FilterField("label", '"voice call"', "label, by part of it"),
    FilterField("near", "10.0.0.5", "local end: an address (includes other addresses of its device) or a network"),
    FilterField("name", "laptop", "name of the host at either end, by part of it"),
    FilterField("container", "web-db-1", "container at either end, by part of its name or of compose's `web/db`"),
    FilterField("process", "nginx", "process on this host, by part of its name or its pid"),
    FilterField("far", "8.8.8.0/24", "remote end: an address or a network"),
    FilterField("service", "tcp/443", "protocol and port; only the protocol if it has no ports"),
    FilterField("node", "r7", "machine whose table it is in, where several are watched"),
    FilterField("wan", "203.0.113.1:38768", "address (and port) that NAT shows to the other side"),
    FilterField("at", "14:02", "existed at that local time; with a date: `2026-11-24T14:02`"),
    FilterField(
        "new",
        "host,service",
        "new since `m` was pressed, or within 24 h in the flow log: `host remote country network service`",
    ),
)
