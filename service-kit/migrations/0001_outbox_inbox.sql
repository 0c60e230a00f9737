-- Events that wait for the broker. A row is deleted when the broker has taken it, so that the table stays small.
-- The id counts upward within what waits; it is the order of publication.
CREATE TABLE outbox (
    id BIGINT NOT NULL PRIMARY KEY,
    event_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    ordering_key TEXT NOT NULL,
    attributes TEXT NOT NULL,
    payload BLOB NOT NULL,
    created_at_ms BIGINT NOT NULL
);

-- Events that were handled, by consumer. Rows are pruned after the inbox's retention.
CREATE TABLE inbox (
    consumer TEXT NOT NULL,
    event_id TEXT NOT NULL,
    handled_at_ms BIGINT NOT NULL,
    PRIMARY KEY (consumer, event_id)
);

CREATE INDEX inbox_by_age ON inbox (handled_at_ms);
