<?php
// A player's motto. Each change gives it the next version; a change that expects another version is refused.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/database.php';

const MOTTO_BYTES = 200;

function motto(): string
{
    $motto = parameter('motto');
    if ($motto === null || strlen($motto) > MOTTO_BYTES || !preg_match('//u', $motto)) {
        throw new Refusal(400, 'motto must be UTF-8 text of at most ' . MOTTO_BYTES . ' bytes');
    }
    return $motto;
}

function read_profile(mysqli $db, int $player): array
{
    return rows($db, 'SELECT player, motto, version FROM players WHERE player = ?', $player)[0]
        ?? throw new Refusal(404, "there is no player $player");
}

/** One UPDATE reads, compares and writes; LAST_INSERT_ID(value) returns the new version with its answer. */
function change_motto(mysqli $db, int $player, string $motto, ?int $expect): array
{
    $change = 'UPDATE players SET motto = ?, version = LAST_INSERT_ID(version + 1) WHERE player = ?';
    $changed = $expect === null
        ? execute($db, $change, $motto, $player)
        : execute($db, "$change AND version = ?", $motto, $player, $expect);
    if ($changed->affected_rows !== 1) {
        throw $expect === null
            ? new Refusal(404, "there is no player $player")
            : new Refusal(409, "the version of player $player is not $expect");
    }
    return ['player' => $player, 'motto' => $motto, 'version' => $changed->insert_id];
}

if (method('GET', 'POST') === 'GET') {
    $player = player();
    answer(read_profile(database(), $player));
}
$player = player();
$motto = motto();
$expect = parameter('expect') === null ? null : number('expect', 0, 4_294_967_295);
$db = database();
answer(transaction($db, fn () => change_motto($db, $player, $motto, $expect)));
