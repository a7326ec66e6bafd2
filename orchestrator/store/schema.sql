-- The tables and indexes of a ledger: what all migrations together make (a test compares them). CHECK constraints
-- refuse nonsense; ARCHITECTURE.md draws how the tables hang together.
--
-- Moments are seconds since 1970 UTC. A `member` row says that an item stands at a position of a run; its id is
-- `run << 32 | position`, so that a run's items in input order are one range of row ids and need no index of their own.

-- One row per process start. Ids are never reused, so a restarted process cannot be taken for its predecessor.
CREATE TABLE process (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    host TEXT NOT NULL,  -- machine, boot and pid namespace: within it, pids can be looked at
    pid INTEGER NOT NULL,
    pid_started REAL NOT NULL,
    started_at REAL NOT NULL,
    lease_until REAL NOT NULL,
    state TEXT NOT NULL,
    serves INTEGER DEFAULT 0 NOT NULL,  -- 1: takes runs out of the queue
    CONSTRAINT ck_process_state CHECK (state IN ('live', 'ended', 'dead'))
) STRICT;
CREATE INDEX ix_process_lease_until ON process (lease_until) WHERE state = 'live';

CREATE TABLE job (
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    parse TEXT,  -- fingerprint of the `parse` that made the outputs in `result`
    CONSTRAINT pk_job PRIMARY KEY (id),
    CONSTRAINT uq_job_name UNIQUE (name)
) STRICT;

-- One execution of a job over one snapshot of its source.
CREATE TABLE run (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL,
    state TEXT NOT NULL,
    fingerprint TEXT NOT NULL,  -- of everything in the job that shapes the outcome
    spec TEXT NOT NULL,  -- JSON: job file, overrides, keep, output, identity; never a secret
    input_sha256 TEXT,
    total INTEGER DEFAULT 0 NOT NULL,
    "plan" TEXT,  -- JSON: new, edited, reused, retry, discarded at ingest
    holder INTEGER,
    rate REAL,  -- items settled per second lately, written by the holder
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    error TEXT,
    held INTEGER DEFAULT 0 NOT NULL,  -- 1: a person wants it to stop asking for now
    concurrency INTEGER,  -- requests in flight, if a person wants another number than the policy's
    due_at REAL,  -- it is queued, and may be executed from then on
    priority INTEGER DEFAULT 0 NOT NULL,
    deadline REAL,  -- when its answers are wanted
    "key" TEXT,  -- submissions with the same key are one run
    key_hash TEXT,  -- of what was submitted with it
    tries INTEGER DEFAULT 0 NOT NULL,  -- claims without progress since
    settled_at_claim INTEGER DEFAULT 0 NOT NULL,
    why TEXT,  -- why it makes no progress now: it was requeued, or waits
    notification TEXT,  -- JSON: whether its hooks are still to be called, and how each call went
    left_at REAL,  -- when a process last stopped working on it, whatever its state
    delivered_at REAL,  -- when everything that it settled was delivered
    made_as TEXT,  -- hash of what shaped its items besides the texts of its source, if that is known
    CONSTRAINT ck_run_state CHECK (
        state IN ('ingesting', 'open', 'finished', 'failed', 'stopped', 'cancelled', 'superseded')
    ),
    CONSTRAINT ck_run_finished CHECK ((state IN ('finished', 'cancelled', 'superseded')) = (finished_at IS NOT NULL)),
    CONSTRAINT fk_run_job_id FOREIGN KEY(job_id) REFERENCES job (id),
    CONSTRAINT fk_run_holder FOREIGN KEY(holder) REFERENCES process (id)
) STRICT;
CREATE INDEX ix_run_finished ON run (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX ix_run_holder ON run (holder) WHERE holder IS NOT NULL;
CREATE INDEX ix_run_job_id_id ON run (job_id, id);
CREATE INDEX ix_run_queued ON run (due_at) WHERE due_at IS NOT NULL;
CREATE UNIQUE INDEX ux_run_key ON run ("key") WHERE key IS NOT NULL;

-- Which endpoints a queued run will use: one run in the queue asks an endpoint at a time.
CREATE TABLE uses (
    run_id INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    CONSTRAINT pk_uses PRIMARY KEY (run_id, endpoint),
    CONSTRAINT fk_uses_run_id FOREIGN KEY(run_id) REFERENCES run (id)
) WITHOUT ROWID, STRICT;
CREATE INDEX ix_uses_endpoint ON uses (endpoint);

-- A queued run waits for another one: for its success, or for its end, however it ends.
CREATE TABLE wait (
    run_id INTEGER NOT NULL,
    for_run INTEGER NOT NULL,
    any_end INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_wait PRIMARY KEY (run_id, for_run),
    CONSTRAINT fk_wait_run_id FOREIGN KEY(run_id) REFERENCES run (id),
    CONSTRAINT fk_wait_for_run FOREIGN KEY(for_run) REFERENCES run (id)
) WITHOUT ROWID, STRICT;
CREATE INDEX ix_wait_for_run ON wait (for_run);

-- Measurements of a run every few seconds: counters since this process began it, and values at that moment.
CREATE TABLE reading (
    run_id INTEGER NOT NULL,
    at REAL NOT NULL,
    process_id INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    discarded INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    tokens_in INTEGER,
    tokens_out INTEGER,
    in_flight INTEGER NOT NULL,
    latency REAL,  -- seconds, the median of the requests that ended since the last reading
    latency_counts TEXT,  -- JSON: answered requests by how long they took; see `LatencyHistogram`
    commits INTEGER,  -- of outcomes
    commit_seconds REAL,
    lost TEXT,  -- JSON: requests without an answer, by cause
    statuses TEXT,  -- JSON: requests by HTTP status, "none" if they failed without one
    CONSTRAINT pk_reading PRIMARY KEY (run_id, at),
    CONSTRAINT fk_reading_run_id FOREIGN KEY(run_id) REFERENCES run (id),
    CONSTRAINT fk_reading_process_id FOREIGN KEY(process_id) REFERENCES process (id)
) WITHOUT ROWID, STRICT;

-- Totals over all runs that never go down, even when runs are pruned: what processes add whenever they store a reading,
-- and what pruned awake windows cost. See running_totals.py.
CREATE TABLE running_total (
    name TEXT NOT NULL,
    label TEXT NOT NULL,  -- a cause, an endpoint, a bound; "" where the name says it all
    value REAL NOT NULL,
    CONSTRAINT pk_running_total PRIMARY KEY (name, label)
) WITHOUT ROWID, STRICT;

-- When a job is to be run. `next_slot` moves by compare-and-set, in the transaction that submits the run.
CREATE TABLE schedule (
    id INTEGER NOT NULL,
    job TEXT NOT NULL,
    jobfile TEXT NOT NULL,
    about TEXT NOT NULL,  -- JSON: what a process needs to execute its runs; never a secret
    endpoints TEXT NOT NULL,  -- JSON: names of all that its runs may use
    priority INTEGER DEFAULT 0 NOT NULL,
    deadline TEXT,  -- when its answers are wanted, as a policy says it; a run counts it from its slot
    -- JSON: names of jobs whose latest run its runs wait for, each with whether any end of that one will do
    "after" TEXT DEFAULT '[]' NOT NULL,
    source TEXT NOT NULL,  -- 'file': the job file says it; 'command': `schedule add` did
    cron TEXT NOT NULL,
    tz TEXT NOT NULL,
    overlap TEXT NOT NULL,
    catch_up TEXT NOT NULL,
    catch_up_window REAL NOT NULL,
    jitter REAL NOT NULL,
    paused INTEGER DEFAULT 0 NOT NULL,
    next_slot REAL,  -- None: it never fires again
    last_slot REAL,
    missed INTEGER DEFAULT 0 NOT NULL,
    gone INTEGER DEFAULT 0 NOT NULL,  -- 1: no job file says it any more
    revision INTEGER DEFAULT 0 NOT NULL,  -- raised by whoever changes what it says
    CONSTRAINT pk_schedule PRIMARY KEY (id),
    CONSTRAINT ck_schedule_source CHECK (source IN ('file', 'command')),
    CONSTRAINT ck_schedule_overlap CHECK (overlap IN ('skip', 'buffer_one', 'allow', 'cancel_other')),
    CONSTRAINT ck_schedule_catch_up CHECK (catch_up IN ('latest', 'all', 'none')),
    CONSTRAINT uq_schedule_job UNIQUE (job)
) STRICT;
CREATE INDEX ix_schedule_next ON schedule (next_slot) WHERE paused = 0 AND gone = 0;

-- What became of each slot: exactly one row for each.
CREATE TABLE slot (
    schedule_id INTEGER NOT NULL,
    slot REAL NOT NULL,
    outcome TEXT NOT NULL,
    run_id INTEGER,  -- no foreign key: the decision outlives a pruned run
    at REAL NOT NULL,
    CONSTRAINT pk_slot PRIMARY KEY (schedule_id, slot),
    CONSTRAINT ck_slot_outcome CHECK (outcome IN ('fired', 'skipped', 'missed')),
    CONSTRAINT fk_slot_schedule_id FOREIGN KEY(schedule_id) REFERENCES schedule (id)
) WITHOUT ROWID, STRICT;

-- A job file that could not be loaded when it was last looked at.
CREATE TABLE broken_file (
    path TEXT NOT NULL,
    error TEXT NOT NULL,
    at REAL NOT NULL,
    CONSTRAINT pk_broken_file PRIMARY KEY (path)
) WITHOUT ROWID, STRICT;

-- One version of one input row of a job: the same id with another request is another item.
CREATE TABLE item (
    "key" INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    item_id TEXT NOT NULL,
    hash TEXT NOT NULL,  -- of everything that shapes the answer
    request TEXT,  -- JSON, keys in the order given; NULL where the row could not be read
    forgiven INTEGER DEFAULT 0 NOT NULL,  -- attempts pardoned by `retry`
    CONSTRAINT pk_item PRIMARY KEY ("key"),
    CONSTRAINT uq_item_job_id_item_id_hash UNIQUE (job_id, item_id, hash),
    CONSTRAINT fk_item_job_id FOREIGN KEY(job_id) REFERENCES job (id)
) STRICT;

-- Items that were delivered by a run of an incremental job: its later runs leave them out, also when that run is
-- pruned.
CREATE TABLE delivered_item (
    job_id INTEGER NOT NULL,
    item_id TEXT NOT NULL,
    hash TEXT NOT NULL,
    CONSTRAINT pk_delivered_item PRIMARY KEY (job_id, item_id, hash),
    CONSTRAINT fk_delivered_item_job_id FOREIGN KEY(job_id) REFERENCES job (id)
) WITHOUT ROWID, STRICT;

CREATE TABLE member (
    id INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    item_key INTEGER NOT NULL,
    kept TEXT,  -- JSON object of the kept columns
    same_as INTEGER,  -- item_key of the run's first member with the same request, where that is another one
    CONSTRAINT pk_member PRIMARY KEY (id),
    CONSTRAINT uq_member_item_key_run_id UNIQUE (item_key, run_id),
    CONSTRAINT ck_member_position CHECK (id >> 32 = run_id),
    CONSTRAINT fk_member_run_id FOREIGN KEY(run_id) REFERENCES run (id),
    CONSTRAINT fk_member_item_key FOREIGN KEY(item_key) REFERENCES item ("key")
) STRICT;

-- A range of a run's positions [lo, hi): what is leased. The counters always agree with `result`; see chunks.py.
CREATE TABLE chunk (
    -- A halved chunk's number must not come back: its old leases would look valid.
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL,
    lo INTEGER NOT NULL,
    hi INTEGER NOT NULL,
    state TEXT NOT NULL,
    holder INTEGER,
    token INTEGER DEFAULT 0 NOT NULL,
    strikes INTEGER DEFAULT 0 NOT NULL,  -- leases lost without any progress
    completed INTEGER DEFAULT 0 NOT NULL,
    discarded INTEGER DEFAULT 0 NOT NULL,
    tokens_in INTEGER,
    tokens_out INTEGER,
    texts BLOB,  -- hash of the texts of its rows, if these alone made its members and their items
    CONSTRAINT uq_chunk_run_id_lo UNIQUE (run_id, lo),
    CONSTRAINT ck_chunk_state CHECK (state IN ('available', 'leased', 'done')),
    CONSTRAINT ck_chunk_holder CHECK ((state = 'leased') = (holder IS NOT NULL)),
    CONSTRAINT ck_chunk_count CHECK (
        lo < hi AND completed >= 0 AND discarded >= 0 AND completed + discarded <= hi - lo
    ),
    CONSTRAINT ck_chunk_done CHECK (state <> 'done' OR completed + discarded = hi - lo),
    CONSTRAINT fk_chunk_run_id FOREIGN KEY(run_id) REFERENCES run (id),
    CONSTRAINT fk_chunk_holder FOREIGN KEY(holder) REFERENCES process (id)
) STRICT;
CREATE INDEX ix_chunk_available ON chunk (run_id, id) WHERE state = 'available';
CREATE INDEX ix_chunk_leased ON chunk (holder) WHERE state = 'leased';

-- How an item was settled. The first writer wins; a row is deleted only together with its item.
CREATE TABLE result (
    item_key INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    seconds REAL NOT NULL,
    finished_at REAL NOT NULL,
    output TEXT,  -- JSON, as delivered
    answer TEXT,  -- JSON, as the model gave it, where `parse` made the output (or refused to)
    tokens_in INTEGER,
    tokens_out INTEGER,
    notes TEXT,  -- what makes its answer less than it seems, words with spaces between
    CONSTRAINT pk_result PRIMARY KEY (item_key),
    CONSTRAINT ck_result_outcome CHECK (outcome IN ('completed', 'discarded')),
    CONSTRAINT ck_result_output CHECK ((outcome = 'completed') = (output IS NOT NULL)),
    CONSTRAINT fk_result_item_key FOREIGN KEY(item_key) REFERENCES item ("key")
) STRICT;
CREATE INDEX ix_result_discarded ON result (item_key) WHERE outcome = 'discarded';
CREATE INDEX ix_result_noted ON result (item_key) WHERE notes IS NOT NULL;

-- The best values found for an endpoint, by what shapes its answers: where the next run starts.
CREATE TABLE tuning (
    shape TEXT NOT NULL,
    concurrency INTEGER,
    at REAL NOT NULL,
    batch_size INTEGER,
    CONSTRAINT pk_tuning PRIMARY KEY (shape)
) WITHOUT ROWID, STRICT;

-- Every attempt that failed. The number is the fencing token of the attempt; 0 means that it was never asked.
CREATE TABLE attempt (
    item_key INTEGER NOT NULL,
    number INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    kind TEXT NOT NULL,
    status INTEGER,
    message TEXT NOT NULL,
    seconds REAL NOT NULL,
    at REAL NOT NULL,
    available_at REAL,
    body TEXT,  -- what the server answered to a request of a batch, capped, secrets masked
    CONSTRAINT pk_attempt PRIMARY KEY (item_key, number),
    CONSTRAINT ck_attempt_outcome CHECK (outcome IN ('retry_later', 'discarded')),
    CONSTRAINT ck_attempt_later CHECK ((outcome = 'retry_later') = (available_at IS NOT NULL)),
    CONSTRAINT fk_attempt_item_key FOREIGN KEY(item_key) REFERENCES item ("key")
) WITHOUT ROWID, STRICT;

-- One request of a rollout to an endpoint, or one call of a function of the user. It belongs to an item's id, not to
-- one
-- version of the item, so that an edited rollout finds what it has asked before.
CREATE TABLE ask (
    "key" INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    item_id TEXT NOT NULL,
    hash BLOB NOT NULL,  -- of the route's identity and the request, or of a call
    nth INTEGER NOT NULL,  -- which one of the item's equal asks: 0, 1 ...
    number INTEGER NOT NULL,  -- its place in the rollout, from 1
    endpoint TEXT,  -- the route's name; NULL: a call of a function
    step TEXT,
    request TEXT NOT NULL,  -- JSON; of a call: its name and arguments
    outcome TEXT,  -- NULL: not settled yet
    answer TEXT,  -- JSON
    attempts INTEGER DEFAULT 0 NOT NULL,
    seconds REAL,
    at REAL,  -- when it was settled
    tokens_in INTEGER,
    tokens_out INTEGER,
    notes TEXT,  -- as in `result`
    failures TEXT,  -- JSON list of failed attempts: kind, status, message, seconds, at, available_at
    CONSTRAINT pk_ask PRIMARY KEY ("key"),
    CONSTRAINT uq_ask_job_id_item_id_hash_nth UNIQUE (job_id, item_id, hash, nth),
    CONSTRAINT ck_ask_outcome CHECK (outcome IN ('completed', 'discarded')),
    CONSTRAINT ck_ask_answer CHECK (outcome IS NOT 'completed' OR answer IS NOT NULL),
    CONSTRAINT ck_ask_count CHECK (length(hash) = 16 AND nth >= 0 AND number >= 1 AND attempts >= 0),
    CONSTRAINT fk_ask_job_id FOREIGN KEY(job_id) REFERENCES job (id)
) STRICT;
CREATE INDEX ix_ask_failed ON ask (job_id) WHERE failures IS NOT NULL;

-- What a run asked, by endpoint and step; '' stands for a call of a function, and for no step.
CREATE TABLE ask_total (
    run_id INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    step TEXT NOT NULL,
    asks INTEGER NOT NULL,
    discarded INTEGER NOT NULL,
    retried INTEGER NOT NULL,
    tokens_in INTEGER,
    tokens_out INTEGER,
    seconds REAL NOT NULL,  -- of requests
    CONSTRAINT pk_ask_total PRIMARY KEY (run_id, endpoint, step),
    CONSTRAINT ck_ask_total_count CHECK (asks >= 0 AND discarded >= 0 AND retried >= 0),
    CONSTRAINT fk_ask_total_run_id FOREIGN KEY(run_id) REFERENCES run (id)
) WITHOUT ROWID, STRICT;

-- What a run was charged in a day (UTC) for answers that are paid by the request or the token. `at`: for the latest
-- one.
CREATE TABLE charge (
    id INTEGER NOT NULL,
    run_id INTEGER NOT NULL,  -- 0: a load test; no foreign key, since costs outlive a pruned run
    job TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    day REAL NOT NULL,
    at REAL NOT NULL,
    requests INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    dollars REAL NOT NULL,
    CONSTRAINT pk_charge PRIMARY KEY (id),
    CONSTRAINT uq_charge_run_id_endpoint_day UNIQUE (run_id, endpoint, day)
) STRICT;
CREATE INDEX ix_charge_at ON charge (at);

-- When recurring maintenance was last done.
CREATE TABLE upkeep (
    what TEXT NOT NULL,
    at REAL NOT NULL,
    CONSTRAINT pk_upkeep PRIMARY KEY (what)
) WITHOUT ROWID, STRICT;

-- The span in which an endpoint that bills is in use, from the intent to resume it until it was seen asleep again.
CREATE TABLE awake_window (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    endpoint TEXT NOT NULL,
    pause_with TEXT NOT NULL,  -- JSON: what any process needs to pause it; never a secret
    state TEXT NOT NULL,
    owed INTEGER DEFAULT 0 NOT NULL,  -- 1: we resumed it, so we have to pause it
    to_zero INTEGER DEFAULT 0 NOT NULL,  -- 1: by scaling it to zero
    price_per_hour REAL,
    opened_at REAL NOT NULL,
    resumed_at REAL,
    asked_at REAL,  -- when it was asked to resume the last time
    closed_at REAL,
    closed_by TEXT,
    looked_at REAL DEFAULT 0 NOT NULL,
    seen TEXT,  -- the state that the last look showed
    said TEXT,  -- and the provider's own words: at the end, the proof
    billed_seconds REAL,  -- what the provider bills for all servers together, if it says so
    billed_dollars REAL,
    CONSTRAINT ck_awake_window_state CHECK (state IN ('open', 'closing', 'closed')),
    CONSTRAINT ck_awake_window_closed CHECK ((state = 'closed') = (closed_at IS NOT NULL)),
    CONSTRAINT ck_awake_window_flags CHECK (owed IN (0, 1) AND to_zero IN (0, 1))
) STRICT;
CREATE INDEX ix_awake_window_opened_at ON awake_window (opened_at);
CREATE UNIQUE INDEX ux_awake_window_endpoint ON awake_window (endpoint) WHERE state <> 'closed';

-- Who uses a window. The seconds are those of this holder; they overlap with other holders'.
CREATE TABLE hold (
    id INTEGER NOT NULL,
    window_id INTEGER NOT NULL,
    process_id INTEGER NOT NULL,
    run_id INTEGER,  -- no foreign key: what it cost outlives a pruned run
    job TEXT,
    since REAL NOT NULL,
    until REAL,
    cold_start REAL DEFAULT 0 NOT NULL,
    work REAL DEFAULT 0 NOT NULL,
    idle REAL DEFAULT 0 NOT NULL,
    pausing REAL DEFAULT 0 NOT NULL,
    kept_by TEXT,  -- who keeps it awake without a living process: a person, or a job that never pauses
    expires_at REAL,  -- when such a hold ends by itself; NULL: only when the endpoint is paused
    CONSTRAINT pk_hold PRIMARY KEY (id),
    CONSTRAINT fk_hold_window_id FOREIGN KEY(window_id) REFERENCES awake_window (id),
    CONSTRAINT fk_hold_process_id FOREIGN KEY(process_id) REFERENCES process (id)
) STRICT;
CREATE INDEX ix_hold_holding ON hold (process_id) WHERE until IS NULL;
CREATE INDEX ix_hold_window ON hold (window_id);

-- A file of the HTTP server. Its content is a blob beside the ledger, named by its hash; several rows may share one.
CREATE TABLE file (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,  -- NULL: never
    CONSTRAINT ck_file_bytes CHECK (bytes >= 0),
    CONSTRAINT uq_file_id UNIQUE (id)
) STRICT;
CREATE INDEX ix_file_expires ON file (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX ix_file_sha256 ON file (sha256);

-- A file that arrives in parts.
CREATE TABLE upload (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    bytes INTEGER NOT NULL,  -- of all parts together, as announced
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    expires_after REAL,  -- seconds for which the file is kept
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    file_id TEXT,  -- no foreign key: the file may be deleted
    CONSTRAINT ck_upload_state CHECK (state IN ('pending', 'completed', 'cancelled', 'expired')),
    CONSTRAINT ck_upload_file CHECK ((state = 'completed') = (file_id IS NOT NULL)),
    CONSTRAINT uq_upload_id UNIQUE (id)
) STRICT;
CREATE INDEX ix_upload_pending ON upload (expires_at) WHERE state = 'pending';

-- A part of a pending upload: a blob too.
CREATE TABLE upload_part (
    id TEXT NOT NULL,
    upload INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at REAL NOT NULL,
    CONSTRAINT pk_upload_part PRIMARY KEY (id),
    CONSTRAINT fk_upload_part_upload FOREIGN KEY(upload) REFERENCES upload (number)
) WITHOUT ROWID, STRICT;
CREATE INDEX ix_upload_part_sha256 ON upload_part (sha256);
CREATE INDEX ix_upload_part_upload ON upload_part (upload);

-- A batch of the HTTP server: once validated, a queued run over its input file. Its status follows from both.
CREATE TABLE batch (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    endpoint TEXT NOT NULL,  -- a path, /v1/chat/completions
    input_file_id TEXT NOT NULL,  -- as requested; there may be no such file
    input_sha256 TEXT,  -- its content stays while the batch is unfinished
    completion_window TEXT NOT NULL,
    metadata TEXT,  -- JSON object of texts
    output_expires_after REAL,  -- seconds
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    model TEXT,
    run_id INTEGER,  -- no foreign key: a batch outlives its pruned run
    in_progress_at REAL,
    cancelling_at REAL,
    finalizing_at REAL,
    ended_at REAL,
    ended_as TEXT,
    errors TEXT,  -- JSON list: why it failed
    total INTEGER,
    completed INTEGER,  -- the counts and the usage are those at its end
    failed INTEGER,
    usage TEXT,  -- JSON
    output_file_id TEXT,  -- no foreign keys: files may be deleted
    error_file_id TEXT,
    CONSTRAINT ck_batch_ended_as CHECK (ended_as IN ('completed', 'failed', 'expired', 'cancelled')),
    CONSTRAINT ck_batch_ended CHECK ((ended_at IS NOT NULL) = (ended_as IS NOT NULL)),
    CONSTRAINT ck_batch_run CHECK ((run_id IS NOT NULL) = (in_progress_at IS NOT NULL)),
    CONSTRAINT uq_batch_id UNIQUE (id)
) STRICT;
CREATE INDEX ix_batch_created_at ON batch (created_at);
CREATE INDEX ix_batch_run_id ON batch (run_id);
CREATE INDEX ix_batch_unfinished ON batch (number) WHERE ended_at IS NULL;
