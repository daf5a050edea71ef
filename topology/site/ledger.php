<?php
// The ledger of scores: one entry by its operation, or a page of entries.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/database.php';

const PAGE = 1000;

function entry(mysqli $db, string $id): array
{
    return rows($db, 'SELECT entry, player, points FROM ledger WHERE op = ?', $id)[0]
        ?? throw new Refusal(404, "the ledger has no entry of the op $id");
}

/** The next page continues after `last`; after an empty page `last` stays the same. */
function page(mysqli $db, int $after, int $limit): array
{
    $select = 'SELECT entry, op, player, points FROM ledger WHERE entry > ? ORDER BY entry LIMIT ?';
    $entries = rows($db, $select, $after, $limit);
    return ['entries' => $entries, 'last' => $entries === [] ? $after : end($entries)['entry']];
}

method('GET');
$id = parameter('id');
if ($id !== null) {
    if (!preg_match(OP, $id)) {
        throw new Refusal(400, 'id must be ' . OP_RULE);
    }
    answer(entry(database(), $id));
}
if (parameter('after') === null) {
    throw new Refusal(400, "either id must be given, or after (an entry, or 0) and limit (1 to " . PAGE . ')');
}
$after = number('after', 0, 999_999_999_999_999_999);
$limit = number('limit', 1, PAGE);
answer(page(database(), $after, $limit));
