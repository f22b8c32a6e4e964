"""The journal's tables on PostgreSQL: those of `journal.py`, and PgQueuer's beside them.

`now()` is the server's clock, so that machines need not agree on the time.
"""

TABLES = """
CREATE TABLE batch (
    id          integer PRIMARY KEY CHECK (id = 1),
    version     integer NOT NULL,
    recipe      text NOT NULL,
    max_jobs    integer NOT NULL,
    max_usd     numeric,
    committed   numeric NOT NULL DEFAULT 0,
    paused      boolean NOT NULL DEFAULT false
);
CREATE TABLE product (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         text NOT NULL UNIQUE,
    line        bigint NOT NULL,
    input       text NOT NULL,
    state       text NOT NULL DEFAULT 'waiting',
    attempts    integer NOT NULL DEFAULT 0,
    owner       text,
    result      bytea,
    ended       bigint
);
CREATE INDEX product_open ON product (id) WHERE state IN ('waiting', 'running');
CREATE UNIQUE INDEX product_ended ON product (ended);
CREATE SEQUENCE ended;
CREATE TABLE job (
    product     bigint NOT NULL REFERENCES product,
    step        text NOT NULL,
    state       text NOT NULL,
    endpoint    text NOT NULL,
    args_hash   text NOT NULL,
    request_id  text,
    result      text,
    estimate    numeric NOT NULL,
    cost        numeric,
    intent_at   timestamptz NOT NULL DEFAULT now(),
    owner       text NOT NULL,
    PRIMARY KEY (product, step)
);
CREATE INDEX job_open ON job (intent_at) WHERE state IN ('intent', 'sent', 'ambiguous');
CREATE INDEX job_request ON job (request_id);
CREATE TABLE picture (
    product     bigint NOT NULL REFERENCES product,
    name        text NOT NULL,
    url         text NOT NULL,
    path        text NOT NULL,
    bytes       bigint NOT NULL,
    PRIMARY KEY (product, name)
);
"""
