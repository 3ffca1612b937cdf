-- Reads a file of JSON lines, also packed by gzip (.gz). Keys that the table has no column for are skipped.
INSERT INTO conntrack
SETTINGS input_format_skip_unknown_fields = 1, input_format_json_ignore_unknown_keys_in_named_tuple = 1, date_time_input_format = 'best_effort'
SELECT * FROM file('stream.json', JSONEachRow,
    'node String, time DateTime64(6, \'UTC\'), event String, protocol String, state String,
     original Tuple(src String, dst String, sport UInt16, dport UInt16, packets UInt64, bytes UInt64),
     reply Tuple(src String, dst String, sport UInt16, dport UInt16, packets UInt64, bytes UInt64),
     id UInt32, zone UInt16, nat Array(String), remote Tuple(ip String, country String, asn UInt32)');
