<?php
// A player's score: the total, raised together with an entry in the ledger, once for each operation.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/database.php';

/** One SELECT, so that both numbers belong to one snapshot. */
function read_score(mysqli $db, int $player): array
{
    $select = 'SELECT player, score AS total,
            (SELECT COUNT(*) FROM ledger WHERE ledger.player = players.player) AS entries
        FROM players WHERE player = ?';
    return rows($db, $select, $player)[0] ?? throw new Refusal(404, "there is no player $player");
}

/**
 * The player's row first, then the entry: its number is assigned late, so that entries of one player are committed in the
 * order of their numbers. LAST_INSERT_ID(value) returns the new total with the UPDATE's answer.
 */
function add_points(mysqli $db, int $player, int $points, string $op): array
{
    $raised = execute($db, 'UPDATE players SET score = LAST_INSERT_ID(score + ?) WHERE player = ?', $points, $player);
    if ($raised->affected_rows !== 1) {
        throw new Refusal(404, "there is no player $player");
    }
    $entered = execute($db, 'INSERT INTO ledger (op, player, points) VALUES (?, ?, ?)', $op, $player, $points);
    return [
        'player' => $player,
        'points' => $points,
        'total' => $raised->insert_id,
        'entry' => $entered->insert_id,
        'first' => true,
    ];
}

/** The answer to an operation that the ledger has already. */
function repeated_score(mysqli $db, int $player, int $points, string $op): array
{
    $select = 'SELECT player, points, score AS total, entry FROM ledger JOIN players USING (player) WHERE op = ?';
    $entry = rows($db, $select, $op)[0];
    rollback($db); // a SELECT opens a transaction, too
    if ($entry['player'] !== $player || $entry['points'] !== $points) {
        throw new Refusal(409, "the op $op was {$entry['points']} points for player {$entry['player']}");
    }
    return $entry + ['first' => false];
}

if (method('GET', 'POST') === 'GET') {
    $player = player();
    answer(read_score(database(), $player));
}
$player = player();
$points = number('points', 1, 1000);
$op = op();
$db = database();
try {
    $score = transaction($db, fn () => add_points($db, $player, $points, $op));
} catch (mysqli_sql_exception $failure) {
    $score = $failure->getCode() === DUPLICATE ? repeated_score($db, $player, $points, $op) : throw $failure;
}
answer($score);
