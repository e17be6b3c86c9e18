-- +goose Up
-- What a row belongs to or refers to, as its table says (Table.By): the blob of an object, the project of a bucket. It
-- answers whether a blob is still needed, and how many buckets a project has, without a look at every row.
ALTER TABLE objects ADD COLUMN ref TEXT NOT NULL DEFAULT '';

UPDATE objects SET ref = coalesce(json_extract(CAST(data AS TEXT), '$.Digest'), '') WHERE kind IN ('storage.object', 'artifacts.manifest') AND deleted = 0;
UPDATE objects SET ref = coalesce(json_extract(CAST(data AS TEXT), '$.Project'), '') WHERE kind IN ('storage.bucket', 'iam.serviceAccount') AND deleted = 0;
UPDATE objects SET ref = coalesce(json_extract(CAST(data AS TEXT), '$.UniqueID'), '') WHERE kind = 'iam.serviceAccountKey' AND deleted = 0;
UPDATE objects SET ref = substr(name, instr(name, '/blobs/') + 7) WHERE kind = 'artifacts.blob' AND deleted = 0;

CREATE INDEX objects_by_ref ON objects (kind, ref) WHERE ref <> '' AND deleted = 0;
