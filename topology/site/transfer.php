<?php
// Moves coins from one player to another, once for each operation.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/database.php';

/**
 * One UPDATE moves the coins. Its scan of the primary key locks the two rows in ascending order, so that transfers wait
 * for each other but never deadlock. The table's check refuses it when the payer has too few coins.
 */
function move_coins(mysqli $db, int $payer, int $payee, int $coins, string $op): array
{
    $move = 'UPDATE players SET coins = coins + IF(player = ?, ?, ?) WHERE player IN (?, ?) ORDER BY player';
    if (execute($db, $move, $payer, -$coins, $coins, $payer, $payee)->affected_rows !== 2) {
        throw new Refusal(404, "there is no player $payer, or no player $payee");
    }
    execute($db, 'INSERT INTO transfers (op, payer, payee, coins) VALUES (?, ?, ?, ?)', $op, $payer, $payee, $coins);
    return ['from' => $payer, 'to' => $payee, 'coins' => $coins, 'first' => true];
}

/** The answer to a refused transfer: it may have been made before, even if the payer has too few coins now. */
function repeated_transfer(mysqli $db, int $payer, int $payee, int $coins, string $op): array
{
    $made = rows($db, 'SELECT payer AS `from`, payee AS `to`, coins FROM transfers WHERE op = ?', $op)[0] ?? null;
    rollback($db); // a SELECT opens a transaction, too
    if ($made === null) {
        throw new Refusal(409, "player $payer has not got $coins coins");
    }
    if ($made !== ['from' => $payer, 'to' => $payee, 'coins' => $coins]) {
        throw new Refusal(409, "the op $op was {$made['coins']} coins from player {$made['from']} to {$made['to']}");
    }
    return $made + ['first' => false];
}

method('POST');
$payer = player('from');
$payee = player('to');
if ($payer === $payee) {
    throw new Refusal(400, 'to must be another player than from');
}
$coins = number('coins', 1, 1000);
$op = op();
$db = database();
try {
    $transfer = transaction($db, fn () => move_coins($db, $payer, $payee, $coins, $op));
} catch (mysqli_sql_exception $failure) {
    $transfer = match ($failure->getCode()) {
        DUPLICATE, CHECK_FAILED => repeated_transfer($db, $payer, $payee, $coins, $op),
        default => throw $failure,
    };
}
answer($transfer);
