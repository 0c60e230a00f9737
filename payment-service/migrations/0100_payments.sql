-- Payments that have reached their end. The dialect is what SQLite and PostgreSQL share.
CREATE TABLE payments (
    -- A UUID in lower case. One order, one payment.
    order_id       TEXT   NOT NULL PRIMARY KEY,
    customer_id    TEXT   NOT NULL,
    currency_code  TEXT   NOT NULL,
    amount_minor   BIGINT NOT NULL,
    status         TEXT   NOT NULL,
    charge_id      TEXT   NOT NULL,
    decline_reason TEXT   NOT NULL,
    created_at_us  BIGINT NOT NULL
);

CREATE INDEX payments_by_time ON payments (created_at_us, order_id);
CREATE INDEX payments_by_status ON payments (status, created_at_us, order_id);
