"""The help: all keys, the filters, all that is wrong."""

from __future__ import annotations

from keys import BINDINGS, Binding
from notices import notices_of
from scene import Scene
from spans import Line, pad, wrap

KEYS_WIDTH, TEXT_WIDTH = 13, 26  # of a key in the help: two times both is 80 less the margins

_FILTER_HELP = """\
Filters: words joined by blanks mean and; or; ( ); ! or not negates; a bare word searches everything shown.
proto: state: family: src: dst: host: port: sport: dport: dir:in|out|fwd|local nat:snat|dnat|any mark:0x10 \
zone:3 flag:unreplied bytes:>1M rate:>100k age:<10s country:DE asn:15169 org:google near: far: service:tcp/443 \
new: wan:203.0.113.1:38768 at:14:02 (who was it? in the NAT view) city:"""


def help_lines(scene: Scene, width: int) -> list[Line]:
    """All keys, two on a line where both are short and there is room; filters; all that is wrong."""
    mark = scene.glyphs.cut
    lines: list[Line] = []
    left: Binding | None = None
    for binding in BINDINGS:
        short = width >= 80 and len(binding.text) <= TEXT_WIDTH
        if left is not None and short:
            lines[-1][-1] = (pad(left.text, TEXT_WIDTH, False), "plain")
            lines[-1] += _key_line(binding)
            left = None
        else:
            texts = wrap(binding.text, max(8, width - KEYS_WIDTH - 1), mark)
            lines.append([*_key_line(binding)[:1], (texts[0], "plain")])
            lines += [[(" " * (KEYS_WIDTH + 1), "plain"), (text, "plain")] for text in texts[1:]]
            left = binding if short else None
    for paragraph in _FILTER_HELP.split("\n"):
        lines += [[(f" {text}", "plain")] for text in wrap(paragraph, max(8, width - 2), mark)]
    for paragraph in scene.status.attributions:
        lines += [[(f" {text}", "dim")] for text in wrap(paragraph, max(8, width - 2), mark)]
    for notice in notices_of(scene.status, scene.table, scene.live, scene.now):
        cure = f"  try: {notice.cure}" if notice.cure else ""
        role = "bad" if notice.bad else "warn"
        lines += [[(text, role)] for text in wrap(f"! {notice.text}{cure}", max(8, width), mark)]
    return lines


def _key_line(binding: Binding) -> Line:
    return [(f" {' '.join(binding.keys):<{KEYS_WIDTH}}", "key"), (binding.text, "plain")]
