CREATE TABLE pictures (
    id          uuid PRIMARY KEY,       -- a UUIDv7: the newest is the largest
    upload      uuid NOT NULL,          -- names the folder of its files; another one when the picture is replaced
    name        text NOT NULL,
    state       text NOT NULL DEFAULT 'uploaded' CHECK (state IN ('uploaded', 'being resized', 'ready', 'failed')),
    reason      text NOT NULL DEFAULT '',   -- why it failed
    tries       integer NOT NULL DEFAULT 0, -- how often a worker has begun to resize this upload
    format      text NOT NULL,          -- JPEG, PNG, GIF or WEBP, from the original's bytes
    bytes       bigint NOT NULL,        -- size of the original
    width       integer,                -- of the original, upright; NULL until it is ready
    height      integer,
    created_at  timestamptz NOT NULL DEFAULT now(),
    changed_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX pictures_in_progress ON pictures (changed_at) WHERE state IN ('uploaded', 'being resized');
CREATE UNIQUE INDEX pictures_upload ON pictures (upload);
