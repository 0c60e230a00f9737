-- The last number that the customer has said to have seen.
ALTER TABLE customers ADD COLUMN acknowledged_number BIGINT NOT NULL DEFAULT 0;

CREATE INDEX notifications_by_order ON notifications (order_id);

-- Where the customer of an order gets e-mail. Events of payments do not tell it.
CREATE TABLE order_addresses (
    order_id TEXT NOT NULL PRIMARY KEY,
    -- Empty when the address cannot be used.
    address  TEXT NOT NULL,
    -- Why it cannot; empty when it can.
    problem  TEXT NOT NULL
);

-- One e-mail for each notification of a customer with an address.
CREATE TABLE emails (
    customer_id    TEXT   NOT NULL,
    number         BIGINT NOT NULL,
    address        TEXT   NOT NULL,
    -- QUEUED, SENT or REFUSED.
    state          TEXT   NOT NULL,
    -- Times that the mail server has put this e-mail off.
    attempts       BIGINT NOT NULL,
    -- When it may be sent. Later while somebody is sending it; never while an older one of the customer is queued.
    due_at_us      BIGINT NOT NULL,
    -- Why it was put off or refused.
    reason         TEXT   NOT NULL,
    -- When it was sent or refused; zero before.
    finished_at_us BIGINT NOT NULL,
    PRIMARY KEY (customer_id, number)
);

CREATE INDEX emails_due ON emails (due_at_us) WHERE state = 'QUEUED';
CREATE INDEX emails_queued ON emails (customer_id, number) WHERE state = 'QUEUED';

-- Invoices of paid orders, one each.
CREATE TABLE invoices (
    order_id       TEXT   NOT NULL PRIMARY KEY,
    invoice_number TEXT   NOT NULL UNIQUE,
    customer_id    TEXT   NOT NULL,
    currency_code  TEXT   NOT NULL,
    total_minor    BIGINT NOT NULL,
    pdf            BLOB   NOT NULL,
    pdf_bytes      BIGINT NOT NULL,
    -- Counts invoices in the order of their arrival, from 1.
    position       BIGINT NOT NULL UNIQUE,
    created_at_us  BIGINT NOT NULL
);

-- The last position given. Its row is what makes two writers take turns.
CREATE TABLE invoice_positions (
    id            BIGINT NOT NULL PRIMARY KEY,
    last_position BIGINT NOT NULL
);
