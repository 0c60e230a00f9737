CREATE TABLE charges (
    number BIGINT PRIMARY KEY,
    idempotency_key TEXT NOT NULL UNIQUE,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    reason TEXT,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    card TEXT NOT NULL,
    reference TEXT NOT NULL
);
