-- Jobs that are to be put into the queue. The row is deleted when the queue has the job.
CREATE TABLE outbox (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(), -- the job's id
    picture     uuid NOT NULL REFERENCES pictures ON DELETE CASCADE,
    upload      uuid NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX outbox_picture ON outbox (picture);
