-- The saga: checkout modes, tries, deadlines, cancellations, refunds, invoices and the timeline. Orders from before it
-- were placed asynchronously, have one try and no deadline. The dialect is what SQLite and PostgreSQL share.
ALTER TABLE orders ADD COLUMN customer_email TEXT NOT NULL DEFAULT '';
ALTER TABLE orders ADD COLUMN checkout_mode TEXT NOT NULL DEFAULT 'ASYNCHRONOUS';
ALTER TABLE orders ADD COLUMN payment_attempt BIGINT NOT NULL DEFAULT 1;
-- Empty unless the status is CANCELLED.
ALTER TABLE orders ADD COLUMN cancel_reason TEXT NOT NULL DEFAULT '';
-- 1 while a refund is on its way, else 0.
ALTER TABLE orders ADD COLUMN refund_pending BIGINT NOT NULL DEFAULT 0;
ALTER TABLE orders ADD COLUMN payment_deadline_us BIGINT;
-- Only while a synchronous checkout is under way.
ALTER TABLE orders ADD COLUMN call_deadline_us BIGINT;
-- When the order is cancelled by itself; NULL once nothing is due any more.
ALTER TABLE orders ADD COLUMN due_at_us BIGINT;
ALTER TABLE orders ADD COLUMN invoice_number BIGINT;

CREATE INDEX orders_by_due ON orders (due_at_us) WHERE due_at_us IS NOT NULL;

-- What happened to an order after its acceptance, which the order itself tells.
CREATE TABLE order_timeline (
    order_id TEXT   NOT NULL,
    -- From 1, without gaps.
    number   BIGINT NOT NULL,
    at_us    BIGINT NOT NULL,
    kind     TEXT   NOT NULL,
    attempt  BIGINT NOT NULL,
    detail   TEXT   NOT NULL,
    PRIMARY KEY (order_id, number)
);

-- Counters without gaps: each is raised in the transaction that uses its value.
CREATE TABLE counters (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);

INSERT INTO counters (name, value) VALUES ('invoices', 0);
