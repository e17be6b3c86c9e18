-- +goose Up
-- What is to be written down elsewhere about changes, in the transaction that makes them: entries of the audit log.
CREATE TABLE journal (
    id   TEXT PRIMARY KEY,
    line BLOB NOT NULL
) WITHOUT ROWID;
