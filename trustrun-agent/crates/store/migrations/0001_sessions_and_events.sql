-- One row per session. It is written when the session starts, as `incomplete` because `running`, so that no crash
-- can leave a pass behind; finishing replaces verdict, reason and report in one statement.
CREATE TABLE sessions (
    key           INTEGER PRIMARY KEY,          -- order of start
    id            TEXT    NOT NULL UNIQUE,      -- 20261120T215534Z-7f3a9c
    started_ns    INTEGER NOT NULL,             -- since the Unix epoch
    ended_ns      INTEGER,
    verdict       TEXT    NOT NULL CHECK (verdict IN ('pass', 'fail', 'incomplete', 'observed')),
    reason        TEXT    NOT NULL CHECK (reason IN ('running', 'finished')),
    command       TEXT    NOT NULL,             -- JSON array, redacted
    user          TEXT    NOT NULL,
    policy_name   TEXT,
    policy_sha256 TEXT,
    sensor        TEXT    NOT NULL,
    assurance     TEXT    NOT NULL,
    host          TEXT    NOT NULL,
    boot_id       TEXT    NOT NULL,
    agent_pid     INTEGER NOT NULL,
    agent_start   INTEGER,                      -- /proc/PID/stat field 22: tells the agent from a reused pid
    labels        TEXT    NOT NULL,             -- JSON object
    violations    INTEGER,
    emitted       INTEGER,
    stored        INTEGER,
    dropped       TEXT,                         -- JSON object, by stage
    report        TEXT,                         -- last, so that lists never read its pages
    CHECK (reason = 'finished' OR verdict = 'incomplete')
) STRICT;

-- One row per observation; payload never, only its length. The key holds the session and the sequence in it, so
-- that appending is appending to one b-tree and paging needs no second index. Numbers stand for words
-- (src/words.rs); addresses are 4 or 16 bytes.
CREATE TABLE events (
    key           INTEGER PRIMARY KEY,          -- sessions.key << 40 | sequence in the session
    boot_ns       INTEGER NOT NULL,
    wall_ns       INTEGER NOT NULL,
    kind          INTEGER NOT NULL,
    tgid          INTEGER NOT NULL,
    tid           INTEGER NOT NULL,
    uid           INTEGER NOT NULL,
    cookie        INTEGER,                      -- the bits of an unsigned number
    flow_sequence INTEGER,
    protocol      INTEGER,                      -- IANA
    direction     INTEGER,
    local_addr    BLOB,
    local_port    INTEGER,
    peer_addr     BLOB,
    peer_port     INTEGER,
    action        INTEGER,
    decided_by    INTEGER,
    enforced      INTEGER,
    rule          TEXT,
    host          TEXT,
    sent          INTEGER,
    received      INTEGER,
    detail        TEXT                          -- JSON object, redacted
) STRICT;
