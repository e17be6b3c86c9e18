-- +goose Up
-- What rows add up to, as their tables say (Table.Sum): the bytes that a project stores. It is kept with every write, so
-- that nobody has to look at every row before one more is added.
CREATE TABLE sums (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO sums (name, value)
SELECT 'stored-bytes/' || project, coalesce(sum(bytes), 0) FROM (
    SELECT json_extract(CAST(b.data AS TEXT), '$.Project') AS project, json_extract(CAST(o.data AS TEXT), '$.Size') AS bytes
    FROM objects AS o JOIN objects AS b ON b.kind = 'storage.bucket' AND b.name = substr(o.name, 1, instr(o.name, '/') - 1) AND b.deleted = 0
    WHERE o.kind = 'storage.object' AND o.deleted = 0
    UNION ALL
    SELECT substr(name, 10, instr(substr(name, 10), '/') - 1), json_extract(CAST(data AS TEXT), '$.Size') -- behind "projects/"
    FROM objects
    WHERE kind IN ('artifacts.blob', 'artifacts.manifest') AND name LIKE 'projects/%' AND deleted = 0
) GROUP BY project;
