-- Who had 203.0.113.1, port 40824, at 2026-11-24 14:02:30 UTC? The inside hosts, with the time of their connection: a host whose
-- connection the router translated, or one to which it forwards the port. Where a beginning or an end was not seen, it is NULL.
WITH
    '203.0.113.1' AS address,
    40824 AS port,
    toDateTime64('2026-11-24 14:02:30', 6, 'UTC') AS moment
SELECT
    node,
    if(reply.dst = address AND reply.dport = port, original.src, reply.src) AS inside,
    if(reply.dst = address AND reply.dport = port, original.sport, reply.sport) AS inside_port,
    if(reply.dst = address AND reply.dport = port, original.dst, original.src) AS remote,
    if(reply.dst = address AND reply.dport = port, original.dport, original.sport) AS remote_port,
    protocol,
    minOrNullIf(time, event IN ('new', 'list')) AS began,
    maxOrNullIf(time, event = 'destroy') AS ended
FROM conntrack
WHERE event != 'alert' AND (reply.dst = address AND reply.dport = port OR original.dst = address AND original.dport = port)
GROUP BY node, id, inside, inside_port, remote, remote_port, protocol
HAVING (began IS NULL OR began <= moment) AND (ended IS NULL OR ended >= moment)
ORDER BY began, node
FORMAT JSONEachRow;
