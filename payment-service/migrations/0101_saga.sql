-- Payments that are under way, that were tried again, and whose money went back. Times that are not known are 0.
ALTER TABLE payments ADD COLUMN attempt BIGINT NOT NULL DEFAULT 1;
ALTER TABLE payments ADD COLUMN refund_id TEXT NOT NULL DEFAULT '';
ALTER TABLE payments ADD COLUMN captured_at_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE payments ADD COLUMN refunded_at_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE payments ADD COLUMN updated_at_us BIGINT NOT NULL DEFAULT 0;
-- Each try, as JSON: it is read and written with its payment, and never searched.
ALTER TABLE payments ADD COLUMN attempts TEXT NOT NULL DEFAULT '[]';
-- Grows with each change, so that two instances do not write over each other.
ALTER TABLE payments ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

UPDATE payments SET updated_at_us = created_at_us;
UPDATE payments SET captured_at_us = created_at_us WHERE status = 'CAPTURED';
