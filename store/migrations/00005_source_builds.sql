-- +goose Up
-- A deploy from source was a build without steps, with fields of its own. It is a build with one built-in step.
UPDATE objects SET data = CAST((
    SELECT json_remove(
        json_set(d,
            '$.Spec', json(spec), '$.Given', json(spec),
            '$.Steps', json_array(json_object(
                'Status', CASE json_extract(d, '$.Status') WHEN 'QUEUED' THEN '' ELSE json_extract(d, '$.Status') END,
                'Started', json_extract(d, '$.Started'), 'Finished', json_extract(d, '$.Finished'))),
            '$.Images', json(CASE json_extract(d, '$.Status')
                WHEN 'SUCCESS' THEN json_array(json_object('Name', json_extract(d, '$.Image'), 'Digest', json_extract(d, '$.Digest')))
                ELSE '[]' END)),
        '$.Image', '$.Env', '$.Docker', '$.Digest', '$.Pushed')
    FROM (
        SELECT d, json_object(
            'Steps', json_array(json_object(
                'Name', iif(json_extract(d, '$.Docker'), 'gcr.io/cloud-builders/docker', 'gcr.io/k8s-skaffold/pack'),
                'Builtin', iif(json_extract(d, '$.Docker'), 'dockerfile', 'buildpack'),
                'Image', json_extract(d, '$.Image'),
                'Env', json((SELECT json_group_array(key || '=' || value) FROM json_each(d, '$.Env') WHERE key IS NOT NULL)))),
            'Images', json_array(json_extract(d, '$.Image')),
            'LogsBucket', 'gs://' || json_extract(d, '$.LogsIn'),
            -- The account that builds run as anyway is named by no build.
            'Account', iif(json_extract(d, '$.Account') LIKE '%@cloudbuild.gserviceaccount.com', '', json_extract(d, '$.Account'))
        ) AS spec
        FROM (SELECT CAST(data AS TEXT) AS d)
    )
) AS BLOB)
WHERE kind = 'build.build' AND deleted = 0 AND json_type(CAST(data AS TEXT), '$.Spec') IS NOT 'object'
    AND coalesce(json_extract(CAST(data AS TEXT), '$.Image'), '') <> '';
