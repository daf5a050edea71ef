<?php
// The transfers that were made: a page of them.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/database.php';

const PAGE = 1000;

method('GET');
$after = number('after', 0, 999_999_999_999_999_999);
$limit = number('limit', 1, PAGE);
$select = 'SELECT entry, op, payer AS `from`, payee AS `to`, coins FROM transfers WHERE entry > ? ORDER BY entry LIMIT ?';
$entries = rows(database(), $select, $after, $limit);
// the next page continues after `last`; after an empty page `last` stays the same
answer(['entries' => $entries, 'last' => $entries === [] ? $after : end($entries)['entry']]);
