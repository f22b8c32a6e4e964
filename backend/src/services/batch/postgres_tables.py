"""The journal's tables on PostgreSQL: those of `journal.py`, and PgQueuer's beside them.

`now()` is the server's clock, so that machines need not agree on the time.
"""

BEGIN_JOB = """
CREATE FUNCTION begin_job(
    of_product bigint, of_step text, on_endpoint text, with_hash text, may_cost numeric, by_owner text, by_call text,
    retry_ambiguous boolean, owner_gone interval, forgotten interval
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    limits batch;
    known job;
BEGIN
    -- Of all machines one begins a job at a time: what is read below stays so until the end.
    SELECT * INTO limits FROM batch FOR UPDATE;
    SELECT * INTO known FROM job WHERE product = of_product AND step = of_step;
    IF known.state = 'intent' THEN
        IF known.begun = by_call THEN
            RETURN 'recorded'; -- by a try whose end was not seen
        ELSIF clock_timestamp() - known.intent_at < owner_gone THEN
            RETURN 'owner may live';
        END IF;
        UPDATE job SET state = 'ambiguous', told = limits.intents WHERE product = of_product AND step = of_step
        RETURNING * INTO known;
    END IF;
    IF known.state IN ('sent', 'done') OR (known.state = 'ambiguous' AND NOT retry_ambiguous) THEN
        RETURN 'known';
    ELSIF limits.max_jobs <= (
        -- What may be at fal. A job that nobody waits for counts for a while only: nobody will tell that it ended.
        SELECT count(*) FROM job JOIN product ON product.id = job.product
        WHERE job.state IN ('intent', 'sent', 'ambiguous') AND (
            (product.state = 'running' AND job.state <> 'ambiguous') OR job.intent_at > clock_timestamp() - forgotten
        )
    ) THEN
        RETURN 'later';
    ELSIF limits.committed + may_cost > limits.max_usd THEN
        RETURN 'over budget';
    END IF;
    UPDATE batch SET committed = committed + may_cost, intents = intents + 1;
    INSERT INTO job (product, step, state, endpoint, args_hash, estimate, intent_at, number, owner, begun)
    VALUES (
        of_product, of_step, 'intent', on_endpoint, with_hash, may_cost, clock_timestamp(), limits.intents + 1,
        by_owner, by_call
    )
    ON CONFLICT (product, step) DO UPDATE SET
        state = 'intent', endpoint = excluded.endpoint, args_hash = excluded.args_hash, estimate = excluded.estimate,
        intent_at = excluded.intent_at, number = excluded.number, owner = excluded.owner, begun = excluded.begun,
        told = NULL, over_by = NULL, request_id = NULL, result = NULL,
        -- fal may have run, and billed, the one in doubt.
        unknown = job.unknown + (job.state = 'ambiguous')::integer;
    RETURN 'recorded';
END $$
"""
"""`Store.begin` in one round trip, and with the batch locked as shortly as possible."""
TABLES = """
CREATE TABLE batch (
    id          integer PRIMARY KEY CHECK (id = 1),
    version     integer NOT NULL,
    recipe      text NOT NULL,
    max_jobs    integer NOT NULL,
    max_usd     numeric,
    committed   numeric NOT NULL DEFAULT 0,
    paused      boolean NOT NULL DEFAULT false,
    intents     bigint NOT NULL DEFAULT 0
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
    unknown     integer NOT NULL DEFAULT 0,
    intent_at   timestamptz NOT NULL DEFAULT now(),
    number      bigint NOT NULL,
    told        bigint,
    over_by     float8,
    owner       text NOT NULL,
    begun       text NOT NULL,
    PRIMARY KEY (product, step)
);
CREATE INDEX job_open ON job (intent_at) WHERE state IN ('intent', 'sent', 'ambiguous');
CREATE INDEX job_request ON job (request_id);
CREATE INDEX job_number ON job (number);
CREATE TABLE picture (
    product     bigint NOT NULL REFERENCES product,
    name        text NOT NULL,
    url         text NOT NULL,
    path        text NOT NULL,
    bytes       bigint NOT NULL,
    PRIMARY KEY (product, name)
);
"""
