-- A table of the JSON lines of conntrack-monitor --json, of any mixture of nodes. Each line is a row, an event.
CREATE TABLE IF NOT EXISTS conntrack
(
    node LowCardinality(String),
    time DateTime64(6, 'UTC'),
    event Enum8('new' = 1, 'update' = 2, 'destroy' = 3, 'list' = 4, 'alert' = 5),
    protocol LowCardinality(String),
    state LowCardinality(String),
    original Tuple(src String, dst String, sport UInt16, dport UInt16, packets UInt64, bytes UInt64),
    reply Tuple(src String, dst String, sport UInt16, dport UInt16, packets UInt64, bytes UInt64),
    id UInt32,
    zone UInt16,
    nat Array(LowCardinality(String)),
    remote Tuple(ip String, country LowCardinality(String), asn UInt32)
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (reply.dst, reply.dport, time)
TTL toDateTime(time) + INTERVAL 30 DAY;
