<?php
// The database: a connection that outlives the request, statements, and transactions with a known or unknown outcome.
declare(strict_types=1);

const CONNECT_S = '3';
// A silent server costs a request this time twice: to reset the current connection, and to greet a new one. The sum must
// end before users and their browsers give up.
const READ_S = '7';

// One round trip that opens a transaction and bounds it. A wait for a lock must end before READ_S: its error leaves the
// connection usable. A transaction whose client fell silent (a node without power, a cut line) must release its locks.
const BEGIN = 'SET autocommit = 0, innodb_lock_wait_timeout = 5, idle_transaction_timeout = 15';
const TRIES = 3;

// Error codes of the server.
const DUPLICATE = 1062;
const DEADLOCK = 1213;
const CHECK_FAILED = 4025;

/**
 * The connection of this process. mysqli resets a persistent one with COM_CHANGE_USER before it hands it out, which
 * rolls back and unlocks whatever was left on it; where that fails (the database was restarted) it connects anew. So a
 * stale connection never reaches a statement.
 */
function database(): mysqli
{
    $site = part('database');
    // Not by mysqli::options(): the connection that replaces a stale one would be without them.
    ini_set('default_socket_timeout', CONNECT_S);
    ini_set('mysqlnd.net_read_timeout', READ_S);
    $db = new mysqli('p:' . $site['host'], $site['user'], $site['password'], $site['name'], $site['port']);
    $db->options(MYSQLI_OPT_INT_AND_FLOAT_NATIVE, true); // integers arrive as integers
    if ($db->character_set_name() !== 'utf8mb4') { // Debian's server has it as its default, which costs no round trip
        $db->set_charset('utf8mb4');
    }
    return $db;
}

/** The result of a statement. Copied at once: the connection remembers only its last statement. */
final class Done
{
    public readonly int $affected_rows;
    public readonly int $insert_id;

    public function __construct(mysqli $db)
    {
        $this->affected_rows = (int) $db->affected_rows;
        $this->insert_id = (int) $db->insert_id;
    }
}

/**
 * The statement with its values in place of the question marks. Put in here and not by the server, because a prepared
 * statement is two round trips more, and each holds the locks that others wait for. Numbers are numbers by their type;
 * text is quoted for the character set of this connection.
 */
function filled_in(mysqli $db, string $sql, int|string ...$values): string
{
    $literals = array_map(
        fn (int|string $value): string => is_int($value) ? (string) $value : "'" . $db->real_escape_string($value) . "'",
        $values,
    );
    $between = explode('?', $sql);
    if (count($between) !== count($literals) + 1) {
        throw new LogicException('as many values as question marks');
    }
    return implode('', array_merge(...array_map(null, $between, [...$literals, ''])));
}

function execute(mysqli $db, string $sql, int|string ...$values): Done
{
    $db->query(filled_in($db, $sql, ...$values));
    return new Done($db);
}

/** All rows of a SELECT. */
function rows(mysqli $db, string $sql, int|string ...$values): array
{
    $result = $db->query(filled_in($db, $sql, ...$values));
    if (!$result instanceof mysqli_result) {
        throw new mysqli_sql_exception('the rows did not arrive', 2013);
    }
    return $result->fetch_all(MYSQLI_ASSOC);
}

/**
 * Does the work, then COMMIT, and returns only when that returned. Errors before the COMMIT was sent are thrown unchanged:
 * nothing was written, because the server rolls back without a COMMIT. Only a failed COMMIT leaves the outcome unknown.
 */
function transaction(mysqli $db, Closure $work): mixed
{
    $db->query(BEGIN);
    for ($try = 1; ; $try++) {
        try {
            $result = $work();
            break;
        } catch (Throwable $failure) {
            rollback($db);
            if ($failure->getCode() !== DEADLOCK || $try === TRIES) {
                throw $failure;
            }
        }
    }
    try {
        $db->query('COMMIT');
    } catch (mysqli_sql_exception $failure) {
        throw new Refusal(500, 'the COMMIT was not answered: ' . $failure->getMessage(), 'unknown');
    }
    return $result;
}

/** A lost connection needs no ROLLBACK: the server does it when it notices, at the latest after the idle timeout. */
function rollback(mysqli $db): void
{
    try {
        $db->query('ROLLBACK');
    } catch (mysqli_sql_exception) {
    }
}
