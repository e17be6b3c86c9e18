-- +goose Up
CREATE TABLE objects (
    kind     TEXT    NOT NULL,           -- what it is: "run.service"
    name     TEXT    NOT NULL,           -- full resource name: "projects/p/locations/r/services/s"
    version  INTEGER NOT NULL,           -- changes when the intent changes
    revision INTEGER NOT NULL,           -- store-wide, changes with every write
    created  INTEGER NOT NULL,           -- nanoseconds since 1970, UTC
    updated  INTEGER NOT NULL,
    deleted  INTEGER NOT NULL DEFAULT 0, -- 1: a tombstone, kept so that a watcher learns of the deletion
    data     BLOB    NOT NULL,           -- JSON
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;

CREATE UNIQUE INDEX objects_by_revision ON objects (revision);

CREATE TABLE counters (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- revision: the last one given out; horizon: changes at or before it may be gone with their tombstones.
INSERT INTO counters (name, value) VALUES ('revision', 0), ('horizon', 0);
