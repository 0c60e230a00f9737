-- What a charge has come to: money that was taken, and money that went back.
ALTER TABLE charges ADD COLUMN captures BIGINT NOT NULL DEFAULT 1;
ALTER TABLE charges ADD COLUMN refunded_minor BIGINT NOT NULL DEFAULT 0;
ALTER TABLE charges ADD COLUMN refund_id TEXT;

-- Each step of each charge, in order. A refund's id stands in `id`, and the key of whoever asked for the step in
-- `idempotency_key`, which is null for a step that needed no key of its own.
CREATE TABLE movements (
    number BIGINT PRIMARY KEY,
    charge_number BIGINT NOT NULL,
    kind TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    id TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    created_at_ms BIGINT NOT NULL
);

CREATE INDEX movements_by_charge ON movements (charge_number, number);

-- The steps of charges from before this table; when they were made is not known.
INSERT INTO movements (number, charge_number, kind, amount_minor, id, created_at_ms)
SELECT number, number, status, amount_minor, id, 0 FROM charges;

-- Keys that were cancelled before any charge came under them.
CREATE TABLE blocked_keys (
    idempotency_key TEXT PRIMARY KEY,
    created_at_ms BIGINT NOT NULL
);
