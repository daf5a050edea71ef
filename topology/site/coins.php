<?php
// The players' coins: one balance, or all of them in one snapshot (one SELECT).
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/database.php';

function balance(mysqli $db, int $player): array
{
    return rows($db, 'SELECT player, coins FROM players WHERE player = ?', $player)[0]
        ?? throw new Refusal(404, "there is no player $player");
}

function balances(mysqli $db): array
{
    $balances = array_column(rows($db, 'SELECT player, coins FROM players'), 'coins', 'player');
    $balances = array_map(intval(...), $balances); // a statement without parameters returns numbers as text
    return ['balances' => (object) $balances, 'total' => array_sum($balances)];
}

method('GET');
if (isset($_GET['player'])) {
    $player = player();
    answer(balance(database(), $player));
}
answer(balances(database()));
