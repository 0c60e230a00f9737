-- What customers are told. The dialect is what SQLite and PostgreSQL share.
CREATE TABLE notifications (
    customer_id   TEXT   NOT NULL,
    -- Counts a customer's notifications, from 1, without gaps.
    number        BIGINT NOT NULL,
    order_id      TEXT   NOT NULL,
    kind          TEXT   NOT NULL,
    body          TEXT   NOT NULL,
    -- One event, one notification.
    event_id      TEXT   NOT NULL UNIQUE,
    created_at_us BIGINT NOT NULL,
    PRIMARY KEY (customer_id, number)
);

-- The last number given to each customer. Its row is what makes two writers take turns.
CREATE TABLE customers (
    customer_id TEXT   NOT NULL PRIMARY KEY,
    last_number BIGINT NOT NULL
);
