-- Orders and the requests that made them. The dialect is what SQLite and PostgreSQL share.
CREATE TABLE orders (
    -- A UUID of version 7 in lower case: sorts by the time of acceptance.
    order_id        TEXT   NOT NULL PRIMARY KEY,
    customer_id     TEXT   NOT NULL,
    -- JSON, see store/codec.rs.
    lines           TEXT   NOT NULL,
    currency_code   TEXT   NOT NULL,
    payment_token   TEXT   NOT NULL,
    status          TEXT   NOT NULL,
    decline_reason  TEXT   NOT NULL,
    revision        BIGINT NOT NULL,
    created_at_us   BIGINT NOT NULL,
    updated_at_us   BIGINT NOT NULL,
    -- The key lives as long as its order.
    idempotency_key TEXT   NOT NULL UNIQUE,
    -- SHA-256 of the request's body in hexadecimal digits.
    fingerprint     TEXT   NOT NULL
);

CREATE INDEX orders_by_customer ON orders (customer_id, order_id);
CREATE INDEX orders_by_status ON orders (status, order_id);
CREATE INDEX orders_by_customer_and_status ON orders (customer_id, status, order_id);
